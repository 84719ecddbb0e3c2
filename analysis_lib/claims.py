"""The claims of the papers, and what became of each of them here.

A claim can be tested in two ways. Many follow from numbers that the papers printed, or that were
read off their figures: those are *derived again*, whatever the profile. The others need models
and brains: a chapter *observes* them when it has both. Chapters show what they found; the book
collects it from their output into one page.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import pandas as pd

from . import published
from .derivations import DERIVATIONS
from .errors import ParameterError, UnknownNameError

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

    Examples
    --------
    >>> from analysis_lib import claims
    >>> claim = claims.all_claims()["P1-01"]
    >>> claim.paper, claim.where, claim.values, claim.tolerance
    ('Pepino 2025', 'Table 1', (0.902,), 0.01)
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

    Examples
    --------
    >>> from analysis_lib import claims
    >>> finding = claims.Finding("P1-01", "published numbers", "reproduced", "0.902")
    >>> finding.status
    'reproduced'
    """

    claim: str
    basis: str
    status: str
    ours: str


class Findings(Sequence):
    """Findings as a table in a notebook, readable again from its output.

    Examples
    --------
    >>> from analysis_lib import claims
    >>> finding = claims.Finding("P1-01", "published numbers", "reproduced", "0.902")
    >>> claims.Findings([finding]).to_frame()[["Claim", "Published", "Here", "Status"]]
       Claim Published   Here      Status
    0  P1-01     0.902  0.902  reproduced
    """

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
    """Every claim by its id, in the order of the papers.

    Examples
    --------
    >>> from analysis_lib import claims
    >>> claims.all_claims()["P1-01"].published
    '0.902'
    """
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

    Examples
    --------
    >>> from analysis_lib import claims
    >>> (finding,) = claims.derive_again("P1-01")
    >>> finding.ours, finding.status
    ('0.902', 'reproduced')
    """
    findings = []
    for name in ids or DERIVATIONS:
        if name not in DERIVATIONS:
            raise UnknownNameError("claim to derive from published numbers", name, DERIVATIONS)
        claim, found = all_claims()[name], DERIVATIONS[name]()
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

    Examples
    --------
    >>> from analysis_lib import claims
    >>> seen = {"P1-01": (True, "r = 0.90")}
    >>> claims.observe(seen, "ten models, measured voxels")[0].status
    'reproduced'
    >>> claims.observe(seen, "ten models, simulated brain", real=False)[0].status
    'cannot be tested here'
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

    Examples
    --------
    >>> from analysis_lib import claims
    >>> text = claims.page({"P1-01": [(claims.derive_again("P1-01")[0], "cell.html")]}, "demo")
    >>> text.splitlines()[0], "1 reproduced, 0 differs" in text
    ('# Claims', True)
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
