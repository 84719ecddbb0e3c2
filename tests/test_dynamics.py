"""Checkpoints over training: a planted run whose onset and speed are known."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from analysis_lib import data, dynamics, encoding, models, rsa
from analysis_lib.data import fetch
from analysis_lib.dynamics import comparison, series
from analysis_lib.errors import (
    DataError,
    MissingDataError,
    ParameterError,
    UnknownNameError,
    WeightsError,
)
from analysis_lib.extraction import extract

# conv1 takes on the planted weights from step 10 on, everything above it from step 100 on.
SWITCH = {"conv1": 10, "conv4": 100}
STEPS = (0, 1, 10, 100, 1000)
LOADED = []


def load(path):
    """Open a checkpoint as a caller's own function would, and count."""
    LOADED.append(Path(path).name)
    return models.load("small-cnn", checkpoint=path, device="cpu")


@pytest.fixture(autouse=True)
def nothing_loaded():
    LOADED.clear()


@pytest.fixture(scope="module")
def sounds():
    return data.simulated_sounds(4)


@pytest.fixture(scope="module")
def planted(sounds):
    """A cortex of which each area is driven by one layer of the network at the end."""
    final = extract(models.load("small-cnn", seed=7, device="cpu"), sounds, cache=False)
    features = {layer: final[layer].values for layer in ("conv1", "conv4")}
    areas = {"Primary": "conv1", "Lateral": "conv4"}
    return data.plant(features, sounds.names, areas, n_subjects=3, n_voxels=60, noise=0.2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Checkpoints between a network that only blurs and the one that drives the cortex."""
    folder = tmp_path_factory.mktemp("run")
    first, last = (
        models.load("small-cnn", seed=seed, device="cpu").network.state_dict() for seed in (0, 7)
    )
    first = {
        name: tensor.abs() if name.endswith(".0.weight") else tensor
        for name, tensor in first.items()
    }
    for step in STEPS:
        tensors = {}
        for name in first:
            switch = SWITCH["conv1" if name.startswith("blocks.0.") else "conv4"]
            tensors[name] = (last if step >= switch else first)[name].clone()
        save_file(tensors, folder / f"step-{step:08d}.safetensors")
    return folder


@pytest.fixture(scope="module")
def compared(run, sounds, planted, tmp_path_factory):
    """The planted run, compared once for all tests that look at the outcome."""
    patch = pytest.MonkeyPatch()
    patch.setenv("BRAINBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("BRAINBOOK_RESULTS", str(tmp_path_factory.mktemp("results")))
    folds = data.folds("stratified", sounds, n_folds=4)
    found = dynamics.over_steps(
        dynamics.CheckpointSeries.of_folder(run, load), sounds, {"planted": planted},
        {"planted": folds}, n_boot=60, device="cpu",
    )["planted"]  # fmt: skip
    patch.undo()
    return found


# -- finding checkpoints ------------------------------------------------------------------


def test_a_folder_of_checkpoints_is_sorted_by_step(run):
    found = dynamics.CheckpointSeries.of_folder(run, load)
    assert found.steps == STEPS and len(found) == 5
    assert found.path(100).name == "step-00000100.safetensors"
    expected = load_file(run / "step-00000100.safetensors")["blocks.0.0.weight"]
    weight = found.load(100).network.state_dict()["blocks.0.0.weight"]
    assert torch.equal(weight, expected)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("epoch=3-step=12000.ckpt", 12000),
        ("v2-epoch=00-step=0.ckpt", 0),
        ("epoch=3-step=12000-v1.ckpt", 12000),
        ("step-00000123.safetensors", 123),
        ("model_v2_500.pt", 500),
        ("last.ckpt", None),
    ],
)
def test_the_step_is_read_off_the_name(tmp_path, name, step):
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes 77.txt").write_bytes(b"")
    if step is None:
        with pytest.raises(MissingDataError, match="holds no checkpoints"):
            dynamics.CheckpointSeries.of_folder(tmp_path, load)
    else:
        assert dynamics.CheckpointSeries.of_folder(tmp_path, load).steps == (step,)


def test_folders_that_are_empty_absent_or_ambiguous_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match="holds no checkpoints"):
        dynamics.CheckpointSeries.of_folder(tmp_path, load)
    with pytest.raises(MissingDataError, match="not there"):
        dynamics.CheckpointSeries.of_folder(tmp_path / "nowhere", load)
    for name in ("a-step=5.ckpt", "b-step=5.ckpt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"a-step=5\.ckpt and b-step=5\.ckpt are both of step 5"):
        dynamics.CheckpointSeries.of_folder(tmp_path, load)


def test_a_step_that_is_missing_is_named(run, sounds, planted):
    found = dynamics.CheckpointSeries.of_folder(run, load)
    with pytest.raises(MissingDataError, match=r"no checkpoint of step 60; .* 1, 10, 100"):
        found.load(60)
    with pytest.raises(UnknownNameError, match="brain"):
        dynamics.over_steps(found, sounds, {"planted": planted}, {"plant": None})
    with pytest.raises(MissingDataError, match="of step 50"):
        dynamics.over_steps(found, sounds, {"planted": planted}, steps=[0, 50])
    assert not LOADED  # it is said before anything is computed
    with pytest.raises(MissingDataError, match=r"lacks the checkpoints of 2 steps: 5, 7"):
        dynamics.CheckpointSeries.of_folder(run, load, expected=[0, 5, 7])
    with pytest.raises(UnknownNameError, match="model"):
        dynamics.CheckpointSeries.of_folder(run, "small-cmm")


def test_a_file_that_went_away_is_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    found = dynamics.CheckpointSeries.of_folder(copy, load)
    (copy / "step-00000010.safetensors").unlink()
    with pytest.raises(MissingDataError, match=r"step 10, .*step-00000010\.safetensors, is gone"):
        found.load(10)


# -- a damaged checkpoint -----------------------------------------------------------------


@pytest.fixture
def damaged(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "damaged")
    path = copy / "step-00000010.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return dynamics.CheckpointSeries.of_folder(copy, load)


def test_a_damaged_checkpoint_is_an_error_with_its_name(damaged, sounds, planted):
    with pytest.raises(WeightsError, match=r"damaged: .* step 10, step-00000010\.safetensors"):
        dynamics.over_steps(damaged, sounds, {"planted": planted}, n_boot=0, device="cpu")


def test_a_damaged_checkpoint_is_left_out_on_request_and_named(damaged, sounds, planted, caplog):
    with caplog.at_level(logging.WARNING, logger="brainbook"):
        found = dynamics.over_steps(
            damaged, sounds, {"planted": planted}, n_boot=0, skip_corrupt=True, device="cpu"
        )
    assert found["planted"]["step"].values.tolist() == [0, 1, 100, 1000]
    assert json.loads(found["planted"].attrs["skipped"]) == [10]
    assert "step-00000010.safetensors" in caplog.text
    with pytest.raises(DataError, match="none of 1 checkpoints"):
        dynamics.over_steps(
            damaged,
            sounds,
            {"planted": planted},
            steps=[10],
            n_boot=0,
            skip_corrupt=True,
            device="cpu",
        )


def test_a_checkpoint_of_another_network_is_refused(tmp_path, run):
    tensors = load_file(run / "step-00000000.safetensors")
    tensors.pop("blocks.0.0.weight")
    save_file(tensors, tmp_path / "step-3.safetensors")
    with pytest.raises(WeightsError, match=r"step-3\.safetensors.*blocks\.0\.0\.weight"):
        dynamics.CheckpointSeries.of_folder(tmp_path, "small-cnn").load(3)


# -- resuming ------------------------------------------------------------------------------


def test_no_step_is_computed_twice(run, sounds, planted, monkeypatch):
    found = dynamics.CheckpointSeries.of_folder(run, load)
    options = {"n_boot": 5, "device": "cpu"}
    whole_similarity = comparison.similarity

    def killed(features, **arguments):
        if "step 100" in features.provenance["model"]:
            raise KeyboardInterrupt
        return whole_similarity(features, **arguments)

    killed.__module__, killed.__qualname__ = comparison.__name__, "similarity"
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "similarity", killed)
        with pytest.raises(KeyboardInterrupt):
            dynamics.over_steps(found, sounds, {"planted": planted}, **options)
    assert len(LOADED) == 3  # 0, 1, 10; at 100 it was killed before its features were asked for
    resumed = dynamics.over_steps(found, sounds, {"planted": planted}, **options)
    assert LOADED[3:] == ["step-00000100.safetensors", "step-00001000.safetensors"]
    again = dynamics.over_steps(found, sounds, {"planted": planted}, **options)
    assert len(LOADED) == 5  # nothing is loaded where everything is there
    xr.testing.assert_identical(resumed["planted"], again["planted"])


def test_another_analysis_brain_or_seed_is_another_result(run, sounds, planted):
    found = dynamics.CheckpointSeries.of_folder(run, load)
    options = {"steps": [0], "device": "cpu"}
    dynamics.over_steps(found, sounds, {"planted": planted}, n_boot=5, **options)
    for change in ({"n_boot": 6}, {"n_boot": 5, "seed": 1}, {"n_boot": 5, "layers": ["conv2"]}):
        dynamics.over_steps(found, sounds, {"planted": planted}, **change, **options)
    dynamics.over_steps(found, sounds, {"planted": planted * 2}, n_boot=5, **options)
    assert len(LOADED) == 5


def test_a_step_whose_weights_changed_is_computed_again(run, sounds, planted, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    options = {"steps": [0], "n_boot": 0, "device": "cpu"}
    before = dynamics.over_steps(
        dynamics.CheckpointSeries.of_folder(copy, load), sounds, {"planted": planted}, **options
    )
    shutil.copy(copy / "step-00001000.safetensors", copy / "step-00000000.safetensors")
    after = dynamics.over_steps(
        dynamics.CheckpointSeries.of_folder(copy, load), sounds, {"planted": planted}, **options
    )
    assert (after["planted"]["rsa"] > before["planted"]["rsa"]).all()


# -- a public series ------------------------------------------------------------------------


@pytest.fixture
def hub(run, tmp_path, monkeypatch):
    """A hub that lists and delivers the run's files; gives what was delivered."""
    monkeypatch.delenv("BRAINBOOK_DATA", raising=False)
    names = {step: f"epoch=0-step={step}.ckpt" for step in STEPS}
    store, delivered = tmp_path / "hub", []
    store.mkdir()
    for step, name in names.items():
        torch.save(
            {"state_dict": load_file(run / f"step-{step:08d}.safetensors"), "epoch": 0},
            store / name,
        )
    listing = [
        {
            "path": f"some/folder/{name}",
            "size": (store / name).stat().st_size,
            "lfs": {"oid": fetch.file_sha256(store / name)},
        }
        for name in names.values()
    ]
    (store / "listing").write_text(json.dumps([*listing, {"path": "some/folder/README.md"}]))
    entry = series.PublicSeries("small-cnn", "who/what", "some/folder", STEPS)
    monkeypatch.setattr(series, "PUBLIC_SERIES", {"tiny": entry})

    def download(url, target, sha256, n_bytes, source=""):
        delivered.append(url.rsplit("/", 1)[-1])
        origin = store / ("listing" if "/api/" in url else delivered[-1])
        assert "/api/" in url or origin.stat().st_size == n_bytes
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin, target)

    monkeypatch.setattr(fetch, "download", download)
    return delivered


def checkpoints_in(folder):
    return [p for p in Path(folder).rglob("*") if p.suffix in (".ckpt", ".safetensors")]


def test_a_public_series_takes_the_room_of_one_checkpoint(
    hub, sounds, planted, tmp_path, monkeypatch
):
    public = dynamics.CheckpointSeries.public("tiny")
    assert public.steps == STEPS
    most, whole = [], comparison.similarity

    def looked_at(features, **arguments):
        result = whole(features, **arguments)
        most.append(len(checkpoints_in(tmp_path / "cache")))
        return result

    monkeypatch.setattr(comparison, "similarity", looked_at)
    looked_at.__module__, looked_at.__qualname__ = comparison.__name__, "similarity"
    found = dynamics.over_steps(public, sounds, {"planted": planted}, n_boot=0, device="cpu")
    assert most == [2] * 5  # the published file, and its copy in a safe format
    assert checkpoints_in(tmp_path / "cache") == []
    assert len(hub) == 6 and found["planted"].sizes["step"] == 5
    dynamics.over_steps(
        dynamics.CheckpointSeries.public("tiny"),
        sounds,
        {"planted": planted},
        n_boot=0,
        device="cpu",
    )
    assert len(hub) == 6  # nothing is fetched for what is known


def test_a_public_series_is_kept_on_request(hub, sounds, planted, tmp_path):
    public = dynamics.CheckpointSeries.public("tiny", keep=True)
    dynamics.over_steps(public, sounds, {"planted": planted}, steps=[0, 1], n_boot=0, device="cpu")
    assert len([p for p in checkpoints_in(tmp_path / "cache") if p.suffix == ".ckpt"]) == 2


def test_a_public_series_lies_in_the_mirror_or_lacks_steps(hub, tmp_path, monkeypatch):
    folder = tmp_path / "mirror" / "models" / "tiny-steps"
    shutil.copytree(tmp_path / "hub", folder)
    monkeypatch.setenv("BRAINBOOK_DATA", str(tmp_path / "mirror"))
    public = dynamics.CheckpointSeries.public("tiny")
    public.load(10)
    public.release(10)
    assert hub == [] and (folder / "epoch=0-step=10.ckpt").is_file()  # a mirror is left alone
    more = series.PublicSeries("small-cnn", "who/what", "some/folder", (*STEPS, 2000))
    monkeypatch.setattr(series, "PUBLIC_SERIES", {"tiny": more})
    with pytest.raises(MissingDataError, match=r"who/what lacks the checkpoints of 1 steps: 2000"):
        dynamics.CheckpointSeries.public("tiny")
    with pytest.raises(UnknownNameError, match="tiny"):
        dynamics.CheckpointSeries.public("tinny")


def test_the_published_series_is_the_papers():
    entry = dynamics.PUBLIC_SERIES["mel256-ec-base"]
    assert len(entry.steps) == 100 and entry.steps[-1] == 99_000
    assert models.card(entry.model).family == "EnCodecMAE"


# -- what is compared -----------------------------------------------------------------------


def test_scores_are_those_of_the_single_analyses(compared, run, sounds, planted):
    features = extract(load(run / "step-00000100.safetensors"), sounds, cache=False)
    expected = rsa.layerwise(features, planted, ("subject", "roi"))["score"]
    at = compared.sel(step=100)
    xr.testing.assert_allclose(at["rsa_roi"].drop_vars("step"), expected.rename("rsa_roi"))
    expected = rsa.layerwise(features, planted)["score"].rename("rsa")
    xr.testing.assert_allclose(at["rsa"].drop_vars("step"), expected)
    folds = data.folds("stratified", sounds, n_folds=4)
    for features_used, variable in (
        ({"conv3": features["conv3"]}, at["encoding_roi"].sel(layer="conv3")),
        (features, at["encoding_joint_roi"]),
    ):
        scores = encoding.nested_cv_ridge(features_used, planted, folds)["score"].to_dataframe()
        medians = scores[scores["roi"] != ""].groupby(["subject", "roi"])["score"].median()
        for (subject, roi), median in medians.items():
            assert float(variable.sel(subject=subject, roi=roi)) == pytest.approx(median)


def test_draws_of_sounds_are_made_literally(sounds, planted):
    """Repeat the sounds of one draw and correlate what came of it."""
    responses = planted.mean("repetition").isel(target=slice(0, 3))
    responses = responses.drop_vars(["kind", "subject", "roi"])
    features = {"a": planted.isel(repetition=0, target=slice(0, 40)).rename(target="unit")}
    features["a"] = features["a"].reset_coords(drop=True)
    folds = data.folds("stratified", sounds, n_folds=4)
    found = comparison.encode_layers(features, responses, folds, n_boot=8, seed=3)
    result = encoding.nested_cv_ridge(features, responses, folds)
    rng = np.random.default_rng(3)
    for draw in range(8):
        rows = rng.integers(0, 24, 24)
        for k in range(3):
            y, p = responses.values[rows, k], result["prediction"].values[rows, k]
            expected = max(0, np.corrcoef(y, p)[0, 1]) ** 2
            assert float(
                found["encoding_draws"].isel(draw=draw, layer=0, target=k)
            ) == pytest.approx(expected)
    # With a single layer, the joint choice is that layer.
    np.testing.assert_array_equal(found["encoding_joint"], found["encoding"][0])
    np.testing.assert_array_equal(found["encoding_joint_draws"], found["encoding_draws"][:, 0])


def test_similarity_and_encoding_are_drawn_alike(sounds, planted):
    drawn = comparison._draws_of_sounds(24, 3, seed=5)
    rng = np.random.default_rng(5)
    expected = [np.bincount(rng.integers(0, 24, 24), minlength=24) for _ in range(3)]
    np.testing.assert_array_equal(drawn, expected)
    # The rows of rsa.bootstrap: under the same draw, sounds repeated literally.
    x = (
        planted.isel(repetition=0, target=slice(0, 40))
        .rename(target="unit")
        .reset_coords(drop=True)
    )
    y = planted.mean("repetition").isel(target=slice(0, 30)).values
    named = xr.DataArray(y, dims=("sound", "target"), coords={"sound": x["sound"]})
    found = comparison.similarity({"a": x}, named, n_boot=3, seed=5)["rsa_draws"]
    a, b = rsa.rdm(x.values), rsa.rdm(y)
    for draw, counts in enumerate(drawn.astype(int)):
        rows = np.repeat(np.arange(24), counts)
        i, j = np.triu_indices(24, 1)
        pairs = [(r, s) for n, r in enumerate(rows) for s in rows[n + 1 :] if r != s]
        u, v = ([m[min(p), max(p)] for p in pairs] for m in (a, b))
        ranks = [np.unique(w, return_inverse=True)[1] for w in (u, v)]
        assert float(found[draw, 0]) == pytest.approx(scipy.stats.spearmanr(*ranks).statistic)


def test_a_probe_scores_every_layer(run, sounds, planted):
    task = data.task("demo-notes")
    found = dynamics.over_steps(
        dynamics.CheckpointSeries.of_folder(run, load), sounds, {"planted": planted}, task=task,
        steps=[0, 1000], n_boot=0, device="cpu",
    )  # fmt: skip
    found = found["planted"]
    assert found["probe"].dims == ("step", "layer")
    assert ((found["probe"] >= 0) & (found["probe"] <= 1)).all()
    assert len(LOADED) == 2  # sounds and clips through one network
    curve = dynamics.curves(found, "probe")
    assert curve["low"].isnull().all()


def test_components_stay_apart(run):
    responses, heard = data.responses("simulated-components"), data.sounds("simulated-components")
    found = dynamics.over_steps(
        dynamics.CheckpointSeries.of_folder(run, load), heard, {"six": responses},
        {"six": data.folds("auto", heard)}, steps=[0, 1000], layers=["conv1", "conv5"], n_boot=20,
        device="cpu",
    )["six"]  # fmt: skip
    assert found["encoding_joint"].dims == ("step", "target")
    apart = dynamics.curves(found, "encoding_joint", each_target=True)
    assert set(apart["score"].dims) == {"step", "target"}
    mean = dynamics.curves(found, "encoding_joint")
    np.testing.assert_allclose(mean["score"], apart["score"].mean("target"))
    np.testing.assert_allclose(mean["draws"], apart["draws"].mean("target"))
    few = dynamics.curves(found, "encoding", over="targets", n_boot=50)
    assert few["draws"].sizes == {"draw": 50, "step": 2, "layer": 2}


# -- when it happened -----------------------------------------------------------------------


def test_the_planted_onset_and_speed_are_found(compared):
    curve = dynamics.curves(compared, "rsa_roi")
    found = dynamics.emergence(curve).sel(layer="conv1", roi="Primary")
    # All of the rise lies between checkpoints 1 and 10: nine tenths of the way is at 9.1.
    assert float(found["reached"]) == pytest.approx(1 + 0.9 * 9)
    assert [float(found["low"]), float(found["high"])] == pytest.approx([9.1, 9.1])
    assert found["onset"] == 10 and found["peak"] == 10 and found["rising"] > 0.95
    late = dynamics.emergence(curve).sel(layer="conv4", roi="Lateral")
    assert late["onset"] == 100 and late["peak"] == 100
    assert 10 < float(late["reached"]) <= 100


def test_the_planted_rise_excludes_zero(compared):
    curve = dynamics.curves(compared, "rsa_roi")
    rise = dynamics.gain(curve).sel(layer="conv4", roi="Lateral")
    assert rise["low"] > 0
    score = compared["rsa_roi"].mean("subject").sel(layer="conv4", roi="Lateral")
    assert float(rise["score"]) == pytest.approx(float(score[-1] - score[0]))
    draws = compared["rsa_roi_draws"].sel(layer="conv4", roi="Lateral").transpose("step", "draw")
    expected = np.quantile(draws[-1] - draws[0], [0.025, 0.975])
    np.testing.assert_allclose([rise["low"], rise["high"]], expected)
    nothing = dynamics.gain(curve, since=100, until=1000)
    assert (nothing["score"] == 0).all() and (nothing["low"] == 0).all()


def test_subjects_can_be_drawn(compared):
    curve = dynamics.curves(compared, "rsa_roi", over="subjects", n_boot=400)
    values = compared["rsa_roi"].sel(layer="conv4", roi="Lateral")
    # Every draw is a mean of three subjects' values, the same subjects at all steps.
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, 3)
    expected = values.transpose("step", "subject").values[:, rows].mean(axis=1)
    np.testing.assert_allclose(
        curve["draws"].sel(layer="conv4", roi="Lateral").transpose("draw", "step")[0], expected
    )
    assert dynamics.gain(curve)["low"].sel(layer="conv4", roi="Lateral") > 0


def test_a_contrast_pairs_the_draws(compared):
    curve = dynamics.curves(compared, "encoding_joint_roi")
    itself = dynamics.contrast(curve, curve)
    assert (itself["score"] == 0).all() and (itself["high"] == 0).all()
    early = compared.isel(step=slice(0, 1))
    above = dynamics.contrast(curve, dynamics.curves(early, "encoding_joint_roi"))
    xr.testing.assert_allclose(above, dynamics.gain(curve))
    other = compared.assign_attrs(draws_of="others")
    with pytest.raises(ParameterError, match="draws_of"):
        dynamics.contrast(curve, dynamics.curves(other, "encoding_joint_roi"))
    fewer = compared.isel(roi=[0])
    with pytest.raises(ParameterError, match="other layers, regions"):
        dynamics.contrast(curve, dynamics.curves(fewer, "encoding_joint_roi"))


def curve_of(values, draws=None, steps=None):
    values = np.asarray(values, dtype=float)
    draws = values[None] if draws is None else np.asarray(draws, dtype=float)
    steps = np.arange(len(values)) if steps is None else steps
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return xr.Dataset(
        {
            "score": ("step", values),
            "draws": (("draw", "step"), draws),
            "low": ("step", low),
            "high": ("step", high),
        },
        {"step": steps},
        {"confidence": 0.95, "measure": "rsa", "over": "sounds", "draws_of": ""},
    )


def test_emergence_of_curves_worked_by_hand():
    rising = dynamics.emergence(curve_of([0.0, 0.5, 1.0], steps=[0, 10, 100]))
    assert float(rising["reached"]) == pytest.approx(10 + 0.4 / 0.5 * 90)
    assert rising["onset"] == 10 and rising["peak"] == 100
    peaking = dynamics.emergence(curve_of([0.2, 0.6, 0.4], steps=[0, 10, 100]))
    assert float(peaking["reached"]) == pytest.approx(0.18 / 0.4 * 10) and peaking["peak"] == 10
    falling = dynamics.emergence(curve_of([0.5, 0.4, 0.3]))
    assert np.isnan(falling["reached"]) and falling["rising"] == 0 and np.isinf(falling["high"])
    assert np.isnan(falling["onset"]) and falling["peak"] == 0
    whole = dynamics.emergence(curve_of([0.0, 0.1, 0.3]), share=1.0)
    assert float(whole["reached"]) == pytest.approx(2)


def test_a_rise_in_some_draws_only_has_no_upper_limit():
    draws = [[0, 0.5, 1.0]] * 9 + [[0, 0.0, -0.1]]
    found = dynamics.emergence(curve_of([0, 0.45, 0.9], draws))
    assert float(found["rising"]) == pytest.approx(0.9)
    assert np.isinf(found["high"]) and np.isfinite(found["low"])
    dip = dynamics.emergence(curve_of([0, 1, 0, 1]))
    assert dip["onset"] == 3  # what falls back to where it began has not set in


def test_smoothing_leaves_a_cubic_alone_and_calms_noise():
    x = np.linspace(-1, 1, 30)
    cubic = xr.DataArray(x**3 - x, dims="step", coords={"step": np.arange(30)})
    np.testing.assert_allclose(dynamics.smooth(cubic, 9), cubic, atol=1e-12)
    # The published window is even, and so gives what the curve is half a checkpoint later.
    later = x + (x[1] - x[0]) / 2
    np.testing.assert_allclose(dynamics.smooth(cubic)[5:-5], (later**3 - later)[5:-5], atol=1e-12)
    noise = cubic.copy(data=np.random.default_rng(0).standard_normal(30))
    assert dynamics.smooth(noise).diff("step").std() < 0.5 * noise.diff("step").std()
    both = xr.concat([cubic, noise], "layer").transpose("step", "layer")
    np.testing.assert_allclose(dynamics.smooth(both)[:, 1], dynamics.smooth(noise))
    with pytest.raises(ParameterError, match="9 steps"):
        dynamics.smooth(cubic[:9])


def test_impossible_questions_are_refused(compared):
    with pytest.raises(UnknownNameError, match="measure"):
        dynamics.curves(compared, "probe")
    with pytest.raises(UnknownNameError, match="resample"):
        dynamics.curves(compared, "rsa", over="voxels")
    with pytest.raises(ParameterError, match="fewer than two targets"):
        dynamics.curves(compared, "rsa", over="targets")
    curve = dynamics.curves(compared, "rsa_roi")
    with pytest.raises(UnknownNameError, match="step"):
        dynamics.gain(curve, since=5)
    with pytest.raises(ParameterError, match="two steps"):
        dynamics.emergence(curve.isel(step=[0]))
    with pytest.raises(ParameterError, match="share"):
        dynamics.emergence(curve, share=0)
