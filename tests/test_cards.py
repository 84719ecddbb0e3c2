import csv
import dataclasses
import re
from types import MappingProxyType

import pytest

from analysis_lib import models
from analysis_lib.data import fetch
from analysis_lib.errors import UnknownNameError
from analysis_lib.models import registry
from analysis_lib.models.cards import KINDS, ModelCard, all_cards, find_card
from analysis_lib.paths import project_root

CARDS = all_cards()
REFERENCES = set(
    re.findall(r"^@\w+\{(.+),", (project_root() / "book/references.bib").read_text(), re.M)
)


def published_table():
    file = project_root() / "analysis_lib" / "data" / "tables" / "pepino_models.csv"
    with open(file, newline="") as stream:
        lines = (line for line in stream if not line.startswith("#"))
        return {row["model"]: row for row in csv.DictReader(lines)}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_card_is_complete(card):
    assert card.kind in KINDS and card.label and card.architecture
    assert 1000 <= card.sample_rate <= 192_000
    assert card.layers and len(set(card.layers)) == len(card.layers)
    assert card.citation in REFERENCES or card.kind in ("untrained", "trained-here")
    assert re.fullmatch(r"([0-9a-f]{64})?", card.sha256)
    if card.kind == "published":
        assert card.source.startswith("https://") and card.checkpoint and card.licence
        assert card.training_data != "none"


@pytest.mark.parametrize("family", {card.family: None for card in CARDS.values()})
def test_every_family_has_a_class_that_runs_it(family):
    assert issubclass(registry.family_class(family), models.AudioModel)


def test_names_labels_and_aliases_are_unique():
    names = [*CARDS, *(alias for card in CARDS.values() for alias in card.aliases)]
    assert len(set(names)) == len(names)
    assert len({card.label for card in CARDS.values()}) == len(CARDS)


def test_the_36_models_of_the_paper_are_all_there():
    table = published_table()
    assert len(table) == 36 and set(table) <= set(CARDS)
    for name, row in table.items():
        card = CARDS[name]
        assert row["label"].startswith(card.label) and card.sample_rate == int(
            row["sample_rate_hz"]
        )
        assert len(card.layers) == int(row["n_layers_used"])


def test_the_citations_of_the_data_sets_are_in_the_bibliography():
    assert {fetch.registry(name).citation for name in fetch.datasets()} <= REFERENCES


def test_cards_cannot_be_changed():
    card = find_card("log-mel")
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.sample_rate = 1
    with pytest.raises(TypeError):
        card.options["n_mels"] = 1
    with pytest.raises(TypeError):
        CARDS["new"] = card
    assert isinstance(CARDS, MappingProxyType)


def test_an_alias_finds_the_same_card():
    assert find_card("spectrotemporal") is find_card("braindnn_spectemp_filters")


def test_unknown_model():
    with pytest.raises(
        UnknownNameError, match="unknown model 'spectro-temporal'. Did you mean 'spec"
    ):
        find_card("spectro-temporal")
    with pytest.raises(UnknownNameError, match="unknown model 'zzzzzzzz'. Known: .*, …"):
        find_card("zzzzzzzz")


def test_an_impossible_kind():
    with pytest.raises(ValueError, match="kind 'homemade' is none of"):
        ModelCard("a", "A", "F", "homemade", "none", 16_000, ("x",))
