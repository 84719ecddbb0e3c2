import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analysis_lib import rsa
from analysis_lib.figures import similarity

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def patterns(n_sounds=12, n_units=30, seed=0):
    return np.random.default_rng(seed).standard_normal((n_sounds, n_units))


def test_rdm_sorts_by_category_and_is_symmetric():
    matrix = rsa.rdm(patterns())
    categories = ["b", "a"] * 6
    ax = similarity.plot_rdm(matrix, categories, "Brain")
    drawn = ax.get_images()[0].get_array()
    np.testing.assert_allclose(drawn, drawn.T)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    # The pair that is most alike among the sorted sounds is drawn darkest.
    order = np.argsort(categories, kind="stable")
    upper = np.triu_indices(12, 1)
    assert drawn[upper].argmin() == matrix[np.ix_(order, order)][upper].argmin()


def test_embedding_draws_every_sound_once():
    ax = similarity.plot_embedding(rsa.embedding(rsa.rdm(patterns())), ["x", "y", "z"] * 4)
    assert sum(len(points.get_offsets()) for points in ax.collections) == 12


def test_layer_curve_draws_the_interval_and_the_ceiling():
    layers = ["l1", "l2"]
    curve = xr.Dataset(
        {
            "score": ("layer", [0.2, 0.4]),
            "low": ("layer", [0.1, 0.35]),
            "high": ("layer", [0.3, 0.5]),
        },
        {"layer": layers},
    )
    ax = similarity.plot_layer_curve({"log-mel": curve}, (0.6, 0.7))
    assert "Noise ceiling" in ax.get_legend_handles_labels()[1]
    segments = np.concatenate([s[:, 1] for s in ax.containers[0][2][0].get_segments()])
    np.testing.assert_allclose(np.sort(segments), [0.1, 0.3, 0.35, 0.5])
    without = similarity.plot_layer_curve({"log-mel": curve}, (np.nan, np.nan))
    assert "Noise ceiling" not in without.get_legend_handles_labels()[1]


def test_schemes_positions_and_unique_parts():
    table = pd.DataFrame(
        {
            "model": ["mfcc", "mfcc", "log-mel", "log-mel"],
            "scheme": ["best layer", "strict"] * 2,
            "score": [0.3, 0.2, 0.5, 0.4],
            "error": [0.1, np.nan, 0.1, np.nan],
        }
    )
    ax = similarity.plot_schemes(table)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["MFCC", "Log-mel"]
    positions = pd.DataFrame({"Primary": [0.0, 0.5], "Lateral": [1.0, 0.5]}, index=["mfcc", "x"])
    ax = similarity.plot_region_positions(positions)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["Primary", "Lateral"]
    parts = pd.DataFrame({"Only a": [0.2, -0.1], "Shared": [0.3, 0.1]}, index=["Speech", "Music"])
    ax = similarity.plot_unique(parts)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([0.2, 0.0, 0.3, 0.1])  # negative parts are drawn as zero


def test_distributions_have_one_line_per_model():
    rng = np.random.default_rng(0)
    draws = {"mfcc": rng.normal(0.3, 0.05, 200), "log-mel": rng.normal(0.4, 0.05, 200)}
    ax = similarity.plot_distributions(draws, rng.normal(0, 0.02, 200))
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"Permuted sounds", "MFCC", "Log-mel"}
