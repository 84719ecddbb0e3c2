"""Figures of fine-tuning: what they show is what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analysis_lib import figures, finetuning


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_parcels_lie_where_they_are_and_are_sorted_where_nobody_knows():
    values = xr.DataArray(
        [0.3, -0.1, np.nan, 0.2], dims="target",
        coords={name: ("target", place) for name, place in
                zip("xyz", ([-50, -50, 50, 50], [-20, 10, -20, 10], [0, 5, 0, 5]), strict=True)},
    )  # fmt: skip
    ax = figures.plot_parcels(values, "Change", signed=True)
    points = ax.collections[0]
    assert points.get_clim() == (-0.3, 0.3)
    across = np.ma.getdata(points.get_offsets())[:, 0]
    assert across[0] > across[1] and across[2] < across[3] and across[:2].max() < across[2:].min()
    ax = figures.plot_parcels(values.drop_vars(list("xyz")), "R²")
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[:3] == [-0.1, 0.2, 0.3]


def test_the_kept_epoch_is_marked():
    curve = xr.Dataset(
        {"validation": (("epoch", "measure"), [[1, 0.0, 0.1], [0.8, 0.2, 0.4], [0.9, 0.1, 0.3]])},
        {"epoch": range(3), "measure": ["loss", "r2_mean", "r2_max"]}, {"best_epoch": 1},
    )  # fmt: skip
    ax = figures.plot_validation({"tuned": curve})
    assert ax.collections[0].get_offsets()[0].tolist() == [1, 0.2]


def test_conditions_depth_and_gains():
    table = pd.DataFrame(
        [("a", "x", 0.1, 0.0, 0.2), ("b", "x", 0.3, 0.2, 0.4)],
        columns=["model", "parcels", "score", "low", "high"],
    )
    ax = figures.plot_conditions(table, {"x": 0.6})
    assert [bars.lines[0].get_ydata()[0] for bars in ax.containers] == [0.1, 0.3]
    ax = figures.plot_depth(table.rename(columns={"model": "start"}))
    assert list(ax.lines[0].get_ydata()) == [0.1, 0.3]
    gains = pd.DataFrame(
        {"network": "tuned", "task": "notes", "train_seconds": [20.0, 5.0], "gain": [0.1, -0.1]}
    )
    ax = figures.plot_task_gain(gains)
    assert list(ax.lines[0].get_xdata()) == [5.0, 20.0]
    assert list(ax.lines[0].get_ydata()) == [-0.1, 0.1]


def test_specificity_drift_and_timestamps():
    scores = xr.DataArray(
        [[0.3, 0.1], [0.2, 0.4]], dims=("trained", "tested"),
        coords={"trained": ["a", "b"], "tested": ["a", "b"]},
    )  # fmt: skip
    ax = figures.plot_specificity(scores)
    assert [text.get_text() for text in ax.texts] == ["0.300", "0.100", "0.200", "0.400"]
    layers = list(finetuning.settings.LAYERS)
    drift = xr.Dataset(
        {
            "mean_shift": (("step", "layer"), np.arange(14).reshape(2, 7)),
            "embedding_change": (("step", "probe"), [[0.0], [0.5]]),
        },
        {"step": [0, 1], "layer": layers},
    )
    ax = figures.plot_batch_norm_drift(drift)
    assert [line.get_label() for line in ax.lines] == layers
    ax = figures.plot_timestamps(finetuning.timestamp_error(10))
    assert ax.lines[1].get_ydata()[-1] < ax.lines[0].get_ydata()[-1]
