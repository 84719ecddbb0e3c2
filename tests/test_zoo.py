"""The 36 models of Pepino et al. (2025): cards against the paper's table, networks against files."""

import re

import golden
import pytest
import torch

from analysis_lib import models, published
from analysis_lib.models import registry
from analysis_lib.models.cards import all_cards
from analysis_lib.paths import project_root

TABLE = published.table("pepino_models").set_index("model")
BIBLIOGRAPHY = (project_root() / "book/references.bib").read_text()
REFERENCES = set(re.findall(r"^@\w+\{(.+),", BIBLIOGRAPHY, re.M))
OTHERS = {
    "AST", "VGGish", "wav2vec2", "Speech2Text", "DCASE2020", "DeepSpeech2", "SepFormer",
    "MetricGAN", "ZeroSpeech",
}  # fmt: skip
MANIFESTS = {
    **{name: ("encodecmae", name) for name in TABLE.index
       if "-ec-" in name and name != "spec-ec-base"},
    **{name: ("encodecmae", "mel256-ec-base") for name in TABLE.index
       if name in ("mel256-ec-base-as", "mel256-ec-base-fma", "mel256-ec-base-ll")},
    **{name: ("beats", name) for name in TABLE.index if name.startswith("BEATs")},
    **{name: ("dasheng", name) for name in TABLE.index if name.startswith("dasheng")},
    "braindnn_ast": ("ast", "ast"),
    "braindnn_vggish": ("vggish", "vggish"),
    "braindnn_wav2vec2": ("wav2vec2", "wav2vec2-base-960h"),
    "braindnn_dcase2020": ("dcase2020", "baseline"),
    "braindnn_deepspeech": ("deepspeech2", "librispeech_v3"),
    "braindnn_sepformer": ("sepformer", "sepformer-whamr"),
    "braindnn_s2t": ("speech2text", "s2t-large-librispeech-asr"),
    "braindnn_zerospeech": ("zerospeech2020", "english"),
    "braindnn_metricgan": ("metricgan", "metricgan-plus-voicebank"),
    **{f"braindnn_{network}_{task}": (family, "word" if task == "word" else "multihead")
       for network, family in (("resnet50", "cochresnet50"), ("kell2018", "cochcnn9"))
       for task in ("word", "speaker", "audioset", "word_speaker_audioset")},
}  # fmt: skip
WITHOUT_MANIFEST = {"spec-ec-base", "braindnn_spectemp_filters"}


def built_on_meta(name):
    card = models.card(name)
    with torch.device("meta"):
        return registry.family_class(card.family)(card)


def test_there_are_36():
    assert len(TABLE) == 36
    assert set(MANIFESTS) | WITHOUT_MANIFEST == set(TABLE.index)


@pytest.mark.parametrize("name", TABLE.index)
def test_a_card_agrees_with_the_table(name):
    card, row = models.card(name), TABLE.loc[name]
    assert re.sub(r" \(baseline line\)$", "", row["label"]) == card.label
    assert row["family"] == ("Others" if card.family in OTHERS else card.family)
    assert len(card.layers) == row["n_layers_used"]
    assert card.sample_rate == row["sample_rate_hz"]


@pytest.mark.parametrize("name", TABLE.index)
def test_a_card_says_what_to_cite_and_where_the_weights_are(name):
    card = models.card(name)
    assert card.citation in REFERENCES
    assert card.licence
    if card.kind == "published":
        assert card.source.startswith("https://") and card.checkpoint
        assert card.training_data != "none"
    else:
        assert card.kind == "handcrafted" and not card.checkpoint


@pytest.mark.parametrize("name", TABLE.index)
def test_a_network_is_built_without_memory_and_has_the_parameters_of_its_card(name):
    model = built_on_meta(name)
    assert model.card is models.card(name)
    assert model.layers == model.card.layers
    assert all(parameter.is_meta for parameter in model.network.parameters())
    below_the_head = [
        parameter.numel()
        for key, parameter in model.network.named_parameters()
        if not re.match(r"predictor\.|outputlayer\.", key)
    ]
    if model.card.parameters is not None:
        assert sum(below_the_head) == model.card.parameters


@pytest.mark.parametrize("name", sorted(MANIFESTS))
def test_a_network_has_the_tensors_of_its_published_file(name):
    assert golden.disagreements(built_on_meta(name), *MANIFESTS[name]) == set()


def test_every_family_has_a_class_and_every_class_a_card():
    families = {card.family for card in all_cards().values()}
    assert families == set(registry.FAMILIES)
    for family in families:
        assert issubclass(registry.family_class(family), models.AudioModel)
