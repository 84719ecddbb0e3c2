"""Every audio encoder of the table, tiny and offline: what we give is what the library gives."""

import json
import re

import golden
import pytest
import torch
import transformers as hf
from published import click_time
from safetensors.torch import load_file, save_file
from transformers.models.audioflamingo3.modeling_audioflamingo3 import AudioFlamingo3Encoder
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder
from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TSpeechEncoder
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import (
    SeamlessM4Tv2SpeechEncoder,
)
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder
from transformers.models.speecht5.modeling_speecht5 import SpeechT5EncoderWithSpeechPrenet
from transformers.models.voxtral.modeling_voxtral import VoxtralEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from analysis_lib import models
from analysis_lib.errors import MissingDataError, ParameterError, UnknownNameError, WeightsError
from analysis_lib.models.encoder_table import ENCODERS

TRANSFORMER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
WAVE = TRANSFORMER | {
    "conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 3), "conv_stride": (5, 4, 4),
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": 8,
    "num_feat_extract_layers": 3,
}  # fmt: skip
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "num_mel_bins": 16,
}  # fmt: skip
AUDIO_LM = TRANSFORMER | {"num_mel_bins": 16, "num_key_value_heads": 2}
SEAMLESS = {
    "hidden_size": 16, "speech_encoder_layers": 2, "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 32, "feature_projection_input_dim": 160,
}  # fmt: skip
DAC = {"encoder_hidden_size": 4, "downsampling_ratios": [2, 4, 5], "decoder_hidden_size": 16,
       "upsampling_ratios": [5, 4, 2], "hidden_size": 16, "n_codebooks": 2, "codebook_size": 8,
       "codebook_dim": 4}  # fmt: skip
SEANET = {"num_filters": 4, "hidden_size": 16, "upsampling_ratios": [5, 4, 4], "codebook_dim": 16,
          "num_residual_layers": 1, "codebook_size": 8}  # fmt: skip

TINY = {
    "wav2vec2": lambda: hf.Wav2Vec2Model(hf.Wav2Vec2Config(**WAVE)),
    "wav2vec2 (layer norm)": lambda: hf.Wav2Vec2Model(
        hf.Wav2Vec2Config(**WAVE, feat_extract_norm="layer", do_stable_layer_norm=True)
    ),
    "wav2vec2 with a head": lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**WAVE)),
    "hubert": lambda: hf.HubertModel(hf.HubertConfig(**WAVE)),
    "wavlm": lambda: hf.WavLMModel(hf.WavLMConfig(**WAVE)),
    "unispeech": lambda: hf.UniSpeechModel(hf.UniSpeechConfig(**WAVE)),
    "unispeech-sat": lambda: hf.UniSpeechSatModel(hf.UniSpeechSatConfig(**WAVE)),
    "data2vec-audio": lambda: hf.Data2VecAudioModel(
        hf.Data2VecAudioConfig(**WAVE, conv_pos_kernel_size=5)
    ),
    "wav2vec2-conformer": lambda: hf.Wav2Vec2ConformerModel(hf.Wav2Vec2ConformerConfig(**WAVE)),
    "sew": lambda: hf.SEWModel(hf.SEWConfig(**WAVE)),
    "sew-d": lambda: hf.SEWDModel(hf.SEWDConfig(**WAVE)),
    "speecht5": lambda: SpeechT5EncoderWithSpeechPrenet(
        hf.SpeechT5Config(
            **{
                k: v
                for k, v in WAVE.items()
                if k
                in (
                    "hidden_size",
                    "conv_dim",
                    "conv_kernel",
                    "conv_stride",
                    "vocab_size",
                    "num_conv_pos_embeddings",
                    "num_conv_pos_embedding_groups",
                    "num_feat_extract_layers",
                )
            },
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
        )
    ),  # fmt: skip
    "moonshine": lambda: MoonshineEncoder(
        hf.MoonshineConfig(
            hidden_size=16,
            intermediate_size=32,
            encoder_num_hidden_layers=2,
            encoder_num_attention_heads=2,
            decoder_num_attention_heads=2,
        )
    ),
    "wav2vec2-bert": lambda: hf.Wav2Vec2BertModel(
        hf.Wav2Vec2BertConfig(**TRANSFORMER, feature_projection_input_dim=160)
    ),
    "seamless_m4t": lambda: SeamlessM4TSpeechEncoder(hf.SeamlessM4TConfig(**SEAMLESS)),
    "seamless_m4t_v2": lambda: SeamlessM4Tv2SpeechEncoder(hf.SeamlessM4Tv2Config(**SEAMLESS)),
    "whisper": lambda: WhisperEncoder(hf.WhisperConfig(**WHISPER)),
    "whisper whole": lambda: hf.WhisperModel(
        hf.WhisperConfig(
            **WHISPER,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=32,
            vocab_size=60,
            pad_token_id=1,
            bos_token_id=1,
            eos_token_id=1,
            decoder_start_token_id=1,
        )
    ),  # fmt: skip
    "qwen2_audio": lambda: Qwen2AudioEncoder(hf.Qwen2AudioEncoderConfig(**WHISPER)),
    "audioflamingo3": lambda: AudioFlamingo3Encoder(hf.AudioFlamingo3EncoderConfig(**AUDIO_LM)),
    "voxtral": lambda: VoxtralEncoder(hf.VoxtralEncoderConfig(**AUDIO_LM)),
    "glmasr": lambda: hf.GlmAsrEncoder(hf.GlmAsrEncoderConfig(**AUDIO_LM)),
    "audio-spectrogram-transformer": lambda: hf.ASTModel(
        hf.ASTConfig(**TRANSFORMER, max_length=128, num_mel_bins=32)
    ),
    "speech_to_text": lambda: Speech2TextEncoder(
        hf.Speech2TextConfig(
            d_model=16,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            conv_channels=16,
            input_feat_per_channel=16,
            max_source_positions=300,
        )
    ),
    "clap": lambda: hf.ClapAudioModel(
        hf.ClapAudioConfig(
            patch_embeds_hidden_size=8,
            hidden_size=16,
            depths=[1, 1],
            num_attention_heads=[2, 2],
            num_hidden_layers=2,
        )
    ),
    "parakeet_encoder": lambda: hf.ParakeetEncoder(
        hf.ParakeetEncoderConfig(
            **TRANSFORMER, num_mel_bins=80, subsampling_conv_channels=4, conv_kernel_size=5
        )
    ),
    "lasr_encoder": lambda: hf.LasrEncoder(
        hf.LasrEncoderConfig(**TRANSFORMER, subsampling_conv_channels=8, conv_kernel_size=5)
    ),
    "pe_audio": lambda: hf.PeAudioEncoder(
        hf.PeAudioEncoderConfig(**TRANSFORMER, num_key_value_heads=2, head_dim=8, dac_config=DAC)
    ),
    "encodec": lambda: hf.EncodecModel(hf.EncodecConfig(**SEANET)),
    "mimi": lambda: hf.MimiModel(
        hf.MimiConfig(**SEANET | TRANSFORMER, num_key_value_heads=2, head_dim=8, upsample_groups=16)
    ),  # fmt: skip
    "dac": lambda: hf.DacModel(hf.DacConfig(**DAC, sampling_rate=16_000)),
    "xcodec": lambda: hf.XcodecModel(
        hf.XcodecConfig(
            acoustic_model_config={"model_type": "dac"} | DAC,
            semantic_model_config={"model_type": "hubert"} | WAVE,
            codebook_dim=32,
        )
    ),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def saved(name, folder):
    torch.manual_seed(0)
    original = TINY[name]().eval().float()
    original.save_pretrained(folder)
    return original


CALL = {
    "audioflamingo3": {"return_attention_mask": True},
    "clap": {"truncation": "rand_trunc"},
}
WITHIN = {"wav2vec2 with a head": "wav2vec2", "whisper whole": "encoder"}


def library_layers(name, original, extractor, wave):
    """Layers of one sound, by the library's own feature extractor and forward pass."""
    made = extractor(
        wave.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt",
        **CALL.get(name, {}),
    )  # fmt: skip
    if name == "audioflamingo3":
        made["input_features_mask"] = made.pop("attention_mask")
    if "input_values" in made:
        made = {"input_values": made["input_values"]}
    network = original.get_submodule(WITHIN.get(name, ""))
    with torch.inference_mode():
        if name in ("encodec", "mimi", "dac", "xcodec"):
            return codec_layers(name, network, **made)
        made = {key: torch.as_tensor(value) for key, value in made.items()}
        states = network(**made, output_hidden_states=True).hidden_states
    if name == "audio-spectrogram-transformer":
        return [state[:, 2:].reshape(1, 2, 12, -1).mean(dim=1) for state in states]
    if name == "clap":
        return [state.mean(dim=(2, 3))[:, None] for state in states]
    if name == "pe_audio":
        return [*(state[:, 1:] for state in states[:-1]), states[-1]]
    return states


def codec_layers(name, original, input_values):
    x, layers = input_values, []
    if name in ("dac", "xcodec"):
        encoder = original.encoder if name == "dac" else original.acoustic_encoder
        for block in (encoder.conv1, *encoder.block, encoder.snake1, encoder.conv2):
            x = block(x)
            layers.append(x.transpose(1, 2))
        del layers[-2]  # the activation before the last convolution
        return layers
    encoder = original.encoder.encoder_seanet if name == "mimi" else original.encoder
    for block in encoder.layers:
        x = block(x)
        if type(block).__name__.endswith("Conv1d"):
            layers.append(x.transpose(1, 2))
    if name == "mimi":
        whole = original.encoder(input_values, output_hidden_states=True)
        layers += [*whole.hidden_states[1:-1], None, whole.latents.transpose(1, 2)]
    return layers


@pytest.mark.parametrize("name", TINY)
def test_same_layers_as_the_library_and_true_frame_rates(name, tmp_path):
    original = saved(name, tmp_path)
    model = models.load(f"hf:{tmp_path}", device="cpu")
    wave = golden.chirp(model.sample_rate, 0.7, 1)
    expected = library_layers(name, original, model._extractor, wave)
    layers = model.embed(wave[None])
    assert list(layers) == ["Embedding", *(f"Encoder_{i}" for i in range(1, len(expected)))]
    for ours, theirs in zip(layers.values(), expected, strict=True):
        if theirs is None:  # the library has no name for Mimi's last transformer layer
            continue
        assert ours.dtype == torch.float32
        # Networks of a fixed length also give frames past the end of the sound.
        assert ours.shape[1] <= theirs.shape[1] and ours.shape[2:] == theirs.shape[2:]
        torch.testing.assert_close(ours, theirs[:, : ours.shape[1]], rtol=0, atol=1e-5)
    # A sound longer by a whole number of steps has as many frames more.
    steps = {layer: model.sample_rate / model.frame_rate(layer) for layer in layers}
    longest = round(max(steps.values()))
    n_more = 1 if name == "clap" else -(-model.sample_rate // (4 * longest))
    longer = model.embed(golden.chirp(model.sample_rate, 3 if name != "clap" else 11, 1)[
        None, : len(wave) + n_more * longest])  # fmt: skip
    for layer, step in steps.items():
        grown = longer[layer].shape[1] - layers[layer].shape[1]
        assert grown == pytest.approx(n_more * longest / step), layer


def test_more_than_25_classes():
    assert len({(e.module, e.class_name) for e in ENCODERS.values()}) >= 25
    covered = {name.split()[0] for name in TINY}
    assert {ENCODERS[name].class_name for name in covered} == {
        encoder.class_name for encoder in ENCODERS.values()
    }


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "encodec", "parakeet_encoder", "clap"])
def test_a_sound_in_a_ragged_batch_is_as_alone(name, tmp_path):
    saved(name, tmp_path)
    model = models.load(f"hf:{tmp_path}", device="cpu")
    waves = [golden.chirp(model.sample_rate, seconds, 1) for seconds in (0.4, 0.63, 0.4)]
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    together = model.embed(padded, lengths=[len(wave) for wave in waves])
    for row, wave in enumerate(waves):
        for layer, alone in model.embed(wave[None]).items():
            ours = together[layer][row, : alone.shape[1]]
            torch.testing.assert_close(ours, alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("dac", 0.002), ("encodec", 0.002), ("lasr_encoder", 0.02), ("whisper", 0.01),
     ("audio-spectrogram-transformer", 0.05), ("speech_to_text", 0.02), ("moonshine", 0.01),
     ("parakeet_encoder", 0.03), ("pe_audio", 0.002)],
)  # fmt: skip
def test_frames_lie_where_the_model_says(name, tolerance, tmp_path):
    saved(name, tmp_path)
    model = models.load(f"hf:{tmp_path}", device="cpu")
    layer = "Encoder_3" if name in ("dac", "encodec") else "Embedding"
    assert click_time(model, layer) == pytest.approx(0.6, abs=tolerance)


def test_sounds_beyond_a_fixed_length_are_taken_in_windows(tmp_path):
    saved("whisper", tmp_path)
    model = models.load(f"hf:{tmp_path}", device="cpu")
    wave = golden.chirp(16_000, 31, 1)
    long = model.embed(wave[None])["Encoder_1"]
    rest = model.embed(wave[None, 30 * 16_000 :])["Encoder_1"]
    assert long.shape[1] == 31 * 50
    torch.testing.assert_close(long[:, 1500:], rest, rtol=0, atol=1e-5)


def test_saved_feature_extractor_is_used(tmp_path):
    saved("wav2vec2", tmp_path)
    wave = golden.chirp(8_000, 0.5, 1)[None]
    default = models.load(f"hf:{tmp_path}", device="cpu")
    hf.Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8_000).save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}", device="cpu")
    assert (default.sample_rate, model.sample_rate) == (16_000, 8_000)
    assert not torch.allclose(model.embed(wave)["Encoder_2"], default.embed(wave)["Encoder_2"])
    with torch.inference_mode():
        theirs = model.network(wave, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(model.embed(wave)["Encoder_2"], theirs, rtol=0, atol=1e-6)


def test_half_precision_file_is_read_in_float32(tmp_path):
    TINY["hubert"]().half().save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}", device="cpu")
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("damage", ["missing", "unexpected", "wrong shape"])
def test_weights_that_do_not_fit_are_refused(damage, tmp_path):
    saved("whisper", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "layers.1.fc2.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        name = "layers.7.fc2.weight"
        tensors[name] = torch.zeros(3)
    else:
        tensors[name] = torch.zeros(5, 3)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=re.escape(name)):
        models.load(f"hf:{tmp_path}", device="cpu")


def test_folder_that_names_another_class_is_refused(tmp_path):
    torch.manual_seed(0)
    config = hf.WhisperConfig(**WHISPER, decoder_attention_heads=2, decoder_ffn_dim=32)
    WhisperEncoder(config).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["WhisperModel"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="does not fit WhisperModel.*missing"):
        models.load(f"hf:{tmp_path}", device="cpu")
    config["architectures"] = ["CustomWhisper"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="CustomWhisper.*is not run"):
        models.load(f"hf:{tmp_path}", device="cpu")


def test_what_is_not_there_or_not_audio(tmp_path):
    with pytest.raises(MissingDataError, match="no such folder"):
        models.load(f"hf:{tmp_path}/nothing", device="cpu")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec3"}))
    with pytest.raises(UnknownNameError, match="wav2vec2"):
        models.load(f"hf:{tmp_path}", device="cpu")


def test_untrained_and_permuted(tmp_path):
    saved("hubert", tmp_path)
    name, wave = f"hf:{tmp_path}", golden.chirp(16_000, 0.3, 1)[None]
    outputs = {
        key: models.load(name, device="cpu", **options).embed(wave)["Encoder_2"]
        for key, options in {
            "trained": {},
            "untrained": {"untrained": True},
            "again": {"untrained": True},
            "permuted": {"permuted": True},
        }.items()
    }
    torch.testing.assert_close(outputs["untrained"], outputs["again"], rtol=0, atol=0)
    for key in ("untrained", "permuted"):
        assert not torch.allclose(outputs[key], outputs["trained"])
    with pytest.raises(ParameterError, match="no checkpoint"):
        models.load(name, checkpoint=tmp_path)


def test_card_needs_no_weights(tmp_path):
    original = saved("whisper whole", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    card = models.card(f"hf:{tmp_path}")
    assert card.sample_rate == 16_000 and card.layers == ("Embedding", "Encoder_1", "Encoder_2")
    assert card.parameters == sum(p.numel() for p in original.encoder.parameters())
