"""Audio encoders of the transformers library: classes, inputs, and where frames lie in time.

One row per architecture. Distances are in samples at the model's rate; a stage is a convolution
``(kernel, stride, padding at the start)`` along time, the feature extractor's windows included.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

import torch
from torch import nn

from .taps import stacked_grid

__all__ = ["CODEC", "ENCODERS", "Encoder"]

Stages = list[tuple[int, int, int]]
TRANSFORMER, CODEC = "transformer", "codec"


def _waveform_convolutions(config) -> Stages:
    """Convolutions of the wav2vec 2.0 family on the waveform."""
    return [(k, s, 0) for k, s in zip(config.conv_kernel, config.conv_stride, strict=True)]


def _no_convolutions(config) -> Stages:
    return []


def _same(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    return values


@dataclass(frozen=True)
class Encoder:
    """How to run one architecture.

    Attributes
    ----------
    module, class_name : str
        Where transformers keeps the encoder's class.
    extractor : str
        Class of the default feature extractor.
    blocks : str
        Attribute path of the list of blocks.
    convolutions : callable
        Stages of the network for a configuration.
    last_stages : callable
        Further stages between the last block and the last hidden state.
    extractor_settings : callable
        Arguments of the default extractor for a configuration.
    extractor_arguments : mapping
        Arguments of each call of the extractor.
    accepted : tuple of str
        What of the extractor's output the network takes.
    frames : callable
        Brings a hidden state to (batch, frame, *units).
    window : callable
        Number of samples and frames of a network with a fixed length, or None.
    kind : {"transformer", "codec"}
        Whether hidden states are given by the network or taken at its blocks.
    parts : tuple of str
        Parts of a codec that make its encoder.
    """

    module: str
    class_name: str
    extractor: str = "Wav2Vec2FeatureExtractor"
    blocks: str = "encoder.layers"
    convolutions: Callable = _waveform_convolutions
    last_stages: Callable = _no_convolutions
    extractor_settings: Callable = lambda config: {}
    extractor_arguments: Mapping = field(default_factory=lambda: MappingProxyType({}))
    accepted: tuple[str, ...] = ("input_values",)
    frames: Callable = _same
    window: Callable = lambda config, extractor: None
    kind: str = TRANSFORMER
    parts: tuple[str, ...] = ()

    def load_module(self):
        """Module of transformers with the architecture's classes."""
        return import_module(f"transformers.models.{self.module}")

    def default_extractor(self, config):
        """Feature extractor for a model that was saved without one."""
        import transformers

        return getattr(transformers, self.extractor)(**self.extractor_settings(config))

    def kept(self, model: nn.Module) -> nn.Module:
        """Part of a model that its layers depend on."""
        if self.kind == TRANSFORMER:
            return model
        return nn.ModuleDict({part: getattr(model, part) for part in self.parts})

    def run(self, parts: nn.ModuleDict, waveforms: torch.Tensor) -> torch.Tensor:
        """Run a codec's encoder."""
        first, *rest = self.parts
        x = parts[first](waveforms)
        for part in rest:
            x = parts[part](x.transpose(1, 2))
        return x

    def layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """Layer names of an encoder and, of a codec, the modules whose output they are."""
        if self.kind == CODEC:
            modules = [m for part in self.parts for m in _codec_blocks(getattr_path(model, part))]
        else:
            modules = [None, *getattr_path(model, self.blocks)]
        return {f"Encoder_{i}" if i else "Embedding": m for i, m in enumerate(modules)}

    def stages(self, config, extractor) -> Stages:
        """Stages up to the first hidden state, feature extractor first."""
        return extractor_stages(extractor) + self.convolutions(config)

    def grids(self, model, config, stages: Stages) -> dict[str, tuple[float, float]]:
        """Samples between frames and centre of the first frame, of each layer."""
        names = [*self.layers(model)]
        if self.kind == CODEC:
            grids, step, first = {}, 1.0, 0.0
            for name, module in self.layers(model).items():
                step, first = stacked_grid(_codec_stages(module), step, first)
                grids[name] = step, first
            return grids
        grid = stacked_grid(stages)
        grids = dict.fromkeys(names, grid)
        grids[names[-1]] = stacked_grid(self.last_stages(config), *grid)
        return grids


def getattr_path(model: nn.Module, path: str) -> nn.Module:
    """Part of a module or ModuleDict, by its dotted path."""
    return model.get_submodule(path)


def extractor_stages(extractor) -> Stages:
    """Stages of a feature extractor; none for those that keep the waveform."""
    kind = type(extractor).__name__
    if kind in ("ASTFeatureExtractor", "Speech2TextFeatureExtractor"):
        return [(400, 160, 0)]
    if kind == "SeamlessM4TFeatureExtractor":
        return [(400, 160, 0), (extractor.stride, extractor.stride, 0)]
    if kind == "LasrFeatureExtractor":
        return [(extractor.win_length, extractor.hop_length, 0)]
    if kind in ("WhisperFeatureExtractor", "ParakeetFeatureExtractor"):
        return [(1, extractor.hop_length, 0)]  # windows are centred on multiples of the hop
    if kind == "ClapFeatureExtractor":
        n_samples = extractor.nb_max_samples
        return [(n_samples, n_samples, 0)]
    return []


def _codec_blocks(encoder: nn.Module) -> list[nn.Module]:
    """First convolution, downsampling blocks and last convolution of a codec's encoder."""
    if hasattr(encoder, "block"):  # DAC
        return [encoder.conv1, *encoder.block, encoder.conv2]
    convolutions = [layer for layer in encoder.layers if hasattr(layer, "conv")]
    return convolutions or [*encoder.layers]


def _codec_stages(block: nn.Module) -> Stages:
    """Stage of a codec's block along its main path; residual units keep frames in place."""
    if hasattr(block, "self_attn"):
        return []
    convolution = getattr(block, "conv", None) or getattr(block, "conv1", None) or block
    (kernel,), (stride,) = convolution.kernel_size, convolution.stride
    if not hasattr(block, "causal"):
        return [(kernel, stride, convolution.padding[0])]
    total = kernel - stride
    return [(kernel, stride, total if block.causal else total - total // 2)]


def _channels_last(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    return values.transpose(1, 2)


def _mimi_frames(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    n_convolutional = len(config.upsampling_ratios) + 2
    index = int(layer.rpartition("_")[2]) if layer != "Embedding" else 0
    return values.transpose(1, 2) if index < n_convolutional else values


def _ast_frames(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    """Mean over frequency of the patches; the two leading tokens have no place in time."""
    n_columns = (config.max_length - config.patch_size) // config.time_stride + 1
    return values[:, 2:].unflatten(1, (-1, n_columns)).mean(dim=1)


def _ast_window(config, extractor) -> tuple[int, int]:
    n_columns = (config.max_length - config.patch_size) // config.time_stride + 1
    return 400 + 160 * (config.max_length - 1), n_columns


def _clap_frames(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    """Mean over all patches: the network folds time into frequency."""
    return values.flatten(2).mean(dim=2)[:, None]


def _whisper_window(config, extractor) -> tuple[int, int]:
    return extractor.n_samples, extractor.n_samples // extractor.hop_length // 2


def _without_class_token(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    """Leave out the leading class token; the last hidden state comes without it."""
    return values if layer == f"Encoder_{config.num_hidden_layers}" else values[:, 1:]


def _seamless_adapter(config) -> Stages:
    if not config.add_adapter:
        return []
    stage = (config.adaptor_kernel_size, config.adaptor_stride, config.adaptor_stride // 2)
    return [stage] * config.num_adapter_layers


def _dac_stages(config) -> Stages:
    return [(7, 1, 3), *((2 * s, s, -(-s // 2)) for s in config.downsampling_ratios), (3, 1, 1)]


def _wav2vec2(module: str, name: str, **more) -> Encoder:
    return Encoder(f"{module}.modeling_{module}", name, **more)


def _squeezed(config) -> Stages:
    return [*_waveform_convolutions(config), (config.squeeze_factor, config.squeeze_factor, 0)]


def _whisper_like(module: str, name: str, mels: str = "num_mel_bins", **more) -> Encoder:
    """Thirty seconds of log-mel, and two convolutions of which the second halves the rate."""
    return Encoder(
        f"{module}.modeling_{module}",
        name,
        extractor="WhisperFeatureExtractor",
        extractor_settings=lambda config: {"feature_size": getattr(config, mels)},
        blocks="layers",
        convolutions=lambda config: [(3, 1, 1), (3, 2, 1)],
        accepted=("input_features",),
        window=_whisper_window,
        **more,
    )


def _seamless(module: str, name: str, **more) -> Encoder:
    return Encoder(
        f"{module}.modeling_{module}",
        name,
        extractor="SeamlessM4TFeatureExtractor",
        extractor_settings=lambda config: {
            "feature_size": config.feature_projection_input_dim // 2,
            "num_mel_bins": config.feature_projection_input_dim // 2,
        },
        convolutions=_no_convolutions,
        accepted=("input_features", "attention_mask"),
        **more,
    )


_PARAKEET = Encoder(
    "parakeet.modeling_parakeet",
    "ParakeetEncoder",
    extractor="ParakeetFeatureExtractor",
    extractor_settings=lambda config: {"feature_size": config.num_mel_bins},
    blocks="layers",
    convolutions=lambda config: (
        [(config.subsampling_conv_kernel_size, 2, (config.subsampling_conv_kernel_size - 1) // 2)]
        * (config.subsampling_factor.bit_length() - 1)
    ),
    accepted=("input_features", "attention_mask"),
)
_LASR = Encoder(
    "lasr.modeling_lasr",
    "LasrEncoder",
    extractor="LasrFeatureExtractor",
    extractor_settings=lambda config: {"feature_size": config.num_mel_bins},
    blocks="layers",
    convolutions=lambda config: (
        [(config.subsampling_conv_kernel_size, config.subsampling_conv_stride, 0)] * 2
    ),
    accepted=("input_features", "attention_mask"),
)
_PE_AUDIO = Encoder(
    "pe_audio.modeling_pe_audio",
    "PeAudioEncoder",
    extractor="PeAudioFeatureExtractor",
    extractor_settings=lambda config: {
        "sampling_rate": config.dac_config.sampling_rate,
        "hop_length": config.dac_config.hop_length,
    },
    blocks="layers",
    convolutions=lambda config: _dac_stages(config.dac_config),
    frames=_without_class_token,
)
_CLAP = Encoder(
    "clap.modeling_clap",
    "ClapAudioModel",
    extractor="ClapFeatureExtractor",
    extractor_settings=lambda config: {"feature_size": config.num_mel_bins},
    extractor_arguments=MappingProxyType({"truncation": "rand_trunc"}),  # windows never exceed
    blocks="audio_encoder.layers",
    convolutions=_no_convolutions,
    accepted=("input_features", "is_longer"),
    frames=_clap_frames,
    window=lambda config, extractor: (extractor.nb_max_samples, 1),
)
_QWEN2 = _whisper_like(
    "qwen2_audio", "Qwen2AudioEncoder", last_stages=lambda config: [(2, 2, 0)]
)
_FLAMINGO = _whisper_like(
    "audioflamingo3", "AudioFlamingo3Encoder", last_stages=lambda config: [(2, 2, 0)]
)
_VOXTRAL = _whisper_like("voxtral", "VoxtralEncoder")
_GLM = _whisper_like("glmasr", "GlmAsrEncoder")

# Configuration's model type: encoder.
ENCODERS: Mapping[str, Encoder] = MappingProxyType(
    {
        "wav2vec2": _wav2vec2("wav2vec2", "Wav2Vec2Model"),
        "hubert": _wav2vec2("hubert", "HubertModel"),
        "wavlm": _wav2vec2("wavlm", "WavLMModel"),
        "unispeech": _wav2vec2("unispeech", "UniSpeechModel"),
        "unispeech-sat": _wav2vec2("unispeech_sat", "UniSpeechSatModel"),
        "data2vec-audio": Encoder("data2vec.modeling_data2vec_audio", "Data2VecAudioModel"),
        "wav2vec2-conformer": _wav2vec2("wav2vec2_conformer", "Wav2Vec2ConformerModel"),
        "sew": _wav2vec2("sew", "SEWModel", convolutions=_squeezed),
        "sew-d": _wav2vec2(
            "sew_d", "SEWDModel", convolutions=_squeezed, blocks="encoder.encoder.layer"
        ),
        "speecht5": _wav2vec2(
            "speecht5",
            "SpeechT5EncoderWithSpeechPrenet",
            extractor="SpeechT5FeatureExtractor",
            blocks="wrapped_encoder.layers",
        ),
        "moonshine": _wav2vec2(
            "moonshine",
            "MoonshineEncoder",
            extractor_settings=lambda config: {"do_normalize": False},
            blocks="layers",
            convolutions=lambda config: [(127, 64, 0), (7, 3, 0), (3, 2, 0)],
        ),
        "wav2vec2-bert": _seamless("wav2vec2_bert", "Wav2Vec2BertModel"),
        "seamless_m4t": _seamless(
            "seamless_m4t", "SeamlessM4TSpeechEncoder", last_stages=_seamless_adapter
        ),
        "seamless_m4t_v2": _seamless(
            "seamless_m4t_v2", "SeamlessM4Tv2SpeechEncoder", last_stages=_seamless_adapter
        ),
        "whisper": _whisper_like("whisper", "WhisperEncoder"),
        "qwen2_audio": _QWEN2,
        "qwen2_audio_encoder": _QWEN2,
        "audioflamingo3": _FLAMINGO,
        "audioflamingo3_encoder": _FLAMINGO,
        "voxtral": _VOXTRAL,
        "voxtral_encoder": _VOXTRAL,
        "glmasr": _GLM,
        "glmasr_encoder": _GLM,
        "audio-spectrogram-transformer": Encoder(
            "audio_spectrogram_transformer.modeling_audio_spectrogram_transformer",
            "ASTModel",
            extractor="ASTFeatureExtractor",
            extractor_settings=lambda config: {
                "num_mel_bins": config.num_mel_bins,
                "max_length": config.max_length,
            },
            blocks="layers",
            convolutions=lambda config: [(config.patch_size, config.time_stride, 0)],
            frames=_ast_frames,
            window=_ast_window,
        ),
        "speech_to_text": Encoder(
            "speech_to_text.modeling_speech_to_text",
            "Speech2TextEncoder",
            extractor="Speech2TextFeatureExtractor",
            extractor_settings=lambda config: {
                "feature_size": config.input_feat_per_channel,
                "num_mel_bins": config.input_feat_per_channel,
            },
            blocks="layers",
            convolutions=lambda config: [(k, 2, k // 2) for k in config.conv_kernel_sizes],
            accepted=("input_features", "attention_mask"),
        ),
        "clap": _CLAP,
        "clap_audio_model": _CLAP,
        "parakeet_ctc": _PARAKEET,
        "parakeet_encoder": _PARAKEET,
        "lasr_ctc": _LASR,
        "lasr_encoder": _LASR,
        "pe_audio": _PE_AUDIO,
        "pe_audio_encoder": _PE_AUDIO,
        "encodec": Encoder(
            "encodec.modeling_encodec",
            "EncodecModel",
            extractor="EncodecFeatureExtractor",
            extractor_settings=lambda config: {
                "feature_size": config.audio_channels,
                "sampling_rate": config.sampling_rate,
            },
            kind=CODEC,
            parts=("encoder",),
            frames=_channels_last,
        ),
        "mimi": Encoder(
            "mimi.modeling_mimi",
            "MimiModel",
            extractor="EncodecFeatureExtractor",
            extractor_settings=lambda config: {"sampling_rate": config.sampling_rate},
            kind=CODEC,
            parts=("encoder", "encoder_transformer"),
            frames=_mimi_frames,
        ),
        "dac": Encoder(
            "dac.modeling_dac",
            "DacModel",
            extractor="DacFeatureExtractor",
            extractor_settings=lambda config: {
                "sampling_rate": config.sampling_rate,
                "hop_length": config.hop_length,
            },
            kind=CODEC,
            parts=("encoder",),
            frames=_channels_last,
        ),
        "xcodec": Encoder(
            "xcodec.modeling_xcodec",
            "XcodecModel",
            extractor="DacFeatureExtractor",
            extractor_settings=lambda config: {
                "sampling_rate": config.sample_rate,
                "hop_length": config.hop_length,
            },
            kind=CODEC,
            parts=("acoustic_encoder",),
            frames=_channels_last,
        ),
    }
)
