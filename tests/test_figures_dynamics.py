"""Figures of training: what is drawn is what was measured, and step 0 stands apart."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analysis_lib import dynamics, figures, published
from analysis_lib.figures.dynamics import _StepAxis

matplotlib.use("Agg")

STEPS = np.array([0, 1, 10, 100])


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def curve(along="layer", names=("layer_0", "layer_1"), steps=STEPS, seed=0, intervals=True):
    """A curve per name that rises by 0.3, with draws around it."""
    rng = np.random.default_rng(seed)
    score = 0.2 + 0.3 * np.linspace(0, 1, len(steps))[:, None] + 0.05 * np.arange(len(names))
    draws = score + 0.02 * rng.standard_normal((50, 1, len(names)))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    if not intervals:
        low = high = np.full_like(score, np.nan)
    dims = ("step", along)
    return xr.Dataset(
        {"score": (dims, score), "low": (dims, low), "high": (dims, high),
         "draws": (("draw", *dims), draws)},
        {"step": steps, along: list(names)},
        {"confidence": 0.95, "measure": "rsa_roi", "over": "sounds", "draws_of": ""},
    )  # fmt: skip


def line_of(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def ticks_of(ax):
    return {tick.get_text(): place for tick, place in zip(ax.get_xticklabels(), ax.get_xticks())}  # noqa: B905


def test_steps_keep_their_order_and_ratios():
    place = _StepAxis(STEPS)
    x = place([0, 0.5, 1, 10, 100, 55])
    assert x[2:5].tolist() == [0, 1, 2]
    assert (np.diff(x[[0, 1, 2, 3, 5, 4]]) > 0).all()
    assert not _StepAxis([1, 10]).has_zero


def test_step_0_stands_left_of_a_break():
    ax = figures.plot_dynamics(curve())
    ticks = ticks_of(ax)
    assert list(ticks) == ["100", "10", "1", "0"] and ticks["0"] < ticks["1"]
    strokes = [line for line in ax.get_lines() if line.get_transform() == ax.get_xaxis_transform()]
    assert len(strokes) == 2
    assert all(ticks["0"] < line.get_xdata().mean() < ticks["1"] for line in strokes)
    # No solid line crosses the break.
    for line in ax.get_lines():
        if line.get_linestyle() == "-" and line not in strokes and len(line.get_xdata()) > 1:
            assert min(line.get_xdata()) > ticks["0"] + 0.3
    without = figures.plot_dynamics(curve(steps=STEPS[1:]))
    assert "0" not in ticks_of(without)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([6, 60], {"6", "10", "60"}),
        (range(0, 100_000, 1000), {"0", "1k", "10k", "99k"}),
        ([0, 5], {"0", "5"}),
    ],
)
def test_ticks_are_few_and_readable(steps, expected):
    ax = figures.plot_dynamics(curve(steps=np.array(steps)))
    assert set(ticks_of(ax)) == expected


def test_a_curve_is_drawn_with_its_interval():
    data = curve()
    ax = figures.plot_dynamics(data, title="Primary")
    np.testing.assert_allclose(line_of(ax, "layer_1").get_ydata(), data["score"].values[1:, 1])
    assert ax.get_ylabel() == "Similarity (Spearman ρ)" and ax.get_title() == "Primary"
    drawn = sorted(tuple(s[:, 1]) for c in ax.collections for s in c.get_segments())
    expected = sorted(zip(data["low"].values.ravel(), data["high"].values.ravel(), strict=True))
    np.testing.assert_allclose(drawn, expected)
    bare = figures.plot_dynamics(curve(intervals=False))
    assert not bare.collections


def test_many_checkpoints_have_bands():
    data = curve(steps=np.arange(0, 40_000, 1000))
    ax = figures.plot_dynamics(data, shown=["layer_1"])
    bands = [c for c in ax.collections if isinstance(c, matplotlib.collections.PolyCollection)]
    assert len(bands) == 1
    assert bands[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(
        float(data["high"].isel(layer=1).max())
    )


def test_runs_are_lines_too():
    runs = {name: curve(seed=k).isel(layer=0) for k, name in enumerate(("Natural", "Noise"))}
    ax = figures.plot_dynamics(runs, "run")
    assert {line.get_label() for line in ax.get_lines()} >= {"Natural", "Noise"}


def test_what_was_measured_stays_beside_what_was_smoothed():
    data = curve(steps=np.array([0, 1, 2, 4, 8, 16]))
    noisy = data.assign(score=data["score"] + 0.05 * (-1) ** np.arange(6)[:, None])
    calm = dynamics.smooth(noisy["score"], 5, 1)
    ax = figures.plot_dynamics(noisy, smoothed=calm)
    np.testing.assert_allclose(line_of(ax, "layer_0").get_ydata(), calm.values[1:, 0])
    measured = noisy["score"].values[:, 0]
    assert any(
        len(line.get_ydata()) == 6 and np.allclose(line.get_ydata(), measured)
        for line in ax.get_lines()
    )


def test_losses_are_drawn_as_recorded():
    steps = np.arange(0, 21)
    history = pd.DataFrame({"step": steps, "loss": 2.0 - 0.05 * steps})
    history["held_out"] = history["loss"].where(steps % 10 == 0) + 0.1
    ax = figures.plot_loss({"natural": history}, {"entropy": 1.5})
    np.testing.assert_allclose(line_of(ax, "natural").get_ydata(), [1.6, 1.1])
    assert line_of(ax, "entropy").get_ydata()[0] == 1.5
    empty = figures.plot_loss({})
    assert "without a record" in empty.texts[0].get_text()


def test_loss_and_alignment_meet_at_the_checkpoints():
    data = curve(names=("a",)).isel(layer=0)
    loss = pd.Series([3.0, 2.5, 2.0, 1.0], STEPS)
    ax = figures.plot_loss_alignment({"natural": loss}, {"natural": data})
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(points, np.column_stack([loss, data["score"]]))
    left, right = ax.get_xlim()
    assert left > right and ax.texts[0].get_text() == "100"
    assert (
        "without a record" in figures.plot_loss_alignment({}, {"natural": data}).texts[0].get_text()
    )


def test_emergence_says_what_did_not_emerge():
    rising = curve(names=("layer_0", "layer_1", "layer_2"))
    falling = rising["score"].isel(step=slice(None, None, -1)).values[:, 1].copy()
    rising["score"][:, 1] = falling
    rising["draws"][:, :, 1] = falling
    rising["draws"][:10, -1, 2] = 0  # a fifth of the draws do not rise
    found = dynamics.emergence(rising)
    ax = figures.plot_emergence({"Primary": found})
    dots = line_of(ax, "Primary: 90 % of the rise")
    place = _StepAxis(STEPS)
    np.testing.assert_allclose(dots.get_xdata(), place(found["reached"].values[[0, 2]]))
    assert [text.get_text() for text in ax.texts] == ["no rise (it rises in 0 % of the draws)"]
    arrows = [line for line in ax.get_lines() if line.get_marker() == ">"]
    assert len(arrows) == 1 and arrows[0].get_ydata()[0] == 2
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["layer_0", "layer_1", "layer_2"]


def test_contrasts_share_a_row_per_label():
    table = pd.DataFrame(
        {
            "kind": ["gained", "above noise"] * 2,
            "label": ["layer_0"] * 2 + ["R²"] * 2,
            "score": [0.1, 0.05, 0.2, -0.1],
            "low": [0.0, -0.1, 0.1, -0.2],
            "high": [0.2, 0.2, 0.3, 0.0],
        }
    )
    ax = figures.plot_contrasts(table, "Difference")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["layer_0", "R²"]
    gained = ax.containers[0]
    np.testing.assert_allclose(np.asarray(gained[0].get_xdata(), float), [0.1, 0.2])
    segments = gained[2][0].get_segments()
    np.testing.assert_allclose([s[:, 0].astype(float) for s in segments], [[0.0, 0.2], [0.1, 0.3]])


def test_published_ranges_are_the_tables():
    table = published.table("pepino_dynamics_approx")
    ranges = table[table["roi"] == "all"]
    assert ranges[["layer", "low", "high"]].iloc[2].tolist() == [6, 0.20, 0.51]
    assert (table["low"].dropna() < table["high"].dropna()).all()
    theirs = ranges.assign(depth=(ranges["layer"] - 1) / 9, label=ranges["layer"].astype(str))
    ours = pd.DataFrame({"depth": [0.0, 1.0], "low": 0.3, "high": 0.4, "label": ["1", "2"]})
    ax = figures.plot_published_ranges(theirs, ours)
    bars = [segment[:, 1] for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(bars, ranges[["low", "high"]])
    assert [text.get_text() for text in ax.texts] == ["2", "4", "6", "8", "10", "1", "2"]
