"""Fine-tuning: the head, segments and the network, each against an answer found another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from analysis_lib import finetuning
from analysis_lib.errors import (
    DataError,
    MissingDataError,
    ParameterError,
    UnknownNameError,
    WeightsError,
)
from analysis_lib.finetuning import EncodingModel, Recordings, Segments, Settings
from analysis_lib.finetuning import run as running
from analysis_lib.finetuning.network import FRAME, RATE, hop
from analysis_lib.finetuning.segments import CONTEXT, precompute
from analysis_lib.finetuning.settings import LAYERS
from analysis_lib.models import load
from analysis_lib.models.soundnet import WIDTHS, SoundNet8

TR = 1.49
NARROW = (2, 4, 4, 6, 6, 8, 8)
SMALL = Settings(n_taps=3, segment_trs=6, batch_size=2, learning_rate=1e-3, max_epochs=3)


def narrow_network(seed=0):
    """A network of few channels whose statistics are those of noise, so that nothing dies out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SoundNet8(NARROW)
        for layer in LAYERS:
            network.get_submodule(layer)[1].momentum = None
        noise = 25 * torch.randn(1, 20 * FRAME)
        with torch.no_grad():
            network.train()
            list(network.stages(noise))
    for layer in LAYERS:
        network.get_submodule(layer)[1].momentum = 0.1
    return network.eval()


def made_recordings(settings, n_trs=(20, 17), n_subjects=1, n_targets=3, seed=0):
    """Noise for sound and brain, as ``record`` would put them in memory."""
    rng = np.random.default_rng(seed)
    inputs, responses, present, lengths = {}, {}, {}, {}
    lead = FRAME * (CONTEXT + settings.n_taps)
    for i, n in enumerate(n_trs):
        run = f"s01e{i // 2 + 1:02d}{'ab'[i % 2]}"
        wave = 0.1 * rng.standard_normal(round(n * TR * RATE)).astype(np.float32)
        if settings.protocol == "paper":
            inputs[run] = finetuning.paper_chunks(wave, n, TR)[None]
        else:
            inputs[run] = np.pad(wave, (lead, 40 * FRAME))[None]
        responses[run] = rng.standard_normal((n_subjects, n, n_targets)).astype(np.float32)
        present[run] = np.ones((n_subjects, n), dtype=bool)
        lengths[run] = n
    known = np.ones((n_subjects, n_targets), dtype=bool)
    return Recordings(inputs, lead, lengths, responses, present, known, TR)


def parts_of(recordings):
    first, second = recordings.inputs
    return {"train": [first], "validation": [second]}


# -- the head -------------------------------------------------------------------------------------


def test_the_head_is_an_explicit_fir_sum():
    torch.manual_seed(0)
    head = finetuning.TemporalHead(4, 3, 5).double()
    features = torch.randn(2, 4, 12, dtype=torch.float64)
    expected = head.convolution.bias[:, None].expand(3, 12).repeat(2, 1, 1)
    for t in range(12):
        for delay in range(min(5, t + 1)):
            expected[:, :, t] += features[:, :, t - delay] @ head.fir[delay].T
    torch.testing.assert_close(head(features, pad=True), expected)
    torch.testing.assert_close(head(features), expected[:, :, 4:])


def test_the_head_is_the_published_convolution_cropped():
    """Conv2d with padding on both sides, of which the first volumes are kept."""
    torch.manual_seed(0)
    head = finetuning.TemporalHead(4, 3, 5)
    published = nn.Conv2d(4, 3, (5, 1), padding=(4, 0))
    published.weight.data = head.convolution.weight.data[..., None]
    published.bias.data = head.convolution.bias.data
    frames = torch.randn(1, 4, 71)
    output = published(frames[..., None])[..., 0]
    assert output.shape[2] == 75
    torch.testing.assert_close(head(frames, pad=True)[:, :, :70], output[:, :, :70])


def test_a_prediction_depends_on_no_later_volume_and_no_earlier_than_its_taps():
    head = finetuning.TemporalHead(2, 1, 4)
    features = torch.randn(1, 2, 10, requires_grad=True)
    head(features, pad=True)[0, 0, 6].backward()
    touched = features.grad.abs().sum(dim=(0, 1)) > 0
    assert touched.nonzero().flatten().tolist() == [3, 4, 5, 6]


def test_parameters_and_shapes_of_the_published_model():
    settings = Settings(protocol="paper", batch_size=1, n_taps=5, segment_trs=70)
    model = EncodingModel(SoundNet8(), 210, settings=settings)
    assert sum(p.numel() for p in model.parameters()) == 15_428_123
    blocks = [model.network.get_submodule(name) for name in LAYERS]
    assert sum(p.numel() for block in blocks for p in block.parameters()) == 2_874_320
    assert sum(p.numel() for p in model.groups()[1]["params"]) == 2_823_808
    n = 70 * int(RATE * 1.49)
    assert n == 2_299_780
    lengths = [143_736, 8_983, 4_492, 2_247, 281, 141, 71]  # after pooling
    shape = torch.zeros(1, n, device="meta")
    with torch.device("meta"):
        network = SoundNet8()
    found = [out.shape[2] for name, out in network.stages(shape) if not name.startswith("conv8")]
    assert found == lengths
    assert WIDTHS == (16, 32, 64, 128, 256, 512, 1024)
    assert [hop(number) for number in range(8)] == [1, 16, 256, 512, 1024, 8192, 16_384, FRAME]


@pytest.mark.parametrize("n_trs", [1, 2, 5, 10, 30, 60, 64, 75, 80, 100])
def test_one_frame_more_than_volumes(n_trs):
    with torch.device("meta"):
        network = SoundNet8()
        wave = torch.zeros(1, n_trs * int(RATE * 1.49))
    (conv7,) = [out for name, out in network.stages(wave) if name == "conv7"]
    assert conv7.shape[2] == n_trs + 1


def test_resampled_frames_keep_the_time_of_volumes():
    frames = torch.arange(600.0)[None, None]  # frame k holds k
    positions = finetuning.frame_positions(0, 480, TR, FRAME / RATE)[None]
    found = finetuning.resample_frames(frames, positions)[0, 0]
    np.testing.assert_allclose(found, np.arange(480) * TR * RATE / FRAME, rtol=1e-6)
    drift = (found[-1] - 479) * FRAME / RATE  # s that counting frames loses in a run
    assert float(drift) == pytest.approx(1.88, abs=0.01)


# -- segments -------------------------------------------------------------------------------------


def test_segments_predict_what_one_pass_over_the_run_does():
    """Sound and features at segment edges are the run's; silence stands before it."""
    network = narrow_network()
    predicted = {}
    for n_segment in (6, 20):
        settings = replace(SMALL, segment_trs=n_segment, start="conv1", statistics="frozen")
        recordings = made_recordings(settings)
        model = EncodingModel(network, 3, settings=settings)
        nn.init.normal_(model.head.convolution.weight, generator=torch.manual_seed(1))
        predicted[n_segment] = finetuning.predict(model, recordings, list(recordings.inputs), "cpu")
    for run, whole in predicted[20].items():
        assert np.isfinite(whole).all() and whole.std() > 1e-3
        np.testing.assert_allclose(predicted[6][run], whole, atol=1e-4 * whole.std())


def test_a_segment_between_zeros_misses_what_was_before():
    settings = replace(SMALL, protocol="paper", batch_size=1, statistics="frozen")
    whole = replace(settings, segment_trs=20)
    recordings = made_recordings(settings)
    network, found = narrow_network(), {}
    for one in (settings, whole):
        model = EncodingModel(network, 3, settings=one)
        nn.init.normal_(model.head.convolution.weight, generator=torch.manual_seed(1))
        found[one.segment_trs] = finetuning.predict(model, recordings, ["s01e01a"], "cpu")
    differs = np.abs(found[6]["s01e01a"] - found[20]["s01e01a"]).max(axis=(0, 2)) > 1e-4
    assert differs[[6, 7, 12, 13]].all()  # the first volumes of later segments
    assert not differs[[2, 3]].any()  # the middle of the first


def test_every_volume_counts_once_in_an_epoch():
    recordings = made_recordings(SMALL)
    segments = Segments(recordings, list(recordings.inputs), SMALL)
    counted = sum(int(segments.batch([row])[3].sum()) for row in range(len(segments)))
    assert counted == sum(recordings.n_trs.values()) == 37
    paper = replace(SMALL, protocol="paper", batch_size=1)
    recordings = made_recordings(paper)
    segments = Segments(recordings, list(recordings.inputs), paper)
    shapes = [segments.batch([row]) for row in range(len(segments))]
    assert [batch[2].shape[2] for batch in shapes] == [6, 6, 6, 2, 6, 6, 5]
    assert [batch[0].shape[2] for batch in shapes] == [
        int(RATE * TR) * n for n in (6, 6, 6, 2, 6, 6, 5)
    ]


def test_batches_depend_on_step_and_part_alone():
    recordings = made_recordings(SMALL)
    segments = Segments(recordings, list(recordings.inputs), SMALL)
    whole = segments.batch_of(5, 0, 1)
    again = Segments(recordings, list(recordings.inputs), SMALL).batch_of(5, 0, 1)
    halves = [segments.batch_of(5, part, 2) for part in (0, 1)]
    for tensor, same, *parts in zip(whole, again, *halves, strict=True):
        assert torch.equal(tensor, same) and torch.equal(tensor, torch.cat(parts))
    with pytest.raises(ParameterError, match="cannot be divided into 3 parts"):
        segments.batch_of(0, 0, 3)


def test_an_epoch_has_every_segment_and_an_order_of_its_own():
    settings = replace(SMALL, batch_size=1)
    recordings = made_recordings(settings)
    segments = Segments(recordings, list(recordings.inputs), settings)
    n = len(segments)

    def epoch(k, of=segments):
        return [float(of.batch_of(step, 0, 1)[2].sum()) for step in range(k * n, (k + 1) * n)]

    assert sorted(epoch(0)) == sorted(epoch(1)) and epoch(0) != epoch(1)
    paper = replace(settings, protocol="paper")
    recordings = made_recordings(paper)
    segments = Segments(recordings, list(recordings.inputs), paper)
    assert epoch(0, segments) == epoch(1, segments)


def test_chunks_of_the_paper_start_at_their_volumes_and_are_cut_to_whole_samples():
    wave = np.arange(200_000, dtype=np.float32)
    chunks = finetuning.paper_chunks(wave, 5, TR).reshape(5, 32_854)
    assert chunks[:, 0].tolist() == [0, 32_854, 65_709, 98_563, 131_418]
    assert (np.diff(chunks) == 1).all()


@pytest.mark.parametrize("start", ["conv2", "conv4", "conv7", "none"])
def test_layers_that_stay_are_computed_once_and_give_the_same(start):
    settings = replace(SMALL, start=start, statistics="frozen")
    recordings = made_recordings(settings, n_trs=(90, 17))
    model = EncodingModel(narrow_network(), 3, settings=settings)
    ready = precompute(recordings, model, torch.device("cpu"), progress=False)
    assert ready.inputs["s01e01a"].shape[0] == ((1, *NARROW)[model.first - 1])
    raw = EncodingModel(narrow_network(), 3, settings=replace(settings, start="conv1"))
    runs = list(recordings.inputs)
    short = Segments(ready, runs, settings, model.first).batch_of(7, 0, 1)
    long = Segments(recordings, runs, settings).batch_of(7, 0, 1)
    frames = model.features(short[0])[..., CONTEXT : -CONTEXT - 1]
    whole = raw.features(long[0])[..., CONTEXT : CONTEXT + frames.shape[2]]
    torch.testing.assert_close(frames, whole, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(short[1:], long[1:], strict=True))
    again = precompute(recordings, model, torch.device("cpu"), progress=False)
    assert np.array_equal(again.inputs["s01e01a"], ready.inputs["s01e01a"])


# -- the network ----------------------------------------------------------------------------------


def tensors_before(model, start):
    names = [f"network.conv{i}." for i in range(1, 8)][: int(start[-1]) - 1]
    return {
        name: tensor.clone()
        for name, tensor in nn.Module.state_dict(model).items()
        if name.startswith(tuple(names)) or ".conv8" in name
    }


@pytest.mark.parametrize(("protocol", "moves"), [("robust", False), ("paper", True)])
def test_what_is_frozen_does_not_move_and_in_the_paper_its_statistics_do(protocol, moves):
    paper = protocol == "paper"
    settings = replace(
        SMALL, protocol=protocol, batch_size=1, statistics="all" if paper else "trained"
    )
    recordings = made_recordings(settings)
    model = EncodingModel(narrow_network(), 3, settings=settings)
    nn.init.normal_(model.head.convolution.weight, std=0.1)
    before, weights = tensors_before(model, "conv4"), model.network.conv4[0].weight.clone()
    ready = precompute(recordings, model, torch.device("cpu"), progress=False)
    segments = Segments(ready, list(recordings.inputs), settings, model.first)
    optimiser = torch.optim.AdamW(model.groups())
    for step in range(2):
        loss, weight, _ = model(*segments.batch_of(step, 0, 1))
        optimiser.zero_grad()
        (loss / weight).backward()
        optimiser.step()
    after = nn.Module.state_dict(model)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert all(".1." in name for name in changed) and bool(changed) == moves
    assert not torch.equal(model.network.conv4[0].weight, weights)


def test_the_frozen_baseline_has_the_bytes_it_had():
    network = narrow_network()
    before = {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}
    settings = SMALL.baseline("frozen")
    recordings = made_recordings(settings)
    model, folder, history = finetuning.fit(
        recordings, parts_of(recordings), settings, device="cpu", network=network
    )
    after = {name: t.numpy().tobytes() for name, t in model.network.state_dict().items()}
    assert after == before
    assert model.head.convolution.weight.abs().max() > 0 and len(history) > 1


def test_adapted_counts_statistics_anew_and_moves_nothing_else():
    settings = SMALL.baseline("adapted")
    recordings = made_recordings(settings)
    network = narrow_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    model, *_ = finetuning.fit(
        recordings, parts_of(recordings), settings, device="cpu", network=network
    )
    after = model.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"running_mean", "running_var"}
    assert {name[:5] for name in changed} == {f"conv{i}" for i in range(1, 8)}
    # conv1 by hand: one piece, without the silence around the run.
    wave = 256 * torch.from_numpy(recordings.waveform("s01e01a"))[None, None, :, None]
    with torch.no_grad():
        heard = narrow_network().conv1[0](wave)
    torch.testing.assert_close(after["conv1.1.running_mean"], heard.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(after["conv1.1.running_var"], heard.var(dim=(0, 2, 3)))


def test_losses_against_their_definitions():
    settings = replace(SMALL, start="conv1")
    recordings = made_recordings(settings, n_subjects=2)
    recordings.known[1, 2] = False
    segments = Segments(recordings, list(recordings.inputs), settings)
    batch = segments.batch([3, 6])  # the last segments of both runs: 2 and 5 volumes count
    known = torch.from_numpy(recordings.known)
    model = EncodingModel(narrow_network(), 3, 2, settings, known).eval()
    loss, weight, _ = model(*batch)
    assert int(weight) == 2 * (2 + 5)
    expected = 0.0
    for targets, valid in zip(batch[2], batch[3], strict=True):
        for subject in range(2):  # the head begins by predicting 0
            counted = targets[subject][valid[subject]][:, known[subject]]
            expected += float((counted**2).mean(dim=1).sum())
    assert loss.item() == pytest.approx(expected, rel=1e-5)

    paper = Settings(protocol="paper", batch_size=1, n_taps=3, segment_trs=6)
    recordings = made_recordings(paper)
    batch = Segments(recordings, list(recordings.inputs), paper).batch([0])
    model = EncodingModel(narrow_network(), 3, settings=paper).eval()
    predicted = model.predict(batch[0], batch[1])
    loss, weight, _ = model(*batch)
    squares = ((predicted - batch[2]) ** 2).sum()
    assert (loss / weight).item() == pytest.approx(0.01 * squares.item() / 6, rel=1e-5)


def test_heads_of_several_subjects():
    settings = replace(SMALL, start="conv1")
    recordings = made_recordings(settings, n_subjects=2)
    batch = Segments(recordings, list(recordings.inputs), settings).batch([0])
    shared = EncodingModel(narrow_network(), 3, 2, settings)
    assert shared.predict(*batch[:2]).shape == (1, 1, 6, 3)
    own = EncodingModel(narrow_network(), 3, 2, replace(settings, heads="per-subject"))
    nn.init.normal_(own.head.convolution.weight)
    predicted = own.eval().predict(*batch[:2])
    assert predicted.shape == (1, 2, 6, 3)
    # Outputs 3 to 5 of the convolution belong to the second subject.
    alone = EncodingModel(narrow_network(), 3, 1, settings).eval()
    alone.head.convolution.weight.data = own.head.convolution.weight.data[3:]
    torch.testing.assert_close(alone.predict(*batch[:2])[:, 0], predicted[:, 1])


# -- a run ----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def test_a_run_that_was_killed_ends_with_the_same_bytes(monkeypatch, tmp_path):
    recordings = made_recordings(SMALL)
    parts = parts_of(recordings)

    def fitted(cache):
        monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / cache))
        return finetuning.fit(recordings, parts, SMALL, device="cpu", network=narrow_network())

    whole, _, history = fitted("whole")
    batch_of = Segments.batch_of

    def dies(self, step, part, n_parts):
        if step == 5:
            raise Killed
        return batch_of(self, step, part, n_parts)

    monkeypatch.setattr(Segments, "batch_of", dies)
    with pytest.raises(Killed):
        fitted("killed")
    monkeypatch.setattr(Segments, "batch_of", batch_of)
    resumed, folder, again = fitted("killed")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    numbers = [name for name in history if name != "seconds"]
    assert history[numbers].equals(again[numbers])
    assert len(history) == 1 + 3 * 2  # three epochs of two steps, and the start


def test_training_stops_and_keeps_the_best():
    settings = replace(SMALL, max_epochs=60, patience=2, learning_rate=0.03)
    recordings = made_recordings(settings)  # noise: validation can only get worse
    model, folder, history = finetuning.fit(
        recordings, parts_of(recordings), settings, device="cpu", network=narrow_network()
    )
    losses = history["validation_loss"].dropna().to_numpy()
    assert len(losses) - 1 - losses.argmin() == 2 and len(losses) < 61
    scored = running._validation(
        model, Segments(precompute(recordings, model, torch.device("cpu"), False),
                        ["s01e01b"], settings, model.first), torch.device("cpu"))  # fmt: skip
    assert scored["loss"] == pytest.approx(losses.min(), abs=1e-6)
    assert scored["loss"] == pytest.approx(1 - scored["r2_mean"])


def test_bfloat16_trains():
    settings = replace(SMALL, precision="bfloat16", max_epochs=2)
    recordings = made_recordings(settings)
    _, _, history = finetuning.fit(
        recordings, parts_of(recordings), settings, device="cpu", network=narrow_network()
    )
    assert np.isfinite(history["loss"].dropna()).all()


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "scale", "expected"),
    [
        ("sub-01", "wholebrain", (80, 7, 1e-5)),
        ("sub-03", "STG", (70, 5, 1e-4)),
        ("sub-05", "wholebrain", (60, 7, 1e-6)),
        ("sub-06", "STG", (70, 6, 1e-5)),
        ("group", "STG", (75, 7, 1e-5)),
    ],
)
def test_the_selected_configurations(subject, scale, expected):
    found = finetuning.published_settings(subject, scale)
    assert (found.segment_trs, found.n_taps, found.learning_rate) == expected
    assert (found.protocol, found.statistics, found.input_scale) == ("paper", "all", 1.0)
    assert (found.weight_decay, found.patience, found.start) == (1e-3, 15, "conv4")


def test_settings_that_cannot_be():
    with pytest.raises(UnknownNameError, match="unknown start 'conv9'"):
        Settings(start="conv9")
    with pytest.raises(ParameterError, match="one segment a step"):
        Settings(protocol="paper")
    with pytest.raises(ParameterError, match="n_taps must be a whole number of at least 1"):
        Settings(n_taps=0)
    with pytest.raises(ParameterError, match="learning_rate must be a number"):
        Settings(learning_rate="fast")
    assert Settings(learning_rate="1e-5").learning_rate == 1e-5  # as YAML gives it
    with pytest.raises(UnknownNameError, match="Did you mean 'n_taps'"):
        Settings.of({"n_tap": 3})
    with pytest.raises(UnknownNameError, match="unknown subject 'sub-07'"):
        finetuning.published_settings("sub-07")
    with pytest.raises(UnknownNameError, match="unknown baseline"):
        Settings().baseline("none")


def test_a_checkpoint_that_is_gone():
    with pytest.raises(MissingDataError, match="run the fine-tuning again"):
        finetuning.checkpoint("0" * 24)


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SoundNet8().eval()


def test_a_saved_network_is_a_soundnet_with_its_own_scale(full_network, tmp_path):
    path = finetuning.save_network(full_network, tmp_path / "tuned.safetensors", 1.0)
    model = load("soundnet", checkpoint=path, device="cpu")
    assert model.input_scale == 1.0
    wave = torch.randn(1, 8000, generator=torch.manual_seed(0))
    with torch.no_grad():
        expected = dict(full_network.stages(wave))["conv7"].transpose(1, 2)
    torch.testing.assert_close(model.embed(wave)["conv7"], expected)
    other = finetuning.save_network(full_network, tmp_path / "other.safetensors", 256.0)
    louder = load("soundnet", checkpoint=other, device="cpu")
    assert louder.input_scale == 256.0 and louder.identity != model.identity
    with pytest.raises(WeightsError, match="input_scale must be a positive number"):
        finetuning.save_network(full_network, tmp_path / "bad.safetensors", -1.0)
        load("soundnet", checkpoint=tmp_path / "bad.safetensors", device="cpu")


def test_a_saved_network_goes_into_hear(full_network, tmp_path):
    from analysis_lib import hear_api

    path = finetuning.save_network(full_network, tmp_path / "tuned.safetensors", 256.0)
    model = hear_api.load_model(f"soundnet@{path}")
    audio = 0.1 * torch.randn(2, 2 * model.sample_rate, generator=torch.manual_seed(0))
    assert hear_api.get_scene_embeddings(audio, model).shape == (2, 1024)


# -- the two flaws --------------------------------------------------------------------------------


def test_statistics_move_in_a_network_that_was_meant_to_be_frozen():
    network = narrow_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rng = np.random.default_rng(0)
    segments = [0.02 * rng.standard_normal(8 * FRAME).astype(np.float32) for _ in range(3)]
    found = finetuning.batch_norm_drift(network, segments, segments[:1], input_scale=1.0)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert (found["mean_shift"][0] == 0).all() and (found["mean_shift"][-1] > 0).all()
    # conv1 by hand: statistics of three segments, a tenth of the way each.
    moved = before["conv1.1.running_var"]
    for segment in segments:
        wave = torch.from_numpy(segment)[None, None, :, None]
        moved = 0.9 * moved + 0.1 * network.conv1[0](wave).detach().var(dim=(0, 2, 3))
    ratio = (moved + 1e-5) / (before["conv1.1.running_var"] + 1e-5)
    assert float(found["variance_ratio"][-1, 0]) == pytest.approx(
        float(ratio.log().mean().exp()), rel=1e-3
    )
    assert float(found["embedding_change"][0, 0]) > 0.01  # the other scale alone
    still = finetuning.batch_norm_drift(network, segments, segments[:1])
    assert float(still["embedding_change"][0, 0]) == 0


def test_published_timestamps_are_15_seconds_off_after_two_minutes():
    found = finetuning.timestamp_error(120)
    assert float(found["claimed"][0]) == pytest.approx(0.0335, abs=1e-4)
    assert float(found["true"][0]) == pytest.approx(0.220, abs=1e-3)
    assert float(found["error"][-1]) == pytest.approx(15.2, abs=0.1)
    assert float(finetuning.timestamp_error(4)["error"][-1]) == pytest.approx(0.65, abs=0.03)
    with pytest.raises(DataError, match="no frame at all"):
        finetuning.timestamp_error(0.1)


@pytest.mark.parametrize("seconds", [1, 4])
def test_the_wrappers_frames_are_those_of_the_network(full_network, seconds):
    wave = torch.zeros(1, 22_000 * seconds)
    with torch.no_grad():
        n_frames = dict(full_network.stages(wave))["conv4"].shape[2]
    assert finetuning.timestamp_error(seconds).sizes["frame"] == n_frames - 6
