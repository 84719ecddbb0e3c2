import itertools

import numpy as np
import pytest
import rsatoolbox
import scipy.stats
import torch
import xarray as xr

from analysis_lib import rsa
from analysis_lib.data.simulated import plant
from analysis_lib.data.voxel_twin import random_features, write_twin
from analysis_lib.data.voxels import nh2015
from analysis_lib.errors import AlignmentError, DataError, ParameterError, UnknownNameError
from analysis_lib.rsa.ranks import Ranker, correlate_weighted

UPPER = np.triu_indices(20, k=1)


def names(n):
    return [f"stim{i}" for i in range(n)]


def cortex(n_sounds=20, seed=0, **options):
    options = {"n_subjects": 3, "n_voxels": 6, "n_null": 2, "noise": 1.0, **options}
    return plant(random_features(n_sounds, 8, seed), names(n_sounds), seed=seed, **options)


def layers(n_sounds=20, seed=0, n_layers=4, d=12):
    rng = np.random.default_rng(seed)
    return {f"layer{k}": rng.standard_normal((n_sounds, d)) for k in range(n_layers)}


def slow_rdm(x):
    """Dissimilarity of Pepino et al., written out."""
    return 1 - np.corrcoef((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-10))


def subject_values(responses, subject, roi=None):
    keep = responses["subject"].values == subject
    if roi is not None:
        keep &= responses["roi"].values == roi
    return responses.values.mean(axis=2)[:, keep]


# --- matrices -------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "theirs"), [("correlation",) * 2, ("euclidean",) * 2])
def test_rdm_equals_rsatoolbox(metric, theirs):
    x = np.random.default_rng(1).standard_normal((20, 33)) * 3 + 1
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    for standardize, pattern in ((False, x), (True, scaled)):
        oracle = rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(pattern), method=theirs)
        ours = rsa.rdm(x, metric, standardize)
        np.testing.assert_allclose(ours, oracle.get_matrices()[0], atol=1e-7, rtol=1e-7)
    assert (np.diag(ours) == 0).all() and (ours == ours.T).all()


def test_cosine_equals_scipy():
    x = np.random.default_rng(1).standard_normal((9, 5))
    oracle = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(x, "cosine"))
    np.testing.assert_allclose(rsa.rdm(x, "cosine", standardize=False), oracle, atol=1e-12)


def test_compare_equals_rsatoolbox_and_scipy():
    rng = np.random.default_rng(2)
    a = np.stack([slow_rdm(rng.standard_normal((20, 9))) for _ in range(3)])
    b = np.stack([slow_rdm(rng.integers(0, 3, (20, 4)).astype(float)) for _ in range(2)]).round(1)
    ours = rsa.compare(a, b)
    for i, j in itertools.product(range(3), range(2)):
        oracle = scipy.stats.spearmanr(a[i][UPPER], b[j][UPPER])[0]
        assert ours[i, j] == pytest.approx(oracle, abs=1e-12)
    vectors = [rsatoolbox.rdm.RDMs(np.stack([m[UPPER] for m in stack])) for stack in (a, b)]
    np.testing.assert_allclose(ours, rsatoolbox.rdm.compare(*vectors, "spearman"), atol=1e-7)


def test_two_identical_sounds_are_at_distance_zero():
    x = np.random.default_rng(3).standard_normal((6, 10))
    x[4] = x[1]
    assert rsa.rdm(x)[1, 4] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(rsa.layerwise({"a": x}, x)["score"]).all()


def test_units_with_nan_are_left_out():
    x = np.random.default_rng(4).standard_normal((6, 10))
    y = x.copy()
    y[2, 3] = np.nan
    np.testing.assert_allclose(rsa.rdm(y), rsa.rdm(np.delete(x, 3, axis=1)))
    assert np.isnan(rsa.rdm(np.full((6, 2), np.nan))[0, 1])


def test_too_few_sounds_and_unknown_names():
    with pytest.raises(DataError, match="at least 4 sounds; 3"):
        rsa.rdm(np.ones((3, 5)))
    with pytest.raises(DataError, match="at least 4 sounds; 3"):
        rsa.layerwise({"a": np.ones((3, 5))}, np.ones((3, 2)))
    with pytest.raises(UnknownNameError, match="correlation"):
        rsa.rdm(np.ones((5, 5)), "corelation")
    with pytest.raises(UnknownNameError, match="strict"):
        rsa.cross_validated(layers(), cortex(), np.arange(20) % 5, "strct")
    with pytest.raises(ParameterError, match="two folds"):
        rsa.cross_validated(layers(), cortex(), np.zeros(20), "strict")
    with pytest.raises(DataError, match="left to choose the layer on"):
        rsa.cross_validated(layers(), cortex(), np.arange(20) % 2, "strict")


def test_embedding_keeps_the_distances():
    matrix = rsa.rdm(np.random.default_rng(6).standard_normal((12, 40)))
    points = rsa.embedding(matrix, 11)
    distances = scipy.spatial.distance.pdist(points, "sqeuclidean")
    np.testing.assert_allclose(distances, scipy.spatial.distance.squareform(matrix), atol=1e-12)
    np.testing.assert_allclose(rsa.embedding(matrix), points[:, :2])
    assert (points[np.abs(points).argmax(axis=0), np.arange(11)] > 0).all()
    with pytest.raises(DataError, match="NaN"):
        rsa.embedding(matrix * np.nan)
    with pytest.raises(ParameterError, match="between 1 and 11"):
        rsa.embedding(matrix, 12)


def test_order_of_dimensions_is_free():
    responses = cortex()
    turned = responses.transpose("repetition", "target", "sound")
    xr.testing.assert_allclose(rsa.noise_ceiling(turned), rsa.noise_ceiling(responses))


# --- ranks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [False, True])
def test_weighted_ranks_equal_ranks_of_the_repeated_list(rounded):
    rng = np.random.default_rng(5)
    values = rng.standard_normal((2, 40))
    values = values.round(0) if rounded else values
    weights = rng.integers(0, 4, 40)
    ranks = Ranker(torch.from_numpy(values)).ranks(torch.from_numpy(weights.astype(float)))
    for row, ours in zip(values, ranks.numpy(), strict=True):
        oracle = scipy.stats.rankdata(np.repeat(row, weights))
        np.testing.assert_allclose(np.repeat(ours, weights) + 0.5, oracle, atol=1e-12)
    a, b = (np.repeat(row, weights) for row in values)
    w = torch.from_numpy(weights.astype(float))
    r = correlate_weighted(ranks[:1], ranks[1:], w)[0, 0]
    assert float(r) == pytest.approx(scipy.stats.spearmanr(a, b)[0], abs=1e-12)


# --- layers ---------------------------------------------------------------------------------


def test_layerwise_equals_scipy_per_subject_and_region():
    responses, features = cortex(), layers()
    by_subject = rsa.layerwise(features, responses)["score"]
    by_roi = rsa.layerwise(features, responses, groupby=("subject", "roi"))["score"]
    for layer, subject in itertools.product(features, by_subject["subject"].values):
        model = slow_rdm(features[layer])[UPPER]
        for roi in [None, *by_roi["roi"].values]:
            brain = slow_rdm(subject_values(responses, subject, roi))[UPPER]
            where = {"layer": layer, "subject": subject}
            ours = by_subject.sel(where) if roi is None else by_roi.sel({**where, "roi": roi})
            assert float(ours) == pytest.approx(scipy.stats.spearmanr(model, brain)[0], abs=1e-9)
    assert "" not in by_roi["roi"]


def test_sounds_are_matched_by_name():
    responses, features = cortex(), layers()
    labelled = {
        layer: xr.DataArray(x, dims=("sound", "unit"), coords={"sound": names(20)})[::-1]
        for layer, x in features.items()
    }
    xr.testing.assert_allclose(
        rsa.layerwise(labelled, responses), rsa.layerwise(features, responses)
    )
    with pytest.raises(AlignmentError, match="stim3"):
        rsa.layerwise({"a": labelled["layer0"].drop_sel(sound="stim3")}, responses)


def literal_paper_scheme(features, brain, folds):
    """The rule of Pepino et al., entry by entry."""
    matrices = [slow_rdm(x) for x in features.values()]
    target, n = slow_rdm(brain), len(folds)
    composite, chosen = np.zeros((n, n)), []
    kinds = sorted(set(folds))
    for a, first in enumerate(kinds):
        for second in kinds[a:]:
            fits = []
            for matrix in matrices:
                pairs = [
                    (target[r, c], matrix[r, c])
                    for r in range(n)
                    for c in range(r + 1, n)
                    if folds[r] != first and folds[c] != second
                ]
                fits.append(scipy.stats.spearmanr(*zip(*pairs, strict=True))[0])
            best = int(np.argmax(fits))
            chosen.append(list(features)[best])
            for r in range(n):
                for c in range(n):
                    if folds[r] == first or folds[c] == second:
                        composite[r, c] = matrices[best][r, c]
    upper = np.triu_indices(n, k=1)
    return scipy.stats.spearmanr(target[upper], composite[upper])[0], chosen


@pytest.mark.parametrize("seed", range(3))
def test_paper_scheme_equals_a_literal_transcription(seed):
    responses, features = cortex(seed=seed), layers(seed=seed + 10)
    folds = np.random.default_rng(seed).permutation(20) % 5
    ours = rsa.cross_validated(features, responses, folds, scheme="paper")
    for subject in ours["subject"].values:
        score, chosen = literal_paper_scheme(features, subject_values(responses, subject), folds)
        assert float(ours["score"].sel(subject=subject)) == pytest.approx(score, abs=1e-12)
        assert ours["choice"].sel(subject=subject).values.tolist() == chosen
    assert len({*ours["choice"].values.ravel()}) > 1, "a test in which nothing is chosen"


def test_paper_scheme_depends_on_the_order_of_folds():
    responses, features = cortex(), layers(seed=10)
    folds = np.arange(20) % 5
    scores = [
        rsa.cross_validated(features, responses, order)["score"].values
        for order in (folds, 4 - folds)
    ]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_strict_scheme_equals_a_literal_transcription():
    responses, features = cortex(), layers(seed=3)
    folds = np.arange(20) % 5
    ours = rsa.cross_validated(features, responses, folds, scheme="strict")
    for subject in ours["subject"].values:
        brain = subject_values(responses, subject)
        total, n_pairs = 0.0, 0
        for i, j in itertools.combinations_with_replacement(range(5), 2):
            train = (folds != i) & (folds != j)
            matrices = []
            for x in [*features.values(), brain]:
                matrices.append(1 - np.corrcoef((x - x[train].mean(0)) / (x[train].std(0) + 1e-10)))
            inside = [(a, b) for a, b in zip(*UPPER, strict=True) if train[a] and train[b]]
            tested = [(a, b) for a, b in zip(*UPPER, strict=True) if {folds[a], folds[b]} == {i, j}]
            fit = [
                scipy.stats.spearmanr([m[p] for p in inside], [matrices[-1][p] for p in inside])[0]
                for m in matrices[:-1]
            ]
            best = matrices[int(np.argmax(fit))]
            r = scipy.stats.spearmanr([best[p] for p in tested], [matrices[-1][p] for p in tested])
            total, n_pairs = total + r[0] * len(tested), n_pairs + len(tested)
        assert n_pairs == 190  # every pair once
        assert float(ours["score"].sel(subject=subject)) == pytest.approx(total / n_pairs, abs=1e-9)


@pytest.mark.parametrize("scheme", ["strict", "halves"])
def test_choice_never_sees_what_is_tested(scheme):
    """Replacing the tested sounds' responses leaves the choice as it was."""
    responses, features = cortex(), layers()
    folds = np.arange(20) % 5
    if scheme == "halves":
        folds = np.stack([np.arange(20) % 2 == 0])
    tested = ~folds[0] if scheme == "halves" else folds == 0
    before = rsa.cross_validated(features, responses, folds, scheme)["choice"][0]
    changed = responses.copy()
    changed[tested] = np.random.default_rng(9).standard_normal(changed[tested].shape) * 50
    after = rsa.cross_validated(features, changed, folds, scheme)["choice"][0]
    assert (before == after).all()


def test_planted_layer_is_recovered_in_every_region(tmp_path):
    features = random_features(30, 4)
    responses = nh2015(write_twin(tmp_path, features, n_voxels=25, noise=0.7))
    score = rsa.layerwise(features, responses, ("subject", "roi"))["score"].mean("subject")
    best = score["layer"][score.argmax("layer")]
    found = dict(zip(score["roi"].values, best.values, strict=True))
    assert found == {
        "Primary": "spectrum",
        "Lateral": "modulation",
        "Anterior": "conjunction",
        "Posterior": "conjunction",
    }
    for scheme in ("paper", "strict"):
        chosen = rsa.cross_validated(
            features, responses, np.arange(30) % 5, scheme, ("subject", "roi")
        )["choice"]
        for roi, layer in found.items():
            assert (chosen.sel(roi=roi) == layer).mean() > 0.9


# --- awkward subjects -----------------------------------------------------------------------


def test_subjects_that_cannot_be_scored_are_nan_and_do_not_spoil_the_rest():
    whole, features = cortex(n_subjects=4), layers()
    responses = whole.copy(deep=True)
    subject, roi = responses["subject"].values, responses["roi"].values
    responses[:, subject == "sub-02"] = np.nan
    keep = (subject != "sub-03") | (roi != "Primary")
    keep |= np.cumsum((subject == "sub-03") & (roi == "Primary")) == 1
    one_voxel = responses[:, keep]
    by_roi = rsa.layerwise(features, one_voxel, ("subject", "roi"))
    assert by_roi["n_targets"].sel(subject="sub-03", roi="Primary") == 1
    bad = by_roi["score"].isnull().all("layer")
    expected = by_roi["n_targets"] < 2
    assert bool((bad == expected).all()) and int(expected.sum()) == 5
    xr.testing.assert_allclose(
        by_roi["score"].sel(subject=["sub-01", "sub-04"]),
        rsa.layerwise(features, whole, ("subject", "roi"))["score"].sel(
            subject=["sub-01", "sub-04"]
        ),
    )
    for scheme in ("paper", "strict"):
        result = rsa.cross_validated(features, responses, np.arange(20) % 5, scheme)
        assert result["score"].isnull().values.tolist() == [False, True, False, False]
        assert set(result["choice"].sel(subject="sub-02").values) == {""}
    ceiling = rsa.noise_ceiling(responses)
    assert ceiling["lower"].isnull().values.tolist() == [False, True, False, False]
    without = rsa.noise_ceiling(whole[:, subject != "sub-02"])
    np.testing.assert_allclose(ceiling["lower"].values[[0, 2, 3]], without["lower"].values)
    draws = rsa.bootstrap(features, responses, n_boot=5)["draws"]
    assert np.isfinite(draws).all()


# --- ceiling --------------------------------------------------------------------------------


def test_ceiling_equals_rsatoolbox():
    responses = cortex(n_subjects=5)
    ours = rsa.noise_ceiling(responses)
    triangles = [slow_rdm(subject_values(responses, s))[UPPER] for s in ours["subject"].values]
    rdms = rsatoolbox.rdm.RDMs(np.stack(triangles))
    lower, upper = rsatoolbox.inference.boot_noise_ceiling(rdms, method="spearman")
    assert float(ours["lower"].mean()) == pytest.approx(lower, abs=1e-7)
    assert float(ours["upper"].mean()) == pytest.approx(upper, abs=1e-7)
    for k, topline in enumerate(ours["topline"].values):
        others = np.mean(np.delete(triangles, k, axis=0), axis=0)
        assert topline == pytest.approx(scipy.stats.spearmanr(triangles[k], others)[0], abs=1e-9)


def test_no_matrix_beats_the_upper_ceiling_and_truth_reaches_the_lower():
    features = random_features(30, 6)
    areas = {"Primary": "spectrum"}
    responses = plant(features, names(30), areas, n_subjects=6, n_voxels=40, n_null=0, noise=1.5)
    ceiling = rsa.noise_ceiling(responses).mean()
    projected = features["spectrum"] @ np.random.default_rng(0).standard_normal((6, 2000))
    truth = float(rsa.layerwise({"true": projected}, responses)["score"].mean())
    assert float(ceiling["lower"]) - 0.02 < truth < float(ceiling["upper"])
    noiseless = plant(features, names(30), areas, n_subjects=3, n_voxels=40, n_null=0, noise=0)
    assert float(rsa.noise_ceiling(noiseless)["reliability"].min()) == pytest.approx(1)
    # Planted: a perfect model of each subject's noiseless responses reaches the within-subject one.
    subject = responses["subject"].values == "sub-01"
    clean = plant(features, names(30), areas, n_subjects=6, n_voxels=40, n_null=0, noise=0)
    perfect = rsa.layerwise({"clean": clean.values[:, subject, 0]}, responses[:, subject])
    within = rsa.noise_ceiling(responses[:, subject])["within_subject"].item()
    assert perfect["score"].item() == pytest.approx(within, abs=0.05)


def test_one_subject_has_no_ceiling():
    one = cortex(n_subjects=1)
    assert rsa.noise_ceiling(one)["lower"].isnull().all()
    assert "reliability" not in rsa.noise_ceiling(one.mean("repetition"))


# --- resampling -----------------------------------------------------------------------------


def test_bootstrap_over_sounds_equals_the_expanded_sample():
    responses, features = cortex(), layers(n_layers=2)
    result = rsa.bootstrap(features, responses, n_boot=4, seed=7)
    rng = np.random.default_rng(7)
    for draw in result["draws"]:
        counts = np.bincount(rng.integers(0, 20, 20), minlength=20)
        drawn = np.repeat(np.arange(20), counts)
        row, column = np.triu_indices(20, k=1)
        differ = drawn[row] != drawn[column]
        pairs = drawn[row][differ], drawn[column][differ]
        for layer, x in features.items():
            scores = [
                scipy.stats.spearmanr(
                    slow_rdm(x)[pairs], slow_rdm(subject_values(responses, s))[pairs]
                )[0]
                for s in np.unique(responses["subject"])
            ]
            assert float(draw.sel(layer=layer)) == pytest.approx(np.mean(scores), abs=1e-10)


def test_bootstrap_over_subjects_equals_resampled_means():
    responses, features = cortex(n_subjects=4), layers(n_layers=2)
    result = rsa.bootstrap(features, responses, over="subjects", n_boot=3, seed=1)
    score = rsa.layerwise(features, responses)["score"]
    rng = np.random.default_rng(1)
    for draw in result["draws"]:
        np.testing.assert_allclose(draw, score[:, rng.integers(0, 4, 4)].mean("subject"))


def test_resampling_both_is_wider_and_repeatable():
    responses, features = cortex(n_subjects=4), layers(n_layers=2)
    results = {
        over: rsa.bootstrap(features, responses, over, n_boot=100, groupby=("subject", "roi"))
        for over in ("sounds", "subjects", "both")
    }
    error = {over: float(result["standard_error"].mean()) for over, result in results.items()}
    assert error["both"] > max(error["sounds"], error["subjects"])
    again = rsa.bootstrap(features, responses, "both", 100, groupby=("subject", "roi"))
    xr.testing.assert_identical(again, results["both"])
    assert (results["both"]["low"] < results["both"]["high"]).all()


def test_permutation_equals_scipy_on_shuffled_sounds():
    responses, features = cortex(), layers(n_layers=2)
    result = rsa.permutation(features, responses, n_permutations=5, seed=3)
    rng = np.random.default_rng(3)
    for null in result["null"]:
        order = rng.permutation(20)
        for layer, x in features.items():
            scores = [
                scipy.stats.spearmanr(
                    slow_rdm(x)[UPPER], slow_rdm(subject_values(responses, s)[order])[UPPER]
                )[0]
                for s in np.unique(responses["subject"])
            ]
            assert float(null.sel(layer=layer)) == pytest.approx(np.mean(scores), abs=1e-10)
    np.testing.assert_allclose(
        result["p_value"], (1 + (result["null"] >= result["score"]).sum("permutation")) / 6
    )
    assert (result["p_value_max"] >= result["p_value"]).all()


def test_permutation_finds_the_planted_layer():
    features = random_features(30, 6)
    responses = plant(features, names(30), {"Primary": "spectrum"}, n_voxels=20, n_null=0)
    p = rsa.permutation(features, responses, 99)["p_value"]
    assert float(p.sel(layer="spectrum")) == pytest.approx(0.01)
    assert (p.sel(layer=["modulation", "conjunction"]) > 0.011).all()


@pytest.mark.slow
def test_null_p_values_are_uniform_and_intervals_cover_zero():
    p_values, covered = [], []
    for seed in range(220):
        responses = cortex(16, seed=seed, n_subjects=2, n_voxels=5, areas={"Primary": "spectrum"})
        features = layers(16, seed=10_000 + seed, n_layers=1)
        p_values.append(float(rsa.permutation(features, responses, 99, seed=seed)["p_value"][0]))
        interval = rsa.bootstrap(features, responses, n_boot=100, seed=seed)
        covered.append(float(interval["low"][0]) <= 0 <= float(interval["high"][0]))
    # Permutation p-values lie on a grid of 1/100; spread them over its steps.
    jitter = np.random.default_rng(0).uniform(0, 0.01, len(p_values))
    assert scipy.stats.kstest(np.array(p_values) - jitter, "uniform").pvalue > 0.01
    assert np.mean(covered) > 0.85
