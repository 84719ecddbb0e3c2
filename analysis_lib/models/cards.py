"""Model cards: everything to cite, fetch and feed a model, as data.

The cards stand in ``cards.toml`` beside this module. ``[family.<name>]`` holds what the members
of a family share, ``[model.<name>]`` the rest.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from ..errors import UnknownNameError

__all__ = ["ModelCard", "all_cards", "find_card"]

KINDS = ("published", "trained-here", "untrained", "handcrafted")


@dataclass(frozen=True)
class ModelCard:
    """What a model is, where it comes from, and what it takes and gives.

    Attributes
    ----------
    name, label : str
        The name to load it by, and the one to print in figures.
    family : str
        Architecture family; decides the class that runs it and its colour in figures.
    kind : {"published", "trained-here", "untrained", "handcrafted"}
        Where its weights come from.
    architecture, training_data : str
        In a sentence each.
    parameters : int or None
        Number of learned parameters that its layers depend on.
    sample_rate : int
        Rate in Hz of the waveforms it takes.
    layers : tuple of str
        Layers that it offers, first to last.
    source, revision, checkpoint, sha256 : str
        Where the published weights are, at which revision, the file's name and checksum;
        empty where not known or not needed.
    download_mb : float
        Size of the download; 0 where nothing is downloaded or the size is not known.
    licence, citation : str
        Of the weights; ``citation`` is a key of ``book/references.bib``.
    aliases : tuple of str
        Other names for the same model.
    options : mapping
        Arguments of the family's class.

    Examples
    --------
    >>> from analysis_lib import models
    >>> card = models.card("dasheng_base")
    >>> card.label, card.sample_rate, len(card.layers), card.licence
    ('Dasheng (B)', 16000, 12, 'Apache-2.0')
    """

    name: str
    label: str
    family: str
    kind: str
    architecture: str
    sample_rate: int
    layers: tuple[str, ...]
    parameters: int | None = None
    training_data: str = "none"
    source: str = ""
    revision: str = ""
    checkpoint: str = ""
    sha256: str = ""
    download_mb: float = 0.0
    licence: str = ""
    citation: str = ""
    aliases: tuple[str, ...] = ()
    options: Mapping = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"card {self.name!r}: kind {self.kind!r} is none of {KINDS}")


@lru_cache(maxsize=1)
def all_cards() -> Mapping[str, ModelCard]:
    """Every card of the zoo, by name, in the order of the table."""
    table = tomllib.loads(Path(__file__).with_name("cards.toml").read_text(encoding="utf-8"))
    cards = {}
    for name, entry in table["model"].items():
        values = {**table["family"].get(entry["family"], {}), **entry}
        for listed in ("layers", "aliases"):
            values[listed] = tuple(values.get(listed, ()))
        shared = table["family"].get(entry["family"], {}).get("options", {})
        values["options"] = MappingProxyType({**shared, **entry.get("options", {})})
        cards[name] = ModelCard(name=name, **values)
    return MappingProxyType(cards)


def find_card(name: str) -> ModelCard:
    """Card of a model, by its name or an alias.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    cards = all_cards()
    if name in cards:
        return cards[name]
    by_alias = {alias: card for card in cards.values() for alias in card.aliases}
    if name in by_alias:
        return by_alias[name]
    raise UnknownNameError("model", name, [*cards, *by_alias])
