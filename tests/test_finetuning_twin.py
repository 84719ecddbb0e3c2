"""Fine-tuning on a brain that is known, from files to scores and to tasks."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from analysis_lib import data, finetuning, published
from analysis_lib.cli import app
from analysis_lib.data import friends, friends_twin
from analysis_lib.errors import DataError, ParameterError, UnknownNameError
from analysis_lib.finetuning import Settings
from analysis_lib.finetuning.scores import scored
from analysis_lib.models import load

TINY = friends_twin.Twin(
    ("s01e01a", "s01e01b", "s01e02a", "s02e01a", "s04e01a"),
    24, 2, {"start": 2, "brain": 2, "null": 1},
)  # fmt: skip
QUICK = Settings(
    n_taps=5, segment_trs=24, batch_size=2, learning_rate=1e-3, head_learning_rate=1e-4,
    max_epochs=2, warmup_epochs=1, start="conv6",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A twin in files, and the network to start from."""
    folder = friends_twin.write_twin(tmp_path_factory.mktemp("tiny"), TINY)
    start = friends_twin.read_truth(folder, "sub-01").start
    network = load("soundnet", untrained=True, device="cpu").network
    for name, tensor in network.state_dict().items():
        if name in start:
            tensor.copy_(start[name])
    path = finetuning.save_network(network, folder / "network.safetensors", 256.0)
    return folder, path


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def kept(one_cache, own_folders, monkeypatch):
    """What does not change between tests is computed once."""
    monkeypatch.setenv("BRAINBOOK_CACHE", one_cache)


def test_features_at_volumes_are_those_that_the_twin_was_made_of(tiny):
    """Through files, reading, chunks and interpolation, the planted signal comes back."""
    folder, path = tiny
    settings = QUICK.baseline("frozen")
    brain = friends.open(folder, "sub-01")
    truth = friends_twin.read_truth(folder, "sub-01")
    recordings = finetuning.record([brain], ["s01e01a"], settings, progress=False)
    network = finetuning.start_network(settings, path)
    features = finetuning.volume_features(recordings, network, settings, "cpu")["s01e01a"]
    driven = features @ truth.weights.T  # (time, target)
    history = truth.fir.shape[1] - 1
    filtered = np.stack(
        [
            np.convolve(series, fir)[history : len(series)]
            for series, fir in zip(driven.T, truth.fir, strict=True)
        ],
        axis=1,
    )
    planted = truth.signal["s01e01a"][history:]
    for column in np.flatnonzero(truth.kind == "start"):
        r = np.corrcoef(filtered[:, column], planted[:, column])[0, 1]
        assert r > 0.99


def test_scores_of_every_subject_run_and_parcel(tiny):
    folder, path = tiny
    found = finetuning.finetune(folder, ["sub-01"], QUICK, path, ["sub-01", "sub-02"], "cpu")
    assert dict(found["r2"].sizes) == {"subject": 2, "run": 1, "target": 5}
    measured = friends.open(folder, "sub-02").runs["s04e01a"].bold().values
    predicted = found["prediction"].isel(head=0, run=0).values
    np.testing.assert_allclose(
        found["r"].sel(subject="sub-02").values[0],
        [np.corrcoef(p, m)[0, 1] for p, m in zip(predicted.T, measured.T, strict=True)],
        atol=1e-5,
    )
    error = ((measured - predicted) ** 2).sum(axis=0) / ((measured - measured.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(found["r2"].sel(subject="sub-02").values[0], 1 - error, atol=1e-5)
    assert found.sizes["epoch"] == 3 and {"x", "y", "z"} <= set(found.coords)
    tuned = load("soundnet", checkpoint=finetuning.checkpoint(found), device="cpu")
    before = load("soundnet", checkpoint=path, device="cpu")
    state, first = tuned.network.state_dict(), before.network.state_dict()
    changed = {name[:5] for name in state if not torch.equal(state[name], first[name])}
    assert changed in ({"conv6", "conv7"}, set()) and tuned.input_scale == 256
    assert bool(changed) == (found.attrs["best_epoch"] > 0)


def test_the_frozen_baseline_begins_as_the_ridge_regression(tiny):
    folder, path = tiny
    frozen = replace(QUICK.baseline("frozen"), max_epochs=1, head_learning_rate=0.0)
    found = finetuning.finetune(folder, ["sub-01"], frozen, path, device="cpu")
    ridge = finetuning.ridge(folder, "sub-01", QUICK, path, device="cpu")
    known = ridge["prediction"].notnull()
    assert (known.sum("time") == TINY.n_trs - 4).all()
    np.testing.assert_allclose(
        found["prediction"].where(known).values, ridge["prediction"].values, rtol=1e-3, atol=1e-3
    )


def test_small_and_large_ridge_agree(tiny):
    from analysis_lib.encoding.fir import FIR_ALPHAS, fir_ridge
    from analysis_lib.finetuning.baselines import _fitted

    rng = np.random.default_rng(0)
    features = {run: rng.standard_normal((40, 30)) for run in "abc"}
    responses = {run: rng.standard_normal((40, 4)) + x[:, :4] for run, x in features.items()}
    responses["a"][3, 2] = np.nan
    parts = {"train": ["a", "b"], "validation": ["c"]}
    small = _fitted(features, responses, parts, 4, FIR_ALPHAS, "cpu")
    large = fir_ridge(features, responses, parts, 4, FIR_ALPHAS, precision="float64", device="cpu")
    np.testing.assert_allclose(small["alpha"], large["alpha"])
    np.testing.assert_allclose(small["weights"], large["weights"], atol=1e-8)
    np.testing.assert_allclose(small["intercept"], large["intercept"], atol=1e-8)


def test_groups_and_those_left_out(tiny):
    folder, path = tiny
    own = replace(QUICK, heads="per-subject")
    found = finetuning.finetune(folder, ["sub-01", "sub-02"], own, path, device="cpu")
    assert found.sizes["head"] == 2 and found.attrs["subjects"] == "sub-01, sub-02"
    assert not np.allclose(found["prediction"][0], found["prediction"][1])
    left = finetuning.leave_one_out(
        folder, ["sub-01", "sub-02"], own, checkpoint=path, device="cpu"
    )
    crossed = finetuning.finetune(
        folder, ["sub-02"], replace(QUICK, heads="shared"), path, ["sub-01"], "cpu"
    )
    np.testing.assert_array_equal(left["r2"].sel(subject="sub-01"), crossed["r2"][0])
    with pytest.raises(ParameterError, match="at least two subjects"):
        finetuning.leave_one_out(folder, ["sub-01"], QUICK)


def test_brains_that_do_not_fit(tiny):
    folder, _ = tiny
    brain = friends.open(folder, "sub-01")
    other = replace(brain, targets=brain.targets.iloc[:-1], subject="sub-09")
    with pytest.raises(DataError, match="sub-09 and sub-01 differ in their targets"):
        finetuning.record([brain, other], ["s01e01a"], QUICK, progress=False)
    with pytest.raises(DataError, match="has run s03e01a"):
        finetuning.record([brain], ["s03e01a"], QUICK, progress=False)
    paper = finetuning.published_settings("sub-01")
    with pytest.raises(ParameterError, match="2.0 s apart"):
        finetuning.record([replace(brain, tr=2.0)], ["s01e01a"], paper, progress=False)


def test_a_parcel_with_nan_is_left_out_and_the_rest_is_as_before(tiny):
    folder, _ = tiny
    recordings = finetuning.record(
        [friends.open(folder, "sub-01")], ["s04e01a"], QUICK, progress=False
    )
    recordings.known[0, 1] = False
    rng = np.random.default_rng(0)
    predictions = {"s04e01a": rng.standard_normal((1, TINY.n_trs, 5)).astype(np.float32)}
    targets = pd.DataFrame(index=list("abcde"))
    found = scored(predictions, recordings, {"sub-01": 0}, targets)
    assert found["r2"].isnull().values.ravel().tolist() == [False, True, False, False, False]


def test_the_command(tiny):
    folder, path = tiny
    options = [f"-p{name}={value}" for name, value in QUICK.as_dict().items() if value is not None]
    command = ["finetune", str(folder), "-s", "sub-01", "--checkpoint", str(path), *options]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0 and "R² on 1 runs of the test season" in done.output
    assert "soundnet.safetensors" in done.output


# -- tasks ----------------------------------------------------------------------------------------


def test_a_share_of_a_task_has_fewer_clips_to_learn_from_and_the_same_to_test():
    task = data.task("demo-notes")
    half, quarter = (finetuning.with_share(task, share, seed=3) for share in (0.5, 0.25))
    for whole, some, few in zip(task.partitions, half.partitions, quarter.partitions, strict=True):
        assert set(few.train) < set(some.train) < set(whole.train)
        assert np.array_equal(whole.test, few.test) and np.array_equal(whole.valid, few.valid)
        classes = task.targets[few.train].sum(axis=0)
        assert (classes >= 1).all()
    assert len({task.content_key, half.content_key, quarter.content_key}) == 3
    full = finetuning.with_share(task, 1.0)
    assert np.array_equal(full.partitions[0].train, np.sort(task.partitions[0].train))


def test_gain_in_a_task_against_the_same_network_is_none(tiny):
    _, path = tiny
    gains = finetuning.downstream_gain(
        {"same": path}, path, {"demo-notes": data.task("demo-notes")}, (0.5,), layers=["conv2"],
        device="cpu",
    )  # fmt: skip
    assert gains["gain"].tolist() == [0.0] and gains["score"][0] > 1 / 8
    assert gains["train_seconds"][0] > 0 and gains["n_train"][0] > 0
    with pytest.raises(ParameterError, match="share of training clips"):
        finetuning.downstream_gain({}, path, {}, (0.0,))


def test_places_on_the_leaderboard_are_counted_as_published():
    gains = published.rank_gains()
    long = published.table("hear_freteault_long")
    long = long[(long["source"] != "metrics_sub4.csv") & (long["task"] != "Beehive_fold1")]
    baseline = long[long["finetune"] == "no"].groupby("task")["score"].median()
    one = long[
        (long["finetune"] == "conv4") & (long["training"] == "group")
        & (long["subject"] == long["subject"].iloc[0]) & (long["atlas"] == "STG")
    ]  # fmt: skip
    if one.empty:
        one = long[(long["finetune"] == "conv4") & (long["atlas"] == "STG")]
        one = one[
            (one["subject"] == one["subject"].iloc[0])
            & (one["training"] == one["training"].iloc[0])
        ]
    found = finetuning.leaderboard_gain(one.set_index("task")["score"], baseline)
    theirs = gains[
        (gains["subject"] == one["subject"].iloc[0]) & (gains["atlas"] == "STG")
        & (gains["training"] == one["training"].iloc[0])
    ].set_index("task")["gain"].dropna()  # fmt: skip
    assert len(theirs) > 10
    assert found.loc[theirs.index].tolist() == theirs.tolist()
    with pytest.raises(UnknownNameError, match="task of the HEAR leaderboard"):
        finetuning.leaderboard_gain(pd.Series({"ESC-5": 0.5}), pd.Series({"ESC-5": 0.5}))
    with pytest.raises(DataError, match="no task in common"):
        finetuning.leaderboard_gain(pd.Series({"ESC-50": 0.5}), pd.Series({"a": 0.5}))


def test_summary_by_kind():
    scores = xr.DataArray(
        [[[0.1, 0.3, np.nan], [0.3, 0.5, 1.0]]], dims=("subject", "run", "target"),
        coords={"subject": ["a"], "run": ["x", "y"], "target": list("pqr")},
    )  # fmt: skip
    table = finetuning.summarise({"m": xr.Dataset({"r2": scores})}, "a", np.array(["k", "k", "n"]))
    assert table.set_index("parcels")["score"].round(6).to_dict() == {"k": 0.3, "n": 1.0}
    assert table["low"][0] == pytest.approx(0.2) and table["high"][0] == pytest.approx(0.4)


# -- what was planted -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_tuning_finds_what_was_planted_in_a_middle_layer_and_nothing_where_nothing_was(
    seed, tmp_path, monkeypatch
):
    """With forty runs to learn from: the demo's eight are too few for every seed."""
    runs = friends_twin._runs({1: 10, 2: 6, 3: 4, 4: 3})
    twin = friends_twin.Twin(runs, 48, 1, {"start": 8, "brain": 10, "null": 6})
    folder = friends_twin.write_twin(tmp_path, twin)
    truth = friends_twin.read_truth(folder, "sub-01")
    monkeypatch.setattr(friends, "truth", lambda name: truth)
    start, kind = finetuning.twin_checkpoint("this one"), truth.kind.to_numpy()
    settings = Settings(
        n_taps=5, segment_trs=24, batch_size=2, learning_rate=3e-4, head_learning_rate=1e-5,
        warmup_epochs=1, max_epochs=8, patience=8, seed=seed,
    )  # fmt: skip
    found = {
        key: finetuning.finetune(folder, ["sub-01"], chosen, start)
        for key, chosen in {"tuned": settings, "frozen": settings.baseline("frozen")}.items()
    }
    table = finetuning.summarise(found, "sub-01", kind).set_index(["model", "parcels"])
    score = table["score"]
    assert score["tuned", "brain"] > score["frozen", "brain"] + 0.05
    assert score["tuned", "null"] < 0.02
