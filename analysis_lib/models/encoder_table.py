"""The audio encoders of the transformers library that we know, by the model type they are saved as.

Read from the library's modelling code; the tests compare every row with the library.
"""

from collections.abc import Mapping
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


def _wav2vec2(module: str, name: str, **more) -> Encoder:
    return Encoder(f"{module}.modeling_{module}", name, **more)


def _squeezed(config) -> Stages:
    return [*waveform_convolutions(config), (config.squeeze_factor, config.squeeze_factor, 0)]


def _whisper_like(module: str, name: str, **more) -> Encoder:
    """Thirty seconds of log-mel, and two convolutions of which the second halves the rate."""
    settings = {
        "extractor": "WhisperFeatureExtractor",
        "extractor_settings": lambda config: {"feature_size": config.num_mel_bins},
        "blocks": "layers",
        "convolutions": lambda config: [(3, 1, 1), (3, 2, 1)],
        "accepted": ("input_features",),
        "window": _whisper_window,
    }
    return Encoder(f"{module}.modeling_{module}", name, **settings | more)


def _seamless(module: str, name: str, **more) -> Encoder:
    return Encoder(
        f"{module}.modeling_{module}",
        name,
        extractor="SeamlessM4TFeatureExtractor",
        extractor_settings=lambda config: {
            "feature_size": config.feature_projection_input_dim // 2,
            "num_mel_bins": config.feature_projection_input_dim // 2,
        },
        convolutions=no_convolutions,
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
    convolutions=no_convolutions,
    accepted=("input_features", "is_longer"),
    frames=_clap_frames,
    window=lambda config, extractor: (extractor.nb_max_samples, 1),
)
_QWEN2 = _whisper_like("qwen2_audio", "Qwen2AudioEncoder", last_stages=lambda config: [(2, 2, 0)])
_FLAMINGO = _whisper_like(
    "audioflamingo3",
    "AudioFlamingo3Encoder",
    last_stages=lambda config: [(2, 2, 0)],
    extractor_arguments=MappingProxyType({"return_attention_mask": True}),
    accepted=("input_features", "attention_mask"),
    renamed=MappingProxyType({"attention_mask": "input_features_mask"}),
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
            "MimiEncoderModel",
            extractor="EncodecFeatureExtractor",
            extractor_settings=lambda config: {"sampling_rate": config.sampling_rate},
            kind=CODEC,
            parts=("encoder_seanet", "encoder_transformer", "downsample"),
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
