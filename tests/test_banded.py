import numpy as np
import pytest
from himalaya.backend import get_backend
from sklearn.kernel_ridge import KernelRidge

from analysis_lib.encoding.banded import variance_partition
from analysis_lib.errors import AlignmentError, DataError, ParameterError

FOLDS = np.arange(60) % 4
SMALL = {"alphas": (1e-3, 1e-1, 10.0), "shares": (0.0, 0.5, 1.0)}


def spaces(seed=0, n=60, d=4):
    rng = np.random.default_rng(seed)
    common, first, second = rng.standard_normal((3, n, d))
    return {"model": np.hstack([common, first]), "baseline": np.hstack([common, second])}


def driven_by(x, rng, noise=0.2, n_targets=6):
    y = x @ rng.standard_normal((x.shape[1], n_targets))
    return y / y.std(axis=0) + noise * rng.standard_normal((len(x), n_targets))


@pytest.fixture(scope="module")
def result():
    features, rng = spaces(), np.random.default_rng(1)
    y = np.hstack(
        [
            driven_by(features["model"][:, 4:], rng),
            driven_by(features["baseline"][:, 4:], rng),
            driven_by(features["model"][:, :4], rng),
            rng.standard_normal((60, 6)),
        ]
    )
    return variance_partition(features, y, FOLDS, **SMALL)


def test_planted_parts_are_recovered(result):
    part = [slice(6 * k, 6 * k + 6) for k in range(4)]
    unique, shared = result["unique"].values, result["shared"].values
    assert unique[0, part[0]].mean() > 0.6 and abs(unique[1, part[0]]).mean() < 0.1
    assert unique[1, part[1]].mean() > 0.6 and abs(unique[0, part[1]]).mean() < 0.1
    assert shared[part[2]].mean() > 0.7 and abs(unique[:, part[2]]).mean() < 0.1
    assert result["r2"].sel(space="joint").values[part[3]].mean() < 0.1  # nothing to explain
    share = result["share"].mean("fold").values
    assert share[part[0]].mean() > 0.8 and share[part[1]].mean() < 0.2


def test_parts_add_up(result):
    total = result["unique"].sum("feature_space") + result["shared"]
    np.testing.assert_allclose(total, result["r2"].sel(space="joint"), atol=1e-12)


def test_one_penalty_and_share_equal_scikit_learn():
    features, rng = spaces(), np.random.default_rng(2)
    y = driven_by(features["model"], rng, n_targets=3)
    alpha, share = 0.1, 0.3
    ours = variance_partition(features, y, FOLDS, alphas=[alpha], shares=[share])
    predicted = {space: np.zeros_like(y) for space in ("model", "baseline", "joint")}
    for fold in range(4):
        test = fold == FOLDS
        kernels = []
        for x in features.values():
            x = x - x[~test].mean(axis=0)
            kernels.append(x @ x.T / (x[~test] ** 2).sum(axis=1).mean())
        mixed = {
            "model": kernels[0],
            "baseline": kernels[1],
            "joint": share * kernels[0] + (1 - share) * kernels[1],
        }
        mean = y[~test].mean(axis=0)
        for space, kernel in mixed.items():
            fit = KernelRidge(alpha=alpha, kernel="precomputed")
            fit.fit(kernel[np.ix_(~test, ~test)], y[~test] - mean)
            predicted[space][test] = fit.predict(kernel[np.ix_(test, ~test)]) + mean
    for space, p in predicted.items():
        r2 = 1 - ((y - p) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(ours["r2"].sel(space=space), r2, atol=1e-7)


def test_bad_targets_are_nan_and_the_backend_is_put_back():
    features, rng = spaces(), np.random.default_rng(3)
    y = driven_by(features["model"], rng)
    clean = variance_partition(features, y, FOLDS, **SMALL)
    y[3, 1], y[:, 2] = np.nan, 5.0
    before = get_backend().name
    spoiled = variance_partition(features, y, FOLDS, **SMALL)
    assert get_backend().name == before
    assert spoiled["r2"].isnull().all("space").values.tolist() == [False, True, True, *[False] * 3]
    good = [0, 3, 4, 5]
    np.testing.assert_allclose(spoiled["r2"][:, good], clean["r2"][:, good], atol=1e-9)


def test_refused():
    features, y = spaces(), np.ones((60, 2))
    with pytest.raises(ParameterError, match="two feature spaces"):
        variance_partition({"a": features["model"]}, y, FOLDS)
    with pytest.raises(DataError, match="three folds"):
        variance_partition(features, y, FOLDS % 2)
    with pytest.raises(ParameterError, match="between 0 and 1"):
        variance_partition(features, y, FOLDS, shares=[2.0])
    with pytest.raises(AlignmentError, match="rows"):
        variance_partition(features, y[:-1], FOLDS)
