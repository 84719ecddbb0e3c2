"""Streamed FIR ridge against the explicit design, scikit-learn and himalaya."""

import numpy as np
import pytest
import torch
import xarray as xr
from himalaya.ridge import Ridge as HimalayaRidge
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from analysis_lib.encoding import fir
from analysis_lib.errors import DataError, ParameterError, UnknownNameError

LAGS = 4


def explicit(x, edges, n_lags=LAGS):
    """Delayed copies, row by row, as the definition has them."""
    rows = []
    for t in range(len(x)):
        history = [x[t - lag] if t >= lag else np.zeros(x.shape[1]) for lag in range(n_lags)]
        if edges == "zero" or t >= n_lags - 1:
            rows.append(np.concatenate(history))
    return np.array(rows)


def make(lengths=(37, 20, 51, 9, 64), d=6, v=5, seed=0, mean=2.0):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((LAGS * d, v))
    runs = {}
    for i, n in enumerate(lengths):
        x = rng.standard_normal((n, d)) + mean
        runs[f"s01e{i + 1:02d}a"] = (
            x,
            explicit(x, "zero") @ weights + 3 * rng.standard_normal((n, v)) + 1,
        )
    return runs


def stacked(runs, edges, names=None):
    first = LAGS - 1 if edges == "drop" else 0
    names = list(runs) if names is None else names
    design = np.concatenate([explicit(runs[name][0], edges) for name in names])
    return design, np.concatenate([runs[name][1][first:] for name in names])


@pytest.mark.parametrize("edges", ["drop", "zero"])
@pytest.mark.parametrize("n_rows_batch", [LAGS, 23, 4096])
def test_sums_are_those_of_the_explicit_design(edges, n_rows_batch):
    runs = make()
    sums = fir.FirAccumulator(6, 5, LAGS, edges, None, "float64", n_rows_batch)
    for i, (x, y) in enumerate(runs.values()):
        sums.add(x, y, "ab"[i % 2])
    design, y = stacked(runs, edges)
    total = sums.sums()
    assert total.n_rows == len(design)
    np.testing.assert_allclose(total.xtx, design.T @ design, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(total.xty, design.T @ y, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(total.x, design.sum(0), rtol=1e-10)
    np.testing.assert_allclose(total.yy, (y**2).sum(0), rtol=1e-10)
    one = stacked(runs, edges, [n for i, n in enumerate(runs) if i % 2])[0]
    np.testing.assert_allclose(sums.sums("b").xtx, one.T @ one, rtol=1e-10, atol=1e-9)


def test_runs_can_be_added_after_sums_were_taken():
    runs = list(make().values())
    sums, fresh = (fir.FirAccumulator(6, 5, LAGS, "drop", None, "float64") for _ in range(2))
    for x, y in runs[:2]:
        sums.add(x, y)
    sums.sums()
    for x, y in runs[2:]:
        sums.add(x, y)
    for x, y in runs:
        fresh.add(x, y)
    torch.testing.assert_close(sums.sums().xtx, fresh.sums().xtx)


def test_runs_shorter_than_the_lags_with_zero_history():
    x, y = np.arange(12.0).reshape(2, 6), np.ones((2, 5))
    sums = fir.FirAccumulator(6, 5, LAGS, "zero", None, "float64")
    sums.add(x, y)
    design = explicit(x, "zero")
    np.testing.assert_allclose(sums.sums().xtx, design.T @ design)
    with pytest.raises(DataError, match="no full history"):
        fir.FirAccumulator(6, 5, LAGS, "drop").add(x, y)


def test_many_runs_flush_their_edges(monkeypatch):
    monkeypatch.setattr("analysis_lib.encoding.fir_sums._EDGE_RUNS", 3)
    runs = make((11,) * 10)
    sums = fir.FirAccumulator(6, 5, LAGS, "drop", None, "float64")
    for x, y in runs.values():
        sums.add(x, y)
    design, _ = stacked(runs, "drop")
    np.testing.assert_allclose(sums.sums().xtx, design.T @ design, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("edges", ["drop", "zero"])
@pytest.mark.parametrize("lengths", [(37, 20, 51, 9, 64), (9, 8, 7)], ids=["sums", "rows"])
@pytest.mark.parametrize("oracle", ["sklearn", "himalaya"])
def test_fit_is_that_of_other_libraries(edges, lengths, oracle):
    runs = make(lengths)
    *train, held = runs
    alpha = 7.0
    model = fir.fir_ridge(
        {k: x for k, (x, _) in runs.items()},
        lambda name: runs[name][1],
        {"train": train, "validation": [held]},
        LAGS, [alpha], edges, standardize=False, precision="float64", device="cpu",
    )  # fmt: skip
    design, y = stacked(runs, edges, train)
    if oracle == "sklearn":
        reference = Ridge(alpha=alpha).fit(design, y)
        coefficients, intercept = reference.coef_.T, reference.intercept_
    else:
        reference = HimalayaRidge(alpha=alpha, fit_intercept=True).fit(design, y)
        coefficients, intercept = reference.coef_, reference.intercept_
    np.testing.assert_allclose(model["weights"].values.reshape(-1, 5), coefficients, atol=1e-8)
    np.testing.assert_allclose(model["intercept"], intercept, atol=1e-7)
    test, seen = stacked(runs, edges, [held])
    predicted = test @ coefficients + intercept
    np.testing.assert_allclose(
        model["validation_r2"][0], r2_score(seen, predicted, multioutput="raw_values"), atol=1e-8
    )
    r = [np.corrcoef(seen[:, i], predicted[:, i])[0, 1] for i in range(5)]
    np.testing.assert_allclose(model["validation_r"][0], r, atol=1e-8)
    ours = fir.fir_predict(model, runs[held][0])
    first = LAGS - 1 if edges == "drop" else 0
    assert np.isnan(ours[:first]).all()
    np.testing.assert_allclose(ours[first:], predicted, atol=1e-7)


def test_standardizing_is_a_penalty_on_scaled_features():
    runs = make()
    scale = np.array([1, 100, 0.01, 3, 1, 1])
    runs = {k: (x * scale, y) for k, (x, y) in runs.items()}
    *train, held = runs
    model = fir.fir_ridge(
        {k: x for k, (x, _) in runs.items()}, {k: y for k, (_, y) in runs.items()},
        {"train": train, "validation": [held]}, LAGS, [50.0], precision="float64", device="cpu",
    )  # fmt: skip
    design, y = stacked(runs, "drop", train)
    spread = np.tile(design[:, :6].std(0), LAGS)
    reference = Ridge(alpha=50.0).fit(design / spread, y)
    np.testing.assert_allclose(
        model["weights"].values.reshape(-1, 5), (reference.coef_ / spread).T, rtol=1e-6, atol=1e-9
    )


def test_each_target_gets_its_own_penalty_and_rows_agree_with_sums():
    runs = make((60, 60, 60), d=30, seed=3)
    rng = np.random.default_rng(0)
    runs = {
        k: (x, np.column_stack([y[:, :2], rng.standard_normal((len(y), 3))]))
        for k, (x, y) in runs.items()
    }
    names = list(runs)
    arguments = (
        {k: x for k, (x, _) in runs.items()}, {k: y for k, (_, y) in runs.items()},
        {"train": names[:2], "validation": names[2:]},
    )  # fmt: skip
    alphas = [1.0, 100.0, 1e5]
    many = fir.fir_ridge(
        *arguments, 2, alphas, precision="float64", device="cpu"
    )  # 180 > 60 columns
    few = fir.fir_ridge(*arguments, 5, alphas, precision="float64", device="cpu")  # < 150: sums too
    assert (many["alpha"][2:] == 1e5).all() and (many["alpha"][:2] < 1e5).all()
    best = many["validation_r2"].argmax("penalty")
    np.testing.assert_array_equal(many["alpha"], np.array(alphas)[best])
    assert few["weights"].shape == (5, 30, 5)


def test_refit_uses_validation_too():
    runs = make()
    *train, held = runs
    x, y = ({k: pair[i] for k, pair in runs.items()} for i in (0, 1))
    parts = {"train": train, "validation": [held]}
    model = fir.fir_ridge(
        x, y, parts, LAGS, [3.0], standardize=False, refit=True, precision="float64"
    )
    design, seen = stacked(runs, "drop")
    np.testing.assert_allclose(
        model["weights"].values.reshape(-1, 5),
        Ridge(alpha=3.0).fit(design, seen).coef_.T,
        atol=1e-8,
    )


def test_single_precision_is_close():
    runs = make((400, 400, 400), d=20, mean=50.0)
    x, y = ({k: pair[i].astype(np.float32) for k, pair in runs.items()} for i in (0, 1))
    names = list(runs)
    parts = {"train": names[:2], "validation": names[2:]}
    single, double = (
        fir.fir_ridge(x, y, parts, LAGS, [10.0], precision=p) for p in ("float32", "float64")
    )
    np.testing.assert_allclose(single["validation_r2"], double["validation_r2"], atol=1e-5)
    assert float(abs(single["weights"] - double["weights"]).max()) < 1e-4


@pytest.mark.parametrize("lengths", [(37, 20, 51), (9, 8, 7)], ids=["sums", "rows"])
def test_a_broken_target_is_nan_and_harms_no_other(lengths):
    runs = make(lengths)
    clean = {k: y.copy() for k, (_, y) in runs.items()}
    hurt = {k: y.copy() for k, y in clean.items()}
    names = list(runs)
    hurt[names[1]][5, 2] = np.nan
    x = {k: pair[0] for k, pair in runs.items()}
    parts = {"train": names[:2], "validation": names[2:]}
    good, bad = (fir.fir_ridge(x, y, parts, LAGS, [10.0]) for y in (clean, hurt))
    assert np.isnan(bad["weights"][..., 2]).all() and np.isnan(bad["alpha"][2])
    assert np.isnan(bad["validation_r2"][:, 2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(bad["weights"][..., others], good["weights"][..., others], atol=1e-6)


def test_planted_filter_is_recovered():
    rng = np.random.default_rng(0)
    kernel = np.array([0.0, 0.3, 1.0, 0.6, 0.2])
    x = {f"s01e{i:02d}a": rng.standard_normal((300, 8)) for i in range(1, 6)}
    w = rng.standard_normal((8, 6))
    y = {}
    for name, values in x.items():
        driven = np.apply_along_axis(np.convolve, 0, values @ w, kernel)[:300]
        y[name] = xr.DataArray(
            driven + 2 * driven.std() * rng.standard_normal(driven.shape),
            dims=("time", "target"), coords={"target": list("abcdef")},
        )  # fmt: skip
    names = list(x)
    model = fir.fir_ridge(x, y, {"train": names[:4], "validation": names[4:]}, 5)
    assert list(model["target"].values) == list("abcdef")
    for t in range(6):
        course = model["weights"].values[..., t] @ w[:, t]
        assert np.corrcoef(course, kernel)[0, 1] > 0.9


def test_constant_target_and_dead_units():
    runs = make()
    x = {k: np.column_stack([v[0], np.zeros(len(v[0]))]) for k, v in runs.items()}
    y = {k: np.column_stack([v[1][:, :1], np.ones(len(v[0]))]) for k, v in runs.items()}
    *train, held = runs
    model = fir.fir_ridge(x, y, {"train": train, "validation": [held]}, LAGS, [1.0])
    assert np.isfinite(model["weights"]).all() and (model["weights"][:, -1] == 0).all()
    assert np.isnan(model["validation_r2"][0, 1]) and np.isfinite(model["validation_r2"][0, 0])


def test_what_cannot_be_done_is_refused():
    runs = make()
    x, y = ({k: pair[i] for k, pair in runs.items()} for i in (0, 1))
    *train, held = runs
    parts = {"train": train, "validation": [held]}
    with pytest.raises(ParameterError, match="alphas"):
        fir.fir_ridge(x, y, parts, alphas=[0.0])
    with pytest.raises(ParameterError, match="'validation'"):
        fir.fir_ridge(x, y, {"train": train})
    with pytest.raises(ParameterError, match="edges"):
        fir.FirAccumulator(2, 2, 2, edges="wrap")
    with pytest.raises(UnknownNameError, match="s01e05b"):
        fir.fir_ridge(x, y, {"train": train, "validation": ["s01e05b"]})
    with pytest.raises(DataError, match="NaN"):
        fir.fir_ridge({**x, held: x[held] * np.nan}, y, parts)
    with pytest.raises(DataError, match="must be"):
        fir.FirAccumulator(6, 5, LAGS).add(x[held], y[held][:-1])
    with pytest.raises(ParameterError, match="rounding"):
        tiny = {k: np.repeat(v[:, :1], 6, axis=1) for k, v in x.items()}
        fir.fir_ridge(tiny, y, parts, LAGS, [1e-300], standardize=False)


def test_memory_does_not_grow_with_runs():
    sums = fir.FirAccumulator(16, 3, 3, n_rows_batch=64, device="cpu")
    rng = np.random.default_rng(0)

    def held_bytes():
        fold = sums.folds["train"]
        tensors = [v for v in vars(fold).values() if isinstance(v, torch.Tensor)]
        assert not any(isinstance(v, list | dict) for v in vars(fold).values())
        return sum(t.nbytes for t in tensors)

    seen = []
    for _ in range(3):
        for _ in range(256):
            sums.add(rng.standard_normal((5, 16)), rng.standard_normal((5, 3)))
        seen.append(held_bytes())
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same():
    runs = make()
    *train, held = runs
    x, y = ({k: pair[i] for k, pair in runs.items()} for i in (0, 1))
    parts = {"train": train, "validation": [held]}
    one, other = (
        fir.fir_ridge(x, y, parts, LAGS, [10.0], device=d, precision="float64")
        for d in ("cpu", "cuda")
    )
    np.testing.assert_allclose(one["weights"], other["weights"], atol=1e-8)
