"""The models with a recurrent or transformer network that Tuckute et al. (2023) scored."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import golden
import torch
from safetensors.torch import save_file

from analysis_lib import models
from analysis_lib.models import registry

LENGTHS = {"2s": (2, 0), "5.3s": (5.3, 1)}  # seconds and seed of each golden input


@dataclass(frozen=True)
class Member:
    """A card, and where its manifest and golden values are."""

    name: str
    family: str
    member: str
    phase_prefix: str = ""  # of the manifest's names, unknown to the weight rule

    def meta_model(self):
        """Build the model without memory for its weights."""
        entry = models.card(self.name)
        with torch.device("meta"):
            return registry.family_class(entry.family)(entry)

    def meta_checkpoint(self):
        """Every published tensor, without memory."""
        return {
            row["name"]: torch.empty(row["shape"], device="meta")
            for row in golden.manifest(self.family, self.member)
        }

    def checkpoint(self):
        """Published tensors by the strong rule; large unneeded decoders are left out."""
        return golden.strong_checkpoint(
            self.family,
            self.member,
            keep=lambda row: ".decoder." not in row["name"],
            phase_name=lambda name: name.removeprefix(self.phase_prefix),
        )

    def load(self):
        """Write the checkpoint to a file and load it as a user would."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "published.safetensors"
            save_file(self.checkpoint(), path)
            return models.load(self.name, checkpoint=path, device="cpu")

    def golden_taps(self, length):
        """Golden values of every tap for one of the inputs."""
        file = f"golden_strong_{self.member}.json"
        return golden.golden(self.family, file)[length]["taps"]

    def waveform(self, length):
        """One of the golden inputs."""
        return golden.chirp(models.card(self.name).sample_rate, *LENGTHS[length])


RECURRENT = [
    Member("braindnn_deepspeech", "deepspeech2", "librispeech_v3"),
    Member("braindnn_dcase2020", "dcase2020", "baseline"),
    Member("braindnn_sepformer", "sepformer", "sepformer-whamr"),
    Member("braindnn_metricgan", "metricgan", "metricgan-plus-voicebank"),
    Member("braindnn_zerospeech", "zerospeech2020", "english", phase_prefix="encoder."),
]
TRANSFORMERS = [
    Member("braindnn_ast", "ast", "ast"),
    Member("braindnn_wav2vec2", "wav2vec2", "wav2vec2-base-960h"),
    Member("braindnn_s2t", "speech2text", "s2t-large-librispeech-asr"),
]


def assert_golden_alone_and_in_a_batch(member, model):
    """Compare every layer with the golden values, for both sounds at once and for one alone."""
    waves = {length: member.waveform(length) for length in LENGTHS}
    padded = torch.nn.utils.rnn.pad_sequence([*waves.values()], batch_first=True)
    together = model.embed(padded, lengths=[len(wave) for wave in waves.values()])
    alone = model.embed(waves["2s"][None])
    for layer in model.layers:
        first = alone[layer][0]
        rows = {"2s": together[layer][0, : len(first)], "5.3s": together[layer][1]}
        torch.testing.assert_close(rows["2s"], first, rtol=0, atol=1e-5 * first.std().item())
        for length, row in rows.items():
            deviation = golden.worst_deviation(row[None], member.golden_taps(length)[layer])
            assert deviation < 1e-4, (layer, length, deviation)


def click_time(model, layer, seconds=1.0, at=0.6):
    """Where in time, by its own frame times, a layer notices a click at ``at`` seconds."""
    wave = 0.1 * torch.randn(int(seconds * model.sample_rate), generator=torch.manual_seed(0))
    clicked = wave.clone()
    clicked[int(at * model.sample_rate)] += 0.05
    change = model.embed(torch.stack([wave, clicked]), layers=[layer])[layer].diff(dim=0)[0]
    energy = change.double().flatten(1).square().sum(dim=1)
    times = model.frame_times(layer, len(energy))
    return ((times * energy).sum() / energy.sum()).item()
