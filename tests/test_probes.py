import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from analysis_lib import extraction, models, probes
from analysis_lib.data import hear
from analysis_lib.errors import AlignmentError, DataError, ParameterError, UnknownNameError
from analysis_lib.probes import evaluation as probe_evaluation
from analysis_lib.probes import events as event_probes
from analysis_lib.probes.recipe import (
    PAPER_GRID,
    Configuration,
    epoch_batches,
    epoch_generator,
)
from analysis_lib.probes.training import train_probes

FAST = Configuration((32,), 1e-2, "xavier_uniform")
SMALL_GRID = (
    Configuration((32,), 3e-3, "xavier_uniform"),
    Configuration((32, 16), 1e-3, "xavier_normal"),
    Configuration((32, 16), 1e-2, "xavier_uniform"),
)


@pytest.fixture(scope="module")
def plain():
    """The plain one-at-a-time reference."""
    folder = Path(__file__).parents[1] / "benchmarks"
    spec = importlib.util.spec_from_file_location("probe_benchmark", folder / "probes.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)  # as when it is run as a script
        spec.loader.exec_module(module)
    return module


def make_task(n_clips, n_classes, multilabel=False, seed=0):
    """A task held in memory; labels are drawn, with every class in every part."""
    rng = np.random.default_rng(seed)
    if multilabel:
        labels = [
            tuple(str(k) for k in range(n_classes) if rng.random() < 0.5) for _ in range(n_clips)
        ]
    else:
        labels = [(str(i % n_classes),) for i in range(n_clips)]
    split = np.array(["train", "valid", "test"])[
        np.searchsorted([n_clips * 3 // 5, n_clips * 4 // 5], np.arange(n_clips), side="right")
    ]
    names = [f"{i:05d}.wav" for i in range(n_clips)]
    return hear.Task(
        name="planted",
        folder=Path("."),
        metadata={
            "embedding_type": "scene",
            "prediction_type": "multilabel" if multilabel else "multiclass",
            "split_mode": "trainvaltest",
            "evaluation": ["mAP"] if multilabel else ["top1_acc"],
        },
        vocabulary=tuple(map(str, range(n_classes))),
        splits=("train", "valid", "test"),
        labels=dict(zip(names, labels, strict=True)),
        events={},
        split_of=dict(zip(names, split.tolist(), strict=True)),
        sample_rate=16_000,
    )


def planted_features(task, n_units, separation, n_layers=3, informative=1, seed=0):
    """Gaussian features; the mean of one unit of one layer tells two classes apart."""
    rng = np.random.default_rng(seed)
    features = {
        f"layer{i}": rng.standard_normal((len(task.clips), n_units)).astype(np.float32)
        for i in range(n_layers)
    }
    sign = 2 * task.targets[:, 1] - 1
    features[f"layer{informative}"][:, 0] += separation * sign
    return features


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_whole_grid_equals_one_at_a_time(plain, n_layers, multilabel):
    data = plain.planted(200, n_layers, 20, dtype=torch.float64, noise=1.0)
    data = data.__class__(**{**data.__dict__, "multilabel": multilabel})
    trained = train_probes(data, SMALL_GRID, max_epochs=60, patience=8)
    assert len(set(trained.n_epochs.tolist())) > 1  # some stop before others
    for i, configuration in enumerate(SMALL_GRID):
        losses, score, logits = plain.train_plainly(data, configuration, max_epochs=60, patience=8)
        assert trained.n_epochs[i] == len(losses)
        np.testing.assert_allclose(trained.train_loss[i, : len(losses)], losses, atol=1e-5)
        assert torch.isnan(trained.train_loss[i, len(losses) :]).all()
        assert trained.valid_score[i] == pytest.approx(score)
        torch.testing.assert_close(trained.test_logits[i], logits, atol=1e-8, rtol=1e-6)


def test_grid_in_single_precision_and_minibatches_equals_one_at_a_time(plain):
    data = plain.planted(1800, 2, 16)  # 1080 training clips: two steps per epoch
    grid = SMALL_GRID[:2]
    trained = train_probes(data, grid, max_epochs=5, n_configurations_batch=1)
    together = train_probes(data, grid[:1] * 2, max_epochs=5, n_configurations_batch=2)
    for i, configuration in enumerate(grid):
        losses, _, _ = plain.train_plainly(data, configuration, max_epochs=5)
        np.testing.assert_allclose(trained.train_loss[i, :5], losses, atol=1e-5)
    np.testing.assert_allclose(together.train_loss[1], trained.train_loss[0], atol=1e-5)


def test_the_papers_grid_equals_one_at_a_time(plain):
    data = plain.planted(100, 2, 12, dtype=torch.float64)
    trained = train_probes(data, max_epochs=3)
    for i, configuration in enumerate(PAPER_GRID):
        losses, score, logits = plain.train_plainly(data, configuration, max_epochs=3)
        np.testing.assert_allclose(trained.train_loss[i], losses, atol=1e-5)
        torch.testing.assert_close(trained.test_logits[i], logits, atol=1e-8, rtol=1e-6)


def test_no_step_is_left_with_a_single_clip():
    generator = epoch_generator(0, 1, torch.device("cpu"))
    assert [len(rows) for rows in epoch_batches(2049, generator)] == [1024, 1025]
    assert epoch_batches(1024, generator) == [slice(None)]


def test_the_papers_grid_has_16_points():
    assert len(PAPER_GRID) == len(set(PAPER_GRID)) == 16
    assert {c.hidden for c in PAPER_GRID} == {(1024,), (1024, 1024)}
    assert {c.learning_rate for c in PAPER_GRID} == {3.2e-3, 1e-3, 3.2e-4, 1e-4}


def test_network_probe_reaches_the_bayes_rate_and_finds_the_layer():
    task = make_task(10_000, 2)
    separation = 1.0
    features = planted_features(task, 4, separation)
    result = probes.evaluate(features, task, seeds=[0], grid=[FAST], max_epochs=200, patience=40)
    bayes = norm.cdf(separation)
    assert float(result["mean_score"][0]) == pytest.approx(bayes, abs=0.02)
    assert result["layer_weight"].mean(("seed", "fold")).idxmax().item() == "layer1"


def test_linear_probe_reaches_the_bayes_rate_and_finds_the_layer():
    task = make_task(10_000, 2)
    result = probes.evaluate(planted_features(task, 4, 1.0), task, protocol="linear")
    assert float(result["mean_score"][0]) == pytest.approx(norm.cdf(1.0), abs=0.02)
    assert result["layer_weight"].idxmax("layer").values.item() == "layer1"
    others = result["layer_score"].sel(layer=["layer0", "layer2"])
    assert (abs(others - 0.5) < 0.05).all()


@pytest.mark.parametrize("protocol", ["linear", "paper"])
def test_shuffled_labels_give_chance(protocol):
    task = make_task(3000, 4)
    features = planted_features(task, 6, 3.0)
    order = np.random.default_rng(1).permutation(len(task.clips))
    features = {layer: values[order] for layer, values in features.items()}
    options = {} if protocol == "linear" else {"grid": SMALL_GRID[:1], "max_epochs": 8}
    result = probes.evaluate(features, task, protocol=protocol, **options)
    assert float(result["mean_score"][0]) == pytest.approx(0.25, abs=0.05)
    assert result.attrs["chance"] == pytest.approx(0.25)


def test_multilabel_probe_ranks_clips():
    task = make_task(600, 3, multilabel=True)
    rng = np.random.default_rng(0)
    informative = task.targets @ rng.standard_normal((3, 8)) * 3
    features = {"only": (informative + rng.standard_normal((600, 8))).astype(np.float32)}
    for protocol, options in (("linear", {}), ("robust", {"grid": SMALL_GRID[:1], "seeds": [0]})):
        result = probes.evaluate(features, task, protocol=protocol, max_epochs=60, **options)
        assert float(result["mean_score"][0]) > 0.9


def folded_task():
    task = make_task(300, 3)
    folds = {clip: f"fold{(i // 3) % 5:02d}" for i, clip in enumerate(sorted(task.labels))}
    return hear.Task(**{
        **{name: getattr(task, name) for name in task.__dataclass_fields__},
        "metadata": {**task.metadata, "split_mode": "new_split_kfold"},
        "splits": tuple(sorted(set(folds.values()))),
        "split_of": folds,
    })  # fmt: skip


def test_paper_searches_the_first_fold_only_and_robust_every_one():
    task = folded_task()
    features = planted_features(task, 5, 2.0, n_layers=2)
    options = {"grid": SMALL_GRID, "max_epochs": 5, "seeds": [0]}
    paper = probes.evaluate(features, task, protocol="paper", **options)
    robust = probes.evaluate(features, task, protocol="robust", **options)
    tried = np.isfinite(paper["valid_score"].values[0]).sum(axis=1)
    assert tried.tolist() == [3, 1, 1, 1, 1]
    assert len(set(paper["chosen"].values[0])) == 1
    assert np.isfinite(robust["valid_score"].values).all()
    assert paper.sizes["fold"] == 5 and paper["score"].dims == ("metric", "seed", "fold")


def test_same_seed_same_numbers():
    task = make_task(200, 2)
    features = planted_features(task, 5, 1.0)
    options = {"grid": SMALL_GRID[1:2], "max_epochs": 5, "patience": 9}
    once = probes.evaluate(features, task, seeds=[3, 4], **options)
    again = probes.evaluate(features, task, seeds=[3, 4], **options)
    xr.testing.assert_identical(once, again)
    weights = once["layer_weight"].values
    assert not np.array_equal(weights[0], weights[1])


def test_layers_of_unequal_width_meet_on_principal_components():
    rng = np.random.default_rng(0)
    task = make_task(100, 2)
    features = {
        "wide": torch.from_numpy(rng.standard_normal((100, 30)).astype(np.float32)),
        "narrow": torch.from_numpy(rng.standard_normal((100, 7)).astype(np.float32)),
    }
    partition = task.partitions[0]
    train, _, test = probe_evaluation._common_width(features, partition, half=False)
    assert train.shape == (2, 60, 7) and test.shape == (2, 20, 7)
    for i, layer in enumerate(features.values()):
        pca = PCA(7, svd_solver="full").fit(layer[partition.train].double())
        expected = pca.transform(layer[partition.test].double())
        np.testing.assert_allclose(abs(test[i]), abs(expected), atol=1e-4)


@pytest.mark.parametrize("n_units", [10, 200])
def testridge_path_equals_scikit_learn(n_units):
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((60, n_units)), rng.standard_normal((9, n_units))
    y = rng.standard_normal((60, 2))
    scale = (x**2).sum() / 60
    predict = probes.ridge_path(*map(torch.from_numpy, (x, y)), torch.tensor([0.01, 1.0]).double())
    ours = predict(torch.from_numpy(new))
    for i, penalty in enumerate((0.01, 1.0)):
        expected = Ridge(penalty * scale, fit_intercept=False).fit(x, y).predict(new)
        np.testing.assert_allclose(ours[i], expected, rtol=1e-6, atol=1e-9)


def test_features_are_aligned_by_name():
    task = make_task(500, 2)
    values = planted_features(task, 4, 3.0)["layer1"]
    order = np.random.default_rng(0).permutation(500)
    array = xr.DataArray(
        values[order], dims=("sound", "unit"), coords={"sound": np.array(task.clips)[order]}
    )
    by_name = probes.evaluate({"layer": array}, task, protocol="linear")
    by_row = probes.evaluate({"layer": values}, task, protocol="linear")
    np.testing.assert_array_equal(by_name["score"], by_row["score"])
    with pytest.raises(AlignmentError, match="no features for 10 clips"):
        probes.evaluate({"layer": array[10:]}, task, protocol="linear")


def test_bad_input_is_refused_by_name():
    task = make_task(100, 2)
    features = planted_features(task, 4, 1.0)
    with pytest.raises(UnknownNameError, match="protocol 'papr'"):
        probes.evaluate(features, task, protocol="papr")
    with pytest.raises(UnknownNameError, match="layer 'layer9'"):
        probes.evaluate(features, task, layers=["layer9"])
    with pytest.raises(AlignmentError, match="shape"):
        probes.evaluate({"layer": features["layer0"][:50]}, task)
    broken = {"layer": features["layer0"].copy()}
    broken["layer"][7, 1] = np.nan
    with pytest.raises(DataError, match="not finite for 1 clips.*00007"):
        probes.evaluate(broken, task)
    loud = {"layer": 1e5 * features["layer0"]}
    with pytest.raises(DataError, match="float16"):
        probes.evaluate(loud, task, protocol="paper", grid=SMALL_GRID)
    with pytest.raises(ParameterError, match="at least one configuration"):
        probes.evaluate(features, task, grid=())
    with pytest.raises(ParameterError, match="init"):
        probes.evaluate(features, task, grid=[Configuration((8,), 1e-3, "zeros")])


def test_events_are_found_by_a_linear_probe_and_lost_with_wrong_timestamps(monkeypatch):
    task, model = hear.task("demo-events"), models.load("log-mel")
    found = event_probes.evaluate_events(model, task)
    assert found["mean_score"].sel(metric="event_onset_200ms_fms") > 0.7
    assert found.sizes == {"metric": 2, "fold": 1}
    right = event_probes.get_timestamp_embeddings

    def late(audio, model):
        embeddings, timestamps = right(audio, model)
        return embeddings, timestamps + 400

    monkeypatch.setattr(event_probes, "get_timestamp_embeddings", late)
    assert event_probes.evaluate_events(model, task)["mean_score"][0] < 0.5
    with pytest.raises(ParameterError, match="scene task"):
        event_probes.evaluate_events(model, hear.task("demo-scene"))
    with pytest.raises(ParameterError, match="asks for events"):
        probes.evaluate(model, task)


def test_a_model_is_run_over_the_clips_of_a_task():
    task = hear.task("demo-scene")
    by_name = probes.evaluate("log-mel", task, protocol="linear")
    assert by_name.attrs["model"] == "log-mel" and float(by_name["mean_score"][0]) > 0.9
    features = extraction.extract(models.load("log-mel"), task.sounds())
    again = probes.evaluate(features, task, protocol="linear")
    xr.testing.assert_equal(by_name, again)


@pytest.mark.parametrize("protocol", ["paper", "robust"])
def test_networks_solve_a_generated_task_from_the_features_of_a_model(protocol):
    task = hear.task("demo-scene")
    result = probes.evaluate(
        "log-mel", task, protocol, seeds=[0], grid=SMALL_GRID[:2], max_epochs=40
    )
    assert result.attrs["protocol"] == protocol and result.sizes["fold"] == len(task.partitions)
    assert float(result["mean_score"][0]) > 0.9
    assert set(result["chosen"].values.flat) <= set(map(str, SMALL_GRID[:2]))


def test_results_do_not_depend_on_how_many_are_computed_at_once(plain):
    data = plain.planted(300, 2, 12, dtype=torch.float64)
    grid = SMALL_GRID[1:] * 2
    one, several = (
        train_probes(data, grid, max_epochs=25, patience=4, n_configurations_batch=size)
        for size in (1, 3)
    )
    assert len(set(one.n_epochs.tolist())) > 1  # stacks go on with some of their members
    for name in ("n_epochs", "best_epoch", "valid_score"):
        torch.testing.assert_close(getattr(several, name), getattr(one, name))
    torch.testing.assert_close(several.train_loss, one.train_loss, equal_nan=True)
    torch.testing.assert_close(several.test_logits, one.test_logits)


def test_a_grid_shared_out_among_threads_gives_the_same(plain):
    data = plain.planted(300, 2, 12)
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = train_probes(data, SMALL_GRID, max_epochs=6)
        torch.set_num_threads(3)
        shared = train_probes(data, SMALL_GRID, max_epochs=6)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(alone.train_loss, shared.train_loss)
    assert torch.equal(alone.test_logits, shared.test_logits)
