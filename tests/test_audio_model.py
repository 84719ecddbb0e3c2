"""What every model inherits, with a model that counts samples."""

import pytest
import torch

from analysis_lib.errors import AudioError, ParameterError, UnknownNameError
from analysis_lib.models.audio_model import AudioModel
from analysis_lib.models.cards import ModelCard

HOP = 4


class Counter(AudioModel):
    """Layer ``frames``: sums of four samples; ``whole``: one sum; ``extra``: on request."""

    min_samples = HOP
    extra_layers = ("extra",)

    def __init__(self, **card):
        card = {"name": "counter", "label": "C", "family": "C", "kind": "untrained",
                "architecture": "sums", "sample_rate": 8, "layers": ("frames", "whole"),
                **card}  # fmt: skip
        super().__init__(ModelCard(**card))
        self.batches = []

    def _forward(self, waveforms, layers):
        self.batches.append(tuple(waveforms.shape))
        frames = waveforms.unfold(1, HOP, HOP).sum(dim=2, keepdim=True)
        return {"frames": frames, "whole": frames.sum(dim=1, keepdim=True), "extra": -frames}

    def _frame_grid(self, layer):
        return None if layer == "whole" else (HOP / 8, HOP / 16)


def test_each_sound_gets_what_it_would_get_alone():
    model = Counter()
    waves = torch.arange(36.0).reshape(3, 12)
    lengths = [12, 4, 12]
    waves[1, 4:] = 99.0  # padding that must not be seen
    together = model.embed(waves, lengths)
    assert sorted(model.batches) == [(1, 4), (2, 12)]
    for row, length in enumerate(lengths):
        alone = model.embed(waves[row : row + 1, :length])
        n_frames = alone["frames"].shape[1]
        assert torch.equal(together["frames"][row, :n_frames], alone["frames"][0])
        assert together["frames"][row, n_frames:].isnan().all()
        assert torch.equal(together["whole"][row], alone["whole"][0])


def test_arrays_are_taken_as_they_come():
    output = Counter().embed(torch.ones(1, 8, dtype=torch.float64).numpy())
    assert output["frames"].tolist() == [[[4.0], [4.0]]] and output["frames"].dtype == torch.float32


def test_layers_come_in_the_models_order_and_extra_ones_on_request():
    model, wave = Counter(), torch.ones(1, 8)
    assert list(model.embed(wave)) == ["frames", "whole"]
    assert list(model.embed(wave, layers=["extra", "whole"])) == ["whole", "extra"]
    with pytest.raises(UnknownNameError, match="layer of counter 'frame'. Did you mean 'frames'"):
        model.embed(wave, layers=["frame"])


@pytest.mark.parametrize(
    "shape, lengths, error, message",
    [
        ((8,), None, ParameterError, r"must have shape \(batch, time\) .*, not \(8,\)"),
        ((2, 8), [8], ParameterError, "one number of samples, at most 8, for each of the 2 sounds"),
        ((2, 8), [8, 9], ParameterError, "at most 8"),
        ((2, 8), [8, 3], AudioError, r"needs at least 4 samples \(0.500 s\); sound 1 .* has 3"),
        ((1, 2), None, AudioError, "needs at least 4 samples"),
        ((0, 8), None, ParameterError, "at least one sound"),
    ],
)
def test_waveforms_that_cannot_be_embedded(shape, lengths, error, message):
    with pytest.raises(error, match=message):
        Counter().embed(torch.ones(shape), lengths)


def test_activations_that_are_not_finite_are_refused():
    waves = torch.ones(3, 8)
    waves[2, 0] = torch.inf
    message = "counter: layer 'frames' is not finite for sound 2 of the batch"
    with pytest.raises(AudioError, match=message):
        Counter().embed(waves)


def test_frames_have_their_place_in_time():
    model = Counter()
    assert model.frame_rate("frames") == 2.0 and model.frame_rate("whole") == 0.0
    assert model.frame_times("frames", 3).tolist() == [0.25, 0.75, 1.25]
    with pytest.raises(ParameterError, match="counter: layer 'whole' has no frames in time"):
        model.frame_times("whole", 1)
    with pytest.raises(UnknownNameError, match="layer of counter 'wholes'"):
        model.frame_rate("wholes")


def test_weights_are_told_apart_by_name_shape_and_value():
    def of(**tensors):
        model = Counter()
        for name, tensor in tensors.items():
            model.network.register_buffer(name, tensor)
        return model.weights_sha256

    x = torch.arange(4.0)
    hashes = {of(), of(a=x), of(b=x), of(a=x + 1), of(a=x.reshape(2, 2)), of(a=x.double())}
    assert len(hashes) == 6 and of(a=x.clone()) in hashes


def test_a_model_without_weights_still_moves():
    model = Counter().to("meta")
    assert model.device == torch.device("meta")
