"""The audio encoders of the transformers library that we know, by the model type they are saved as.

Read from the library's modelling code; the tests compare every row with the library.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType

import torch

from .encoders import CODEC, Encoder, Stages, no_convolutions, waveform_convolutions

__all__ = ["ENCODERS"]


def _channels_last(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    return values.transpose(1, 2)


def _mimi_frames(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    """Channels last; the transformer between the convolutions has them there already."""
    index = int(layer.rpartition("_")[2]) if layer != "Embedding" else 0
    first = len(config.upsampling_ratios) + 2
    within = first <= index < first + config.num_hidden_layers
    return values if within else values.transpose(1, 2)


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


def _parakeet_convolutions(config) -> Stages:
    kernel = config.subsampling_conv_kernel_size
    return [(kernel, 2, (kernel - 1) // 2)] * (config.subsampling_factor.bit_length() - 1)


def _squeezed(config) -> Stages:
    return [*waveform_convolutions(config), (config.squeeze_factor, config.squeeze_factor, 0)]


def _halved(config) -> Stages:
    return [(2, 2, 0)]


def _from_config(**attributes: str) -> Callable:
    """Take settings of an extractor from attributes (with dots: of parts) of a configuration."""
    return lambda config: {name: attrgetter(path)(config) for name, path in attributes.items()}


def _encoder(model_type: str, class_name: str, extractor: str = "Wav2Vec2", **more) -> Encoder:
    """Row of the table: where the library keeps things follows from the model type."""
    module = f"{model_type}.modeling_{model_type}"
    return Encoder(module, class_name, f"{extractor}FeatureExtractor", **more)


_MASKED = ("input_features", "attention_mask")
_MEL_BINS = _from_config(feature_size="num_mel_bins")


def _whisper_like(model_type: str, class_name: str, **more) -> Encoder:
    """Thirty seconds of log-mel, and two convolutions of which the second halves the rate."""
    settings = {
        "extractor_settings": _MEL_BINS,
        "blocks": "layers",
        "convolutions": lambda config: [(3, 1, 1), (3, 2, 1)],
        "accepted": ("input_features",),
        "window": _whisper_window,
    }
    return _encoder(model_type, class_name, "Whisper", **settings | more)


def _seamless(model_type: str, class_name: str, **more) -> Encoder:
    """Pairs of log-mel frames, stacked by the extractor."""
    return _encoder(
        model_type,
        class_name,
        "SeamlessM4T",
        extractor_settings=lambda config: dict.fromkeys(
            ("feature_size", "num_mel_bins"), config.feature_projection_input_dim // 2
        ),
        convolutions=no_convolutions,
        accepted=_MASKED,
        **more,
    )


_ENCODERS = {
    "wav2vec2": _encoder("wav2vec2", "Wav2Vec2Model"),
    "hubert": _encoder("hubert", "HubertModel"),
    "wavlm": _encoder("wavlm", "WavLMModel"),
    "unispeech": _encoder("unispeech", "UniSpeechModel"),
    "unispeech-sat": _encoder("unispeech_sat", "UniSpeechSatModel"),
    "data2vec-audio": Encoder("data2vec.modeling_data2vec_audio", "Data2VecAudioModel"),
    "wav2vec2-conformer": _encoder("wav2vec2_conformer", "Wav2Vec2ConformerModel"),
    "sew": _encoder("sew", "SEWModel", convolutions=_squeezed),
    "sew-d": _encoder("sew_d", "SEWDModel", convolutions=_squeezed, blocks="encoder.encoder.layer"),
    "speecht5": _encoder(
        "speecht5", "SpeechT5EncoderWithSpeechPrenet", "SpeechT5", blocks="wrapped_encoder.layers"
    ),
    "moonshine": _encoder(
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
    "qwen2_audio": _whisper_like("qwen2_audio", "Qwen2AudioEncoder", last_stages=_halved),
    "audioflamingo3": _whisper_like(
        "audioflamingo3",
        "AudioFlamingo3Encoder",
        last_stages=_halved,
        extractor_arguments=MappingProxyType({"return_attention_mask": True}),
        accepted=_MASKED,
        renamed=MappingProxyType({"attention_mask": "input_features_mask"}),
    ),
    "voxtral": _whisper_like("voxtral", "VoxtralEncoder"),
    "glmasr": _whisper_like("glmasr", "GlmAsrEncoder"),
    "audio-spectrogram-transformer": _encoder(
        "audio_spectrogram_transformer",
        "ASTModel",
        "AST",
        extractor_settings=_from_config(num_mel_bins="num_mel_bins", max_length="max_length"),
        blocks="layers",
        convolutions=lambda config: [(config.patch_size, config.time_stride, 0)],
        frames=_ast_frames,
        window=_ast_window,
    ),
    "speech_to_text": _encoder(
        "speech_to_text",
        "Speech2TextEncoder",
        "Speech2Text",
        extractor_settings=_from_config(
            feature_size="input_feat_per_channel", num_mel_bins="input_feat_per_channel"
        ),
        blocks="layers",
        convolutions=lambda config: [(k, 2, k // 2) for k in config.conv_kernel_sizes],
        accepted=_MASKED,
    ),
    "clap": _encoder(
        "clap",
        "ClapAudioModel",
        "Clap",
        extractor_settings=_MEL_BINS,
        extractor_arguments=MappingProxyType({"truncation": "rand_trunc"}),  # windows never exceed
        blocks="audio_encoder.layers",
        convolutions=no_convolutions,
        accepted=("input_features", "is_longer"),
        frames=_clap_frames,
        window=lambda config, extractor: (extractor.nb_max_samples, 1),
    ),
    "parakeet_ctc": _encoder(
        "parakeet",
        "ParakeetEncoder",
        "Parakeet",
        extractor_settings=_MEL_BINS,
        blocks="layers",
        convolutions=_parakeet_convolutions,
        accepted=_MASKED,
    ),
    "lasr_ctc": _encoder(
        "lasr",
        "LasrEncoder",
        "Lasr",
        extractor_settings=_MEL_BINS,
        blocks="layers",
        convolutions=lambda config: (
            [(config.subsampling_conv_kernel_size, config.subsampling_conv_stride, 0)] * 2
        ),
        accepted=_MASKED,
    ),
    "pe_audio": _encoder(
        "pe_audio",
        "PeAudioEncoder",
        "PeAudio",
        extractor_settings=_from_config(
            sampling_rate="dac_config.sampling_rate", hop_length="dac_config.hop_length"
        ),
        blocks="layers",
        convolutions=lambda config: _dac_stages(config.dac_config),
        frames=_without_class_token,
    ),
    "encodec": _encoder(
        "encodec",
        "EncodecModel",
        "Encodec",
        extractor_settings=_from_config(
            feature_size="audio_channels", sampling_rate="sampling_rate"
        ),
        kind=CODEC,
        parts=("encoder",),
        frames=_channels_last,
    ),
    "mimi": _encoder(
        "mimi",
        "MimiEncoderModel",
        "Encodec",
        extractor_settings=_from_config(sampling_rate="sampling_rate"),
        kind=CODEC,
        parts=("encoder_seanet", "encoder_transformer", "downsample"),
        frames=_mimi_frames,
    ),
    "dac": _encoder(
        "dac",
        "DacModel",
        "Dac",
        extractor_settings=_from_config(sampling_rate="sampling_rate", hop_length="hop_length"),
        kind=CODEC,
        parts=("encoder",),
        frames=_channels_last,
    ),
    "xcodec": _encoder(
        "xcodec",
        "XcodecModel",
        "Dac",
        extractor_settings=_from_config(sampling_rate="sample_rate", hop_length="hop_length"),
        kind=CODEC,
        parts=("acoustic_encoder",),
        frames=_channels_last,
    ),
}
# Encoders saved by themselves carry a model type of their own.
_SAVED_ALONE = {
    "qwen2_audio_encoder": "qwen2_audio",
    "audioflamingo3_encoder": "audioflamingo3",
    "voxtral_encoder": "voxtral",
    "glmasr_encoder": "glmasr",
    "clap_audio_model": "clap",
    "parakeet_encoder": "parakeet_ctc",
    "lasr_encoder": "lasr_ctc",
    "pe_audio_encoder": "pe_audio",
}
# Configuration's model type: encoder.
ENCODERS: Mapping[str, Encoder] = MappingProxyType(
    _ENCODERS | {alone: _ENCODERS[whole] for alone, whole in _SAVED_ALONE.items()}
)
