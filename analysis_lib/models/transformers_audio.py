"""AST, wav2vec 2.0 and Speech2Text: networks of the transformers library.

Each class builds the network from the dimensions of the published model, so that a checkpoint is
all that is needed, and names the layers as Tuckute et al. (2023) did. Any other audio encoder of
the library is loaded by :mod:`analysis_lib.models.huggingface`.
"""

import re
import warnings

import numpy as np
import torch
from torch import nn

from ..errors import AudioNotice
from .audio_model import AudioModel
from .cards import ModelCard
from .frontends import KaldiSpectrogram
from .taps import run_tapped, stacked_grid

__all__ = ["AST", "Speech2Text", "Wav2Vec2"]

FRAME, HOP = 400, 160  # samples of the Kaldi windows at 16 kHz: 25 ms every 10 ms


class AST(AudioModel):
    """Audio Spectrogram Transformer (Gong et al. 2021), fine-tuned on AudioSet.

    The network sees 10.24 s: shorter sounds are followed by zeros, of longer ones only the
    beginning counts (with an :class:`~analysis_lib.errors.AudioNotice`). Its 1212 patches are 101
    columns in time by 12 in frequency.

    ``Embedding`` is the patch convolution, averaged over frequency. ``Encoder_i`` is the output
    of the ``i``-th feed-forward part before its residual connection. The two tokens that have no
    place in time are shared out evenly over the columns, so that the mean over frames is the mean
    over all 1214 tokens, which is what Tuckute et al. (2023) scored. ``Final`` are the 527 class
    scores.
    """

    min_samples = FRAME
    n_frames, n_mels, patch, stride = 1024, 128, 16, 10
    mean, std = -4.2677393, 4.5689974  # of the log spectrograms of AudioSet

    def __init__(self, card: ModelCard):
        from transformers import ASTConfig, ASTForAudioClassification

        super().__init__(card)
        self.network = ASTForAudioClassification(
            ASTConfig(num_labels=527, num_mel_bins=self.n_mels, max_length=self.n_frames)
        )
        self.network.spectrogram = KaldiSpectrogram(
            card.sample_rate, FRAME, HOP, self.n_mels, window="hanning"
        )
        self.max_samples = FRAME + (self.n_frames - 1) * HOP

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log spectrogram, padded and standardised, shape (batch, 1024 frames, 128 mels)."""
        if waveforms.shape[1] > self.max_samples:
            warnings.warn(
                AudioNotice(
                    f"{self.card.name} sees the first 10.24 s of a sound; "
                    f"{waveforms.shape[1] / self.sample_rate:.1f} s were given"
                ),
                stacklevel=2,
            )
        log = self.network.spectrogram(waveforms[:, : self.max_samples])
        padded = nn.functional.pad(log, (0, 0, 0, self.n_frames - log.shape[1]))
        return (padded - self.mean) / (2 * self.std)

    def _forward(self, waveforms, layers):
        encoder = self.network.audio_spectrogram_transformer
        modules = {
            "Embedding": encoder.embeddings.patch_embeddings.projection,
            **{f"Encoder_{i}": block.mlp.fc2 for i, block in enumerate(encoder.layers, start=1)},
            "Final": self.network.classifier,
        }
        spectrogram = self.log_mel(waveforms)
        taken = run_tapped(
            lambda: self.network(spectrogram), {layer: modules[layer] for layer in layers}
        )
        return {layer: self._frames(layer, taken[layer]) for layer in layers}

    def _frames(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        if layer == "Final":
            return x[:, None]
        if layer == "Embedding":  # (batch, unit, frequency, time)
            return x.mean(dim=2).transpose(1, 2)
        n_columns = (self.n_frames - self.patch) // self.stride + 1
        timeless, patches = x[:, :2].sum(dim=1, keepdim=True), x[:, 2:]
        columns = patches.unflatten(1, (-1, n_columns)).sum(dim=1)
        return (columns + timeless / n_columns) * (n_columns / x.shape[1])

    def _frame_grid(self, layer):
        if layer == "Final":
            return None
        step, first = stacked_grid([(FRAME, HOP, 0), (self.patch, self.stride, 0)])
        return step / self.sample_rate, first / self.sample_rate

    def from_published(self, tensors):
        """Follow the library's renaming of the Hub's tensors."""
        return {_ast_name(name): tensor for name, tensor in tensors.items()}


# What the Hub's file calls a part, and what the library does.
_AST_PARTS = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def _ast_name(name: str) -> str:
    found = re.fullmatch(r"(.+)\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
    if not found:
        return name
    head, index, part, kind = found.groups()
    return f"{head}.layers.{index}.{_AST_PARTS.get(part, part)}.{kind}"


class Wav2Vec2(AudioModel):
    """wav2vec 2.0 base (Baevski et al. 2020), fine-tuned for speech recognition.

    ``Embedding`` is the input of the first transformer layer, ``Encoder_i`` the output of the
    ``i``-th. Each sound is standardised as a whole.
    """

    min_samples = FRAME
    unused_tensors = (r"lm_head\..*", r"wav2vec2\.masked_spec_embed")

    def __init__(self, card: ModelCard):
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        super().__init__(card)
        # Without masking in training there is no tensor for masked frames.
        config = Wav2Vec2Config(mask_time_prob=0.0)
        self.network = nn.ModuleDict({"wav2vec2": Wav2Vec2Model(config)})
        self._convolutions = [
            (kernel, stride, 0)
            for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True)
        ]

    def _forward(self, waveforms, layers):
        model = self.network["wav2vec2"]
        modules = {"Embedding": model.encoder.dropout} | {
            f"Encoder_{i}": block for i, block in enumerate(model.encoder.layers, start=1)
        }
        x = standardised(waveforms)
        return run_tapped(lambda: model(x), {layer: modules[layer] for layer in layers})

    def _frame_grid(self, layer):
        step, first = stacked_grid(self._convolutions)
        return step / self.sample_rate, first / self.sample_rate

    def from_published(self, tensors):
        """Follow the library's renaming of the weight-normalised positional convolution."""
        current = {"weight_g": "original0", "weight_v": "original1"}
        return {
            re.sub(
                r"(?<=pos_conv_embed\.conv\.)weight_[gv]$",
                lambda found: f"parametrizations.weight.{current[found[0]]}",
                name,
            ): tensor
            for name, tensor in tensors.items()
        }


class Speech2Text(AudioModel):
    """Encoder of the large Speech2Text model for LibriSpeech (Wang et al. 2020).

    ``Embedding`` is the input of the first transformer layer (convolutions, scaled, plus
    positions), ``Encoder_i`` the output of the ``i``-th; ``Encoder_12`` includes the final layer
    norm. Each mel band of each sound is standardised over the whole sound.
    """

    min_samples = FRAME + HOP  # two frames: one alone has no variance
    unused_tensors = (
        r"model\.decoder\..*",
        r"lm_head\.weight",
        r"model\.encoder\.embed_positions\.weights",
    )
    n_mels = 80

    def __init__(self, card: ModelCard):
        from transformers import Speech2TextConfig
        from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder

        super().__init__(card)
        self._config = Speech2TextConfig(
            d_model=1024, encoder_layers=12, encoder_attention_heads=16, encoder_ffn_dim=4096,
            conv_channels=1024, input_feat_per_channel=self.n_mels,
        )  # fmt: skip
        encoder = Speech2TextEncoder(self._config)
        self.network = nn.ModuleDict({"model": nn.ModuleDict({"encoder": encoder})})
        self.network.spectrogram = KaldiSpectrogram(card.sample_rate, FRAME, HOP, self.n_mels)

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Standardised log spectrogram, shape (batch, frame, 80 mels)."""
        from transformers import Speech2TextFeatureExtractor

        # Near-empty bands are the difference of large numbers: in double where there is one.
        precise = waveforms if waveforms.device.type == "mps" else waveforms.double()
        log = self.network.spectrogram(precise * 2**15)  # 16-bit full scale, as in Kaldi
        # The library's own standardisation: its mean carries the rounding of a float32 sum,
        # which the scaled embedding makes visible.
        rows = [
            Speech2TextFeatureExtractor.utterance_cmvn(sound, len(sound))
            for sound in log.float().cpu().numpy()
        ]
        return torch.tensor(np.stack(rows), device=waveforms.device)

    def _forward(self, waveforms, layers):
        encoder = self.network["model"]["encoder"]
        *earlier, _ = encoder.layers
        modules = {f"Encoder_{i}": block for i, block in enumerate(earlier, start=1)}
        modules[f"Encoder_{len(encoder.layers)}"] = encoder.layer_norm
        x = self.log_mel(waveforms)
        return run_tapped(
            lambda: encoder(x),
            outputs={layer: modules[layer] for layer in layers if layer in modules},
            inputs={layer: encoder.layers[0] for layer in layers if layer == "Embedding"},
        )

    def _frame_grid(self, layer):
        convolutions = [(kernel, 2, kernel // 2) for kernel in self._config.conv_kernel_sizes]
        step, first = stacked_grid([(FRAME, HOP, 0), *convolutions])
        return step / self.sample_rate, first / self.sample_rate


def standardised(waveforms: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over each whole sound, as wav2vec 2.0 wants it.

    Parameters
    ----------
    waveforms : tensor of shape (batch, time)
        Complete sounds, no padding.
    """
    centred = waveforms - waveforms.mean(dim=1, keepdim=True)
    return centred / (waveforms.var(dim=1, correction=0, keepdim=True) + 1e-7).sqrt()
