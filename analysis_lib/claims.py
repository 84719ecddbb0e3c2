"""The claims of the papers, and what became of each of them here.

A claim can be tested in two ways. Many follow from numbers that the papers printed, or that were
read off their figures: those are *derived again*, whatever the profile. The others need models
and brains: a chapter *observes* them when it has both. Chapters show what they found; the book
collects it from their output into one page.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import pandas as pd
import scipy.stats

from . import published, published_encoding
from .errors import ParameterError, UnknownNameError
from .models import card
from .stats import correlate

__all__ = ["Claim", "Finding", "Findings", "MIME_TYPE", "all_claims", "derive_again", "observe"]

MIME_TYPE = "application/vnd.brainbook.claims+json"  # how findings stand in a notebook's output
REPRODUCED, DIFFERS, UNTESTED = "reproduced", "differs", "cannot be tested here"


@dataclass(frozen=True)
class Claim:
    """One statement of a paper that can be right or wrong.

    Attributes
    ----------
    id, paper, statement : str
    published : str
        The number as published, in words where it is not one.
    where : str
        Table, figure or file that holds it.
    values : tuple of float
        The published numbers; empty where the claim is an order or a direction.
    tolerance : float
        How far from each of them still counts as the same.
    needs : str
        What a test needs, beyond the published numbers.
    """

    id: str
    paper: str
    statement: str
    published: str
    where: str
    values: tuple[float, ...]
    tolerance: float
    needs: str


@dataclass(frozen=True)
class Finding:
    """What was found about a claim.

    Attributes
    ----------
    claim : str
        Its id.
    basis : str
        "published numbers", or the models and brains that were looked at.
    status : {"reproduced", "differs", "cannot be tested here"}
    ours : str
        Our number or observation.
    """

    claim: str
    basis: str
    status: str
    ours: str


class Findings(Sequence):
    """Findings as a table in a notebook, readable again from its output."""

    def __init__(self, findings: Iterable[Finding]):
        self._findings = tuple(findings)

    def __getitem__(self, index):
        return self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    def to_frame(self) -> pd.DataFrame:
        """One row per finding, with the claim as published beside it."""
        known = all_claims()
        return pd.DataFrame(
            {
                "Claim": [finding.claim for finding in self],
                "What the paper says": [known[f.claim].statement for f in self],
                "Published": [known[f.claim].published for f in self],
                "Here": [finding.ours for finding in self],
                "From": [finding.basis for finding in self],
                "Status": [finding.status for finding in self],
            }
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, object]:
        frame = self.to_frame()
        return {
            "text/html": frame.map(html.escape).to_html(index=False, escape=False),
            "text/plain": frame.to_string(index=False),
            MIME_TYPE: [asdict(finding) for finding in self],
        }


@lru_cache(maxsize=1)
def all_claims() -> Mapping[str, Claim]:
    """Every claim by its id, in the order of the papers."""
    rows = published.table("claims").fillna("").astype(str)
    return MappingProxyType({
        row["id"]: Claim(
            **{name: row[name] for name in ("id", "paper", "published", "where", "needs")},
            statement=row["claim"],
            values=tuple(map(float, row["values"].split())),
            tolerance=float(row["tolerance"] or 0),
        )
        for _, row in rows.iterrows()
    })  # fmt: skip


def derive_again(*ids: str) -> Findings:
    """Test claims on the published numbers.

    Parameters
    ----------
    *ids : str
        Such as ``"P1-01"``; all that can be tested so when none is given.

    Returns
    -------
    Findings

    Raises
    ------
    UnknownNameError
        With the claims that the published numbers can decide.
    """
    findings = []
    for name in ids or _DERIVATIONS:
        if name not in _DERIVATIONS:
            raise UnknownNameError("claim to derive from published numbers", name, _DERIVATIONS)
        claim, found = all_claims()[name], _DERIVATIONS[name]()
        if claim.values:
            found, note = found if isinstance(found, tuple) else (found, "")
            found = np.atleast_1d(found)
            holds = np.allclose(found, claim.values, rtol=0, atol=claim.tolerance + 1e-9)
            digits = max(len(text.partition(".")[2]) for text in claim.published.split())
            ours = " ".join(f"{value:.{digits}f}" for value in found) + note
        else:
            holds, ours = found
        findings.append(Finding(name, "published numbers", REPRODUCED if holds else DIFFERS, ours))
    return Findings(findings)


def observe(found: Mapping[str, tuple[bool, str]], basis: str, real: bool = True) -> Findings:
    """Say what a chapter saw about claims, with its own models and brains.

    Parameters
    ----------
    found : mapping of str to (bool, str)
        By claim: whether it holds here, and the number behind the answer.
    basis : str
        The models and brains that were looked at.
    real : bool
        Whether the brain is one. A generated brain holds what was planted in it, so that it
        tests the method; no claim is decided on it.

    Returns
    -------
    Findings

    Raises
    ------
    UnknownNameError
        For an id that no claim has.
    """
    findings = []
    for name, (holds, ours) in found.items():
        if name not in all_claims():
            raise UnknownNameError("claim", name, all_claims())
        if not isinstance(holds, (bool, np.bool_)) or not ours:
            raise ParameterError(f"claim {name}: give whether it holds, and the number behind it")
        status = (REPRODUCED if holds else DIFFERS) if real else UNTESTED
        findings.append(Finding(name, basis, status, ours))
    return Findings(findings)


def page(findings: Mapping[str, Sequence[tuple[Finding, str]]], profile: str) -> str:
    """Write the page of all claims, in Markdown.

    Parameters
    ----------
    findings : mapping of str to sequence of (Finding, str)
        By claim, with a link to the cell that made it.
    profile : str
        Of this copy of the book.

    Returns
    -------
    str
    """
    counts = {REPRODUCED: 0, DIFFERS: 0, UNTESTED: 0}
    rows = []
    for claim in all_claims().values():
        statement = f"{claim.statement}; {claim.published} ({claim.where})"
        found = list(findings.get(claim.id, ()))
        statuses = {finding.status for finding, _ in found}
        verdict = next((s for s in (DIFFERS, REPRODUCED) if s in statuses), UNTESTED)
        counts[verdict] += 1
        entries = [
            f"**{finding.status}** on {finding.basis}: {finding.ours} [cell]({link})"
            for finding, link in found
        ] or [f"**{UNTESTED}**: needs {claim.needs}"]
        unbroken = claim.id.replace("-", "\N{NON-BREAKING HYPHEN}")
        rows.append(f"| {unbroken} | {statement} | {'<br>'.join(entries)} |")
    papers = dict.fromkeys(claim.paper for claim in all_claims().values())
    summary = ", ".join(f"{n} {status}" for status, n in counts.items())
    return "\n".join(
        [
            "# Claims",
            "",
            f"The {len(rows)} claims that we found in {', '.join(papers)}, and what became of each "
            f"in this copy of the book (profile **{profile}**): {summary}. A claim counts as "
            "*differs* as soon as one of its tests does. *Published numbers* are those that the "
            "papers print or draw: deriving a claim from them again tests the analysis, not the "
            "measurements. A brain that was generated decides nothing about real ones.",
            "",
            "| | Claim, as published | Here |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _correlation(one: str, other: str) -> float:
    models = published.table("pepino_models_alignment_approx")
    return scipy.stats.pearsonr(models[one], models[other]).statistic


def _table1(*targets: str, subset: str = "All") -> list[float]:
    derived = published.overall_correlations()["pearson"].xs(subset, level="subset")
    return derived[list(targets)].tolist()


def _recent_models() -> tuple[bool, str]:
    """Whether general self-supervised families predict better than the others."""
    models = published.table("pepino_models_alignment_approx").set_index("model")
    recent = [card(name).family in ("EnCodecMAE", "BEATs", "Dasheng") for name in models.index]
    texts, holds = [], True
    for dataset in ("NH2015", "B2021"):
        scores = models[f"REG_{dataset}"]
        new, old = scores[recent].to_numpy(), scores[~np.array(recent)].to_numpy()
        rng = np.random.default_rng(0)
        differences = [
            rng.choice(new, len(new)).mean() - rng.choice(old, len(old)).mean()
            for _ in range(10_000)
        ]
        low, high = np.percentile(differences, [2.5, 97.5])
        holds &= low > 0
        texts.append(f"{dataset}: +{new.mean() - old.mean():.3f} R² ({low:.3f} to {high:.3f})")
    return holds, "; ".join(texts)


def _diverse_data() -> tuple[bool, str]:
    """Whether the mixture beats each of the three sources alone, on every measure."""
    models = published.table("pepino_models_alignment_approx").set_index("model")
    columns = list(published.ALIGNMENT_COLUMNS.values())
    mixture = models.loc["mel256-ec-base", columns]
    alone = models.loc[[f"mel256-ec-base-{source}" for source in ("as", "fma", "ll")], columns]
    better = (mixture > alone).to_numpy()
    worst = (mixture - alone).to_numpy(dtype=float).min()
    return bool(better.all()), f"better in {better.sum()} of {better.size}; smallest {worst:+.3f}"


def _small_tasks() -> tuple[bool, str]:
    """Whether rank gains fall with the amount of training data, over tasks."""
    gains = published.rank_gains().groupby("task")["gain"].mean()
    seconds = published.table("hear_training_seconds").set_index("task")["seconds"]
    found = correlate(seconds[gains.index], gains).sel(kind="spearman")
    rho, low, high = (float(found[name]) for name in ("r", "low", "high"))
    text = f"rank gain against training time, {len(gains)} tasks: Spearman {rho:.2f}"
    return high < 0, f"{text} ({low:.2f} to {high:.2f})"


def _beats_the_filters() -> float:
    """Fewest models above SpectroTemporal in a data set."""
    bars = published.table("tuckute_median_r2_approx")
    trained = bars[~bars["permuted"]].pivot(index="model", columns="dataset", values="median_r2")
    return float((trained > trained.loc["SpectroTemporal"]).sum().min())


def _beats_permuted() -> tuple[bool, str]:
    bars = published.table("tuckute_median_r2_approx")
    bars = bars[bars["model"] != "SpectroTemporal"]
    pairs = bars.pivot(index=["model", "dataset"], columns="permuted", values="median_r2")
    above = pairs[False] > pairs[True]
    return bool(above.all()), f"{above.sum()} of {len(above)} pairs of model and data set"


def _components() -> tuple[list[float], str]:
    derived = _table1("LF", "HF", "Broadband", "Pitch", "Speech", "Music")
    return derived, " (without the filter bank, whose values the figure draws as a line)"


def _verdicts() -> tuple[list[int], str]:
    missing_as_unchanged, missing_left_out = (
        published.task_changes(rule)["verdict"].value_counts()[["improved", "worsened"]].tolist()
        for rule in ("unchanged", "dropped")
    )
    return missing_as_unchanged, " ({} and {} with missing scores left out)".format(
        *missing_left_out
    )


def _places() -> list[float]:
    means = published.summarise_rank_gains()
    return [means.loc[a, t] for a in ("wholebrain", "STG") for t in ("individual", "group")]


def _raised() -> tuple[bool, str]:
    """Whether tuning raised the best parcel of every subject in the training logs."""
    gain = published_encoding.selected_models().loc["wholebrain", "gain"].dropna()
    spread = published_encoding.replicate_spread().xs("conv4", level="finetune")
    spread = spread.loc["wholebrain", "gain_z"].dropna()
    text = f"raised in {(gain > 0).sum()} of {len(gain)} subjects in the training logs, by "
    return bool((gain > 0).all()), text + (
        f"{gain.min():.3f} to {gain.max():.3f}: {spread.min():.1f} to {spread.max():.1f} standard "
        "deviations of replicates"
    )


def _own_is_best() -> tuple[bool, str]:
    pairs = published_encoding.cross_subject()
    stg, whole = (pairs.loc[atlas] for atlas in ("STG", "wholebrain"))
    return stg["n_lower"] == stg["n_pairs"], (
        f"others lower in {stg['n_lower']} of {stg['n_pairs']} pairs (STG), "
        f"{whole['n_lower']} of {whole['n_pairs']} (whole brain)"
    )


def _own_or_group() -> tuple[bool, str]:
    """Whether no more subjects are better off with the group than worse."""
    verdicts = published_encoding.group_against_own()["verdict"]
    counts = {
        atlas: verdicts.loc[atlas].value_counts().reindex(["better", "worse"], fill_value=0)
        for atlas in ("wholebrain", "STG")
    }
    text = "; ".join(
        f"{atlas}: group better for {count['better']}, worse for {count['worse']} of 6"
        for atlas, count in counts.items()
    )
    return all(count["better"] <= count["worse"] for count in counts.values()), text


def _replicates() -> list[float]:
    spread = published_encoding.replicate_spread().loc["STG"].xs("conv4", level="finetune")
    return spread["sd"].dropna().tolist()


def _soundnet_parameters() -> float:
    from .models.soundnet import SoundNet8

    blocks = [part for name, part in SoundNet8().named_children() if not name.startswith("conv8")]
    return float(sum(p.numel() for block in blocks for p in block.parameters()))


_VOXELS, _DISTANCES = ("REG_NH2015", "REG_B2021"), ("RSA_NH2015_maxlayer", "RSA_B2021_maxlayer")
_DERIVATIONS: Mapping[str, Callable] = MappingProxyType({
    "P1-01": lambda: _table1(_VOXELS[0]),
    "P1-02": lambda: _table1(_VOXELS[1]),
    "P1-03": lambda: _table1(_DISTANCES[0]),
    "P1-04": lambda: _table1(_DISTANCES[1]),
    "P1-05": _components,
    "P1-06": lambda: _table1(*_VOXELS, *_DISTANCES, subset="Overall>-1"),
    "P1-08": lambda: [_correlation(*pair) for pair in zip(_VOXELS, _DISTANCES, strict=True)],
    "P1-09": lambda: [_correlation(*_DISTANCES), _correlation(*_VOXELS)],
    "P1-12": _recent_models,
    "P1-17": _diverse_data,
    "P2-01": _soundnet_parameters,
    "P2-02": _raised,
    "P2-05": _verdicts,
    "P2-06": _places,
    "P2-07": _small_tasks,
    "P2-08": _own_is_best,
    "P2-09": _own_or_group,
    "P2-11": _replicates,
    "T-02": _beats_the_filters,
    "T-03": _beats_permuted,
})  # fmt: skip
