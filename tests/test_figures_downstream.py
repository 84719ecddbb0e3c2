"""Figures of chapter 4: drawn where they are asked to, and saying what the tables say."""

import copy
import json
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

from analysis_lib import across_models, published  # noqa: E402
from analysis_lib.errors import ParameterError  # noqa: E402
from analysis_lib.figures import downstream  # noqa: E402

RNG = np.random.default_rng(0)
MODELS = ["log-mel", "mfcc", "small-cnn", "cochleagram", "my own", "another"]
FAMILIES = pd.Series(["handcrafted", "handcrafted", "untrained", "ear", "ear", "untrained"], MODELS)
SCORES = pd.DataFrame(RNG.random((6, 2)), MODELS, ["spoken digits", "pitch"])
ALIGNMENT = pd.DataFrame(RNG.random((6, 3)), MODELS, ["Speech", "Voxels (R²)", "RSA"])
POINTS = ALIGNMENT.assign(score=SCORES["pitch"], family=FAMILIES)
ASSOCIATED = across_models.associate(
    SCORES["pitch"], ALIGNMENT, FAMILIES, n_boot=50, n_permutations=50
)
DRAWN = {
    "task scores": (downstream.plot_task_scores, [SCORES]),
    "a task that all solve": (downstream.plot_task_scores, [SCORES.assign(easy=1.0)]),
    "association": (downstream.plot_association, [POINTS, "score", "Speech"]),
    "association with a gap": (
        downstream.plot_association,
        [POINTS.assign(Speech=[np.nan, 1, 2, 3, 4, 5]), "score", "Speech"],
    ),
    "association with numbers": (
        downstream.plot_association,
        [POINTS.assign(number=range(1, 7)), "score", "Speech"],
    ),
    "intervals": (downstream.plot_intervals, [ASSOCIATED]),
    "task correlations": (
        downstream.plot_task_correlations,
        [across_models.associate_tasks(SCORES, ALIGNMENT)],
    ),
    "leverage": (downstream.plot_leverage, [{"Voxels": published.weakest_models(n_most=3)}]),
    "task changes": (downstream.plot_task_changes, [published.task_changes()]),
    "rank gains": (downstream.plot_rank_gains, [published.rank_gains()]),
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_drawn_on_the_axis_given_and_leaves_its_input_alone(name):
    draw, arguments = DRAWN[name]
    before = copy.deepcopy(arguments)
    figure, ax = plt.subplots()
    assert draw(*arguments, ax=ax) is ax
    figure.canvas.draw()
    assert ax.get_xlabel() and plt.get_fignums() == [figure.number]
    for one, other in zip(before, arguments, strict=True):
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, other)
    assert draw(*arguments) is not ax


def test_task_scores_show_the_scores_and_colour_the_place():
    ax = downstream.plot_task_scores(SCORES)
    written = [float(text.get_text()) for text in ax.texts]
    np.testing.assert_allclose(written, SCORES.to_numpy().ravel(), atol=0.005)
    colours = np.asarray(ax.collections[0].get_array()).reshape(SCORES.shape)
    np.testing.assert_allclose(colours.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(colours.std(axis=0, ddof=1), 1)


def test_the_association_says_both_correlations_and_names_whom_it_is_told_to():
    ax = downstream.plot_association(POINTS, "score", "Speech", named=["mfcc"])
    r = np.corrcoef(POINTS["score"], POINTS["Speech"])[0, 1]
    assert f"r = {r:.2f}" in ax.get_title() and "n = 6" in ax.get_title()
    assert [text.get_text() for text in ax.texts] == ["MFCC"]


def test_several_measures_share_a_legend_and_a_key_in_the_order_of_performance():
    axes = downstream.plot_associations(POINTS, "score", list(ALIGNMENT))
    drawn = axes.flat[0].figure.axes
    assert [ax.get_ylabel() for ax in drawn] == list(ALIGNMENT)
    figure = drawn[0].figure
    key = re.findall(r"(\d) ([^ \n]+)", figure.get_supxlabel())
    best = POINTS["score"].idxmax()
    assert key[0] == ("1", downstream.label(best).split()[0]) and len(key) == len(MODELS)
    number = next(text for text in drawn[0].texts if text.get_text() == "1")
    assert number.xy == tuple(POINTS.loc[best, ["score", "Speech"]])
    assert len(figure.legends) == 1


def test_no_number_is_drawn_where_models_are_named():
    axes = downstream.plot_associations(POINTS, "score", ["Speech", "RSA"], named=["mfcc"])
    assert [[text.get_text() for text in ax.texts] for ax in axes.flat] == [["MFCC"]] * 2
    assert axes.flat[0].figure.get_supxlabel() == ""


def test_stars_mark_what_survives_the_correction():
    table = across_models.associate_tasks(SCORES, ALIGNMENT)
    table["p_adjusted"] = [0.01] + [0.5] * (len(table) - 1)
    written = [text.get_text() for text in downstream.plot_task_correlations(table).texts]
    assert [text.endswith("*") for text in written].count(True) == 1
    assert written[0] == f"{table['pearson'][0]:.2f}*"


def test_rings_mark_the_verdicts_that_change():
    published_way, without = (published.task_changes(way) for way in ("unchanged", "dropped"))
    ax = downstream.plot_task_changes(published_way, without["verdict"])
    ring = ax.collections[-1].get_offsets()
    names = [label.get_text() for label in ax.get_yticklabels()]
    changed = published_way.index[published_way["verdict"] != without["verdict"]]
    assert {names[int(place)] for place in ring[:, 1]} == set(changed) and len(changed) == 2


def data_of(html):
    return json.loads(re.search(r"const data = (\{.*\});\n", html)[1])


def test_the_explorer_carries_its_data_and_needs_no_network():
    html = downstream.explorer_html(POINTS, "score", "Speech")
    assert len(html) < 20_000
    addresses = set(re.findall(r"https?://[^\"'\s]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name space, not a place to load from
    assert not re.search(r"\b(src|href)=|@import|url\(|@name@|@data@", html)
    data = data_of(html)
    assert data["measures"] == [*ALIGNMENT, "score"] and data["x"] == "score"
    values = np.array([model["values"] for model in data["models"]])
    np.testing.assert_allclose(values, POINTS[data["measures"]], atol=1e-5)
    assert {model["family"] for model in data["models"]} == set(data["colours"])


def test_the_explorer_keeps_what_is_unknown_and_what_looks_like_code_apart():
    points = POINTS.rename(index={"my own": "</script><b>"})
    points.loc["mfcc", "Speech"] = np.nan
    html = downstream.explorer_html(points, "score", "Speech")
    assert html.count("</script>") == 1
    models = data_of(html)["models"]
    assert models[4]["name"] == "</script><b>"
    assert models[1]["values"][0] is None


def test_two_explorers_do_not_share_a_name_and_one_is_always_the_same():
    one = downstream.explorer_html(POINTS, "score", "Speech")
    assert one == downstream.explorer_html(POINTS, "score", "Speech")
    other = downstream.explorer_html(POINTS, "score", "RSA")
    ids = [re.search(r'id="(explorer-\w+)"', html)[1] for html in (one, other)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    "points", [POINTS.drop(columns="family"), POINTS.drop(columns="Speech")], ids=["family", "y"]
)
def test_the_explorer_says_what_it_misses(points):
    with pytest.raises(ParameterError, match="family"):
        downstream.explorer_html(points, "score", "Speech")
