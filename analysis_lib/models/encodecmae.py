"""EnCodecMAE: masked auto-encoders taught by EnCodec tokens (Pepino et al. 2023).

Frames of a mel spectrogram, of EnCodec's encoder or of a linear spectrogram go through a linear
projection, a sinusoidal position code and a transformer with two residual streams (ResiDual).
"""

import math
import re
from collections.abc import Collection, Mapping
from itertools import islice

import torch
from torch import nn

from ..errors import WeightsError
from .audio_model import AudioModel
from .cards import ModelCard
from .frontends import KaldiSpectrogram
from .residual_transformer import (
    CHUNK,
    N_HIDDEN,
    N_MELS,
    NormalisedSpectrogram,
    PositionCode,
    ResidualStack,
    mel_front_end,
)
from .weights import check_settings, check_tied

__all__ = ["EnCodecMAE"]

SHORTEST = 2_048  # a chunk of so many samples or fewer is left out
FRAME = 320  # samples per EnCodec frame


class EnCodecMAE(AudioModel):
    """The encoder of EnCodecMAE.

    Layer ``layer_l`` is the normalised stream after block ``l``; the last one has the normalised
    residual stream added to it, which is why its spread is about twice that of the others.
    ``layer_<last>_left``, given on request, is the last block without that sum.

    Long sounds are cut into chunks of 4 s, each processed alone, and their frames joined; a last
    chunk of at most 2,048 samples is left out. In a sound shorter than 4 s, frames beyond
    ``n_samples // 320`` (at most one) are not attended to, as in the original.

    Parameters
    ----------
    card : ModelCard
        Options: ``n_layers``, ``width``, ``n_heads``, ``n_hidden`` (of the FFN, by default the
        published 4,096), and ``front_end``: "mel", "encodec" or "spectrogram". The framing of
        "spectrogram" is known from its checkpoint only.

    Notes
    -----
    The FFN is one module that all blocks share; published files repeat it under each block. The
    fresh weights of an untrained network are PyTorch's defaults.
    """

    min_samples = SHORTEST + 1
    unused_tensors = (
        r"visible_encoder\.post_net\..*",
        r"decoder\..*",
        r"head\..*",
        r"target_encoder\..*",
    )

    def __init__(self, card: ModelCard):
        super().__init__(card)
        options = card.options
        self.front_end = options["front_end"]
        self.n_layers, width, n_heads = options["n_layers"], options["width"], options["n_heads"]
        blocks = [f"layer_{index}" for index in range(self.n_layers)]
        self.extra_layers = (
            *(block for block in blocks if block not in self.layers),
            f"{blocks[-1]}_left",
        )
        wav_encoder, n_inputs = self._build_front_end()
        wav_encoder["post_net"] = nn.Linear(n_inputs, width)
        n_hidden = options.get("n_hidden", N_HIDDEN)
        self.network = nn.ModuleDict(
            {
                "wav_encoder": wav_encoder,
                "masker": nn.ModuleDict({"positional_encoder": PositionCode(width)}),
                "visible_encoder": ResidualStack(self.n_layers, width, n_heads, n_hidden),
            }
        )

    def _build_front_end(self) -> tuple[nn.ModuleDict, int]:
        """Modules before the projection, and how many values they give per frame."""
        if self.front_end == "encodec":
            from transformers import EncodecConfig, EncodecModel

            return nn.ModuleDict({"encoder": EncodecModel(EncodecConfig()).encoder}), 128
        if self.front_end == "mel":
            return nn.ModuleDict({"spectrogram": mel_front_end()}), N_MELS
        return nn.ModuleDict(), 513

    def accept_settings(self, settings: Mapping[str, object]) -> None:
        """Check the size of the network, and read the framing of a linear spectrogram.

        The text is searched for values and never executed.
        """
        text = settings.get("config")
        text = text if isinstance(text, str) else ""
        options = self.card.options
        expected = {
            "NUM_ENCODER_LAYERS": str(options["n_layers"]),
            "MODEL_DIM": str(options["width"]),
        }
        found = {name: value for name in expected if (value := _last_binding(text, name))}
        check_settings(self, found, expected)
        if self.front_end == "spectrogram":
            self._adopt_spectrogram(text)

    def _adopt_spectrogram(self, text: str) -> None:
        names = ("frame_length", "frame_shift", "window_type", "norm_stats")
        found = {name: _last_binding(text, name) for name in names}
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", found["norm_stats"] or "")]
        window = (found["window_type"] or "").strip("'\"")
        try:
            length, shift = (
                math.floor(float(found[name] or "") * self.sample_rate / 1000)
                for name in ("frame_length", "frame_shift")
            )
            mean, std = numbers
            spectrogram = KaldiSpectrogram(self.sample_rate, length, shift, None, window=window)
        except (ValueError, KeyError) as error:
            raise WeightsError(
                f"{self.card.name}: the settings in the checkpoint do not define its "
                f"spectrogram (found {found}). Use the published .pt file, which holds them "
                "under 'config'."
            ) from error
        self.network["wav_encoder"]["spectrogram"] = NormalisedSpectrogram(spectrogram, mean, std)

    def from_published(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename EnCodec's tensors to those of transformers; everything else agrees.

        Warns
        -----
        WeightsNotice
            When the copies of the shared FFN differ.
        """
        check_tied(tensors, r"visible_encoder\.encoder_layers\.\d+\.(ff_layer\..*)")
        renamed = {}
        for name, tensor in tensors.items():
            if name.startswith("wav_encoder.encoder.model.model."):
                name = name.replace("encoder.model.model.", "encoder.layers.", 1)
                name = name.replace(".conv.conv.", ".conv.")
                name = name.replace(".weight_g", ".parametrizations.weight.original0")
                name = name.replace(".weight_v", ".parametrizations.weight.original1")
            renamed[name] = tensor
        return renamed

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        chunks = [chunk for chunk in waveforms.split(CHUNK, dim=1) if chunk.shape[1] > SHORTEST]
        attended = min(waveforms.shape[1], CHUNK) // FRAME
        outputs = [self._encode(chunk, attended, layers) for chunk in chunks]
        return {layer: torch.cat([output[layer] for output in outputs], dim=1) for layer in layers}

    def _encode(
        self, chunk: torch.Tensor, attended: int, layers: Collection[str]
    ) -> dict[str, torch.Tensor]:
        """Activations of one chunk of at most 4 s, keys limited to ``attended`` frames."""
        frames = self.network["wav_encoder"]["post_net"](self._frames(chunk))
        coded = self.network["masker"]["positional_encoder"](frames)
        keys = None
        if frames.shape[1] > attended:
            keys = (torch.arange(frames.shape[1], device=frames.device) < attended)[None]
        encoder = self.network["visible_encoder"]
        last_block = self.n_layers - 1
        deepest = max(int(layer.split("_")[1]) for layer in layers)
        outputs = {}
        for index, (left, right) in enumerate(islice(encoder.streams(coded, keys), deepest + 1)):
            outputs[f"layer_{index}"] = left
            if index == last_block:
                outputs[f"layer_{index}_left"] = left
                outputs[f"layer_{index}"] = left + encoder["final_norm"](right)
            outputs = {layer: outputs[layer] for layer in outputs.keys() & set(layers)}
        return outputs

    def _frames(self, chunk: torch.Tensor) -> torch.Tensor:
        """Input of the projection, shape (batch, frame, value)."""
        if self.front_end == "encodec":
            encoder = self.network["wav_encoder"]["encoder"]
            return encoder(chunk[:, None]).transpose(1, 2)
        return self._spectrogram(chunk)

    @property
    def _spectrogram(self) -> NormalisedSpectrogram:
        wav_encoder = self.network["wav_encoder"]
        if "spectrogram" not in wav_encoder:
            raise WeightsError(
                f"{self.card.name}: how its spectrogram is computed stands in its published "
                "checkpoint and nowhere else. Load it with checkpoint=<the .pt file>."
            )
        return wav_encoder["spectrogram"]

    def _frame_grid(self, layer: str) -> tuple[float, float]:
        """Frames within a chunk.

        A frame of EnCodec is placed in the middle of its 320 samples: its receptive field ends
        with them and reaches back without limit (LSTM).
        """
        shift, length = self._framing
        return shift / self.sample_rate, length / 2 / self.sample_rate

    @property
    def _framing(self) -> tuple[int, int]:
        """Samples between frames, and per frame."""
        if self.front_end == "encodec":
            return FRAME, FRAME
        spectrogram = self._spectrogram.spectrogram
        return spectrogram.frame_shift, spectrogram.frame_length

    def frame_times(self, layer: str, n_frames: int) -> torch.Tensor:
        """Centre of each frame in seconds from the start of the sound, shape (n_frames,).

        Every chunk of 4 s starts anew, so frames are not equally spaced across its end.
        """
        shift, length = self._framing
        frames_per_chunk = 1 + (CHUNK - length) // shift
        within = super().frame_times(layer, frames_per_chunk)
        index = torch.arange(n_frames)
        chunk = index // frames_per_chunk
        return chunk * (CHUNK / self.sample_rate) + within[index % frames_per_chunk]


def _last_binding(text: str, name: str) -> str | None:
    """Last value that a gin text gives to a name, as text; None where there is none."""
    values = re.findall(rf"^[ \t]*(?:[\w./]+\.)?{name}[ \t]*=[ \t]*([^#\n]+)", text, re.MULTILINE)
    return values[-1].strip() if values else None
