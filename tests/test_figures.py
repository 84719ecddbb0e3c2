"""What a figure must be, whatever it shows: drawn on the axis given, labelled, without side effects."""

import copy

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

from analysis_lib import figures, models  # noqa: E402

CATEGORIES = ["speech", "music", "speech", "nature", "music", "music"]
SOUNDS = [f"s{i}" for i in range(6)]
RNG = np.random.default_rng(0)


def activations(n_units):
    values = RNG.standard_normal((6, n_units))
    values[:, 0] = 3.0  # a unit that never changes
    coords = {"sound": SOUNDS, "category": ("sound", CATEGORIES)}
    return xr.DataArray(values, dims=("sound", "unit"), coords=coords)


def responses(values):
    coords = {"sound": SOUNDS, "category": ("sound", CATEGORIES)}
    return xr.DataArray(np.asarray(values, dtype=float), dims="sound", coords=coords)


def layers_of(models):
    rows = [(m, d, 5 + d) for m, n in models.items() for d in np.linspace(0, 1, n)]
    return pd.DataFrame(rows, columns=["model", "depth", "dimensionality"])


def scores_of(models, targets=("Pitch", "Low frequency")):
    rows = [(m, t, 0.1 * (i + 1), 0.01) for i, m in enumerate(models) for t in targets]
    return pd.DataFrame(rows, columns=["model", "target", "score", "error"])


MODELS = {"log-mel": 1, "small-cnn": 5, "one of my own": 3}
DRAWN = {
    "category counts": (figures.plot_category_counts, [CATEGORIES]),
    "one category": (figures.plot_category_counts, [["speech"]]),
    "spectrogram": (figures.plot_spectrogram, [RNG.random((50, 30)), 2.0]),
    "activations": (figures.plot_activations, [activations(100)]),
    "two units": (figures.plot_activations, [activations(2)]),
    "dimensionality": (figures.plot_dimensionality, [layers_of(MODELS)]),
    "dimensionality of one layer": (figures.plot_dimensionality, [layers_of({"mfcc": 1})]),
    "scores": (figures.plot_scores, [scores_of(MODELS)]),
    "scores without errors": (figures.plot_scores, [scores_of(MODELS).drop(columns="error")]),
    "score of one model": (figures.plot_scores, [scores_of(["mfcc"], ["Pitch"])]),
    "layer choice": (
        figures.plot_layer_choice,
        [pd.DataFrame([[0.2, 0.8], [1.0, 0.0]], ["A1", "A2"], ["one", "two"])],
    ),
    "choice of one layer": (figures.plot_layer_choice, [pd.DataFrame([[1.0]], ["A1"], ["one"])]),
    "prediction": (figures.plot_prediction, [responses(range(6)), responses(range(6))[::-1]]),
    "null": (figures.plot_null, [{"log-mel": 0.3, "mfcc": 0.1}, RNG.random(40) / 20]),
    "null of one model": (figures.plot_null, [{"log-mel": 0.3}, np.zeros(1)]),
}


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("plot, arguments", DRAWN.values(), ids=DRAWN)
def test_a_figure_is_labelled_and_leaves_its_data_alone(plot, arguments):
    before = copy.deepcopy(arguments)
    ax = plot(*arguments)
    ax.figure.canvas.draw()
    assert isinstance(ax, matplotlib.axes.Axes)
    assert ax.get_xlabel().strip() and ax.get_ylabel().strip()
    assert len(plt.get_fignums()) == 1
    for now, then in zip(arguments, before, strict=True):
        if isinstance(now, (pd.DataFrame, xr.DataArray)):
            assert now.equals(then)
        else:
            np.testing.assert_equal(now, then)


@pytest.mark.parametrize("plot, arguments", DRAWN.values(), ids=DRAWN)
def test_a_figure_is_drawn_on_the_axis_given(plot, arguments):
    _, ax = plt.subplots()
    assert plot(*arguments, ax=ax) is ax
    assert len(plt.get_fignums()) == 1 and ax.has_data()


def test_quantities_carry_their_units():
    ax = figures.plot_spectrogram(RNG.random((50, 30)), 2.0)
    assert ax.get_xlabel() == "Time (s)" and ax.get_xlim() == (0, 2)
    assert "R²" in figures.plot_scores(scores_of(MODELS)).get_ylabel()
    assert "(z-scored)" in figures.plot_activations(activations(7)).get_xlabel()


def test_bars_are_as_high_as_the_scores():
    table = scores_of(MODELS)
    ax = figures.plot_scores(table.sample(frac=1, random_state=0))
    drawn = {c.get_label(): sorted(b.get_height() for b in c) for c in ax.containers if len(c) == 2
             and hasattr(c[0], "get_height")}  # fmt: skip
    for model in MODELS:
        expected = table.loc[table["model"] == model, "score"].tolist()
        assert drawn[figures.label(model)] == pytest.approx(expected)


def test_predictions_are_matched_by_the_sounds_names():
    measured = responses([0, 1, 2, 3, 4, 5])
    ax = figures.plot_prediction(measured, 10 * measured[::-1])
    points = np.concatenate([collection.get_offsets() for collection in ax.collections])
    np.testing.assert_allclose(points[:, 1], 10 * points[:, 0])
    assert len(points) == 6


def test_units_that_never_change_are_left_out():
    ax = figures.plot_activations(activations(4))
    (image,) = ax.images
    assert image.get_array().shape == (6, 3) and np.isfinite(image.get_array()).all()
    assert ax.get_xlabel().startswith("3 of 4 units")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["music", "nature", "speech"]


def test_a_model_is_called_by_its_cards_label():
    assert figures.label("log-mel") == "Log-mel"
    assert figures.label("one of my own") == "one of my own"


def test_colours_tell_models_and_categories_apart():
    models = [f"model{i}" for i in range(10)]
    assert len(set(figures.model_colours(models).values())) == 10
    kinds = [f"kind{i}" for i in range(11)]
    assert len(set(figures.category_colours(kinds).values())) == 11
    assert figures.category_colours(CATEGORIES) == figures.category_colours(CATEGORIES[::-1])


def test_the_books_style_is_one_that_matplotlib_reads():
    with matplotlib.rc_context():
        figures.use_style()
        assert matplotlib.rcParams["axes.spines.top"] is False


def test_zoo_has_a_dot_per_model_with_known_parameters():
    names = ["dasheng_base", "dasheng_06B", "dasheng_12B", "braindnn_ast", "spec-ec-base",
             "braindnn_spectemp_filters"]  # fmt: skip
    cards = [models.card(name) for name in names]
    ax = figures.plot_zoo(cards)
    dots = [line for line in ax.lines if len(line.get_xdata())]
    assert [line.get_xdata()[0] for line in dots] == [card.parameters for card in cards[:4]]
    assert len({line.get_color() for line in dots}) == 2
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["12", "12", "11", "14", "number not known (10)", "none learned (1)"]
    assert [text.get_text() for text in ax.get_yticklabels()] == [card.label for card in cards]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Dasheng", "Others"]
