import nbformat
import pandas as pd
import pytest

from analysis_lib import claims, generated_pages, published
from analysis_lib.errors import ParameterError, UnknownNameError


def test_there_are_claims_of_both_papers_each_with_a_number_and_a_place():
    found = claims.all_claims()
    papers = [claim.paper for claim in found.values()]
    assert len(found) >= 25 and {"Pepino 2025", "Freteault 2025"} <= set(papers)
    for claim in found.values():
        assert claim.statement and claim.published and claim.where and claim.needs
        assert claim.tolerance >= 0


def test_derived_again_as_published():
    """The numbers that the papers' own tables decide; three do not come out."""
    findings = {finding.claim: finding for finding in claims.derive_again()}
    assert findings["P1-01"].ours == "0.902" and findings["P1-04"].ours == "0.842"
    assert findings["P1-06"].ours == "0.713 0.703 0.438 0.498"
    assert findings["P2-05"].ours == "12 2 (13 and 3 with missing scores left out)"
    assert findings["P2-06"].ours == "2.24 1.79 1.66 2.43"
    assert findings["T-02"].ours == "15" and findings["P2-01"].ours == "2874320"
    differing = {name for name, finding in findings.items() if finding.status == "differs"}
    # One model short; two of twelve comparisons tied; an interval that covers no change.
    assert differing == {"P1-05", "P1-17", "P2-07"}


def test_a_number_outside_the_tolerance_differs(monkeypatch):
    real = published.overall_correlations
    monkeypatch.setattr(published, "overall_correlations", lambda: real() + 0.02)
    (finding,) = claims.derive_again("P1-01")
    assert finding.status == "differs" and finding.ours == "0.922"


def test_a_generated_brain_decides_nothing():
    seen = {"P1-01": (True, "r = 0.9")}
    assert claims.observe(seen, "ten models")[0].status == "reproduced"
    assert claims.observe({"P1-01": (False, "r = 0")}, "ten models")[0].status == "differs"
    assert claims.observe(seen, "twin", real=False)[0].status == "cannot be tested here"


def test_wrong_ids_and_empty_evidence():
    with pytest.raises(UnknownNameError, match="unknown claim 'P1-O1'. Did you mean"):
        claims.observe({"P1-O1": (True, "r")}, "models")
    with pytest.raises(UnknownNameError, match="claim to derive"):
        claims.derive_again("P1-10")
    with pytest.raises(ParameterError, match="the number behind it"):
        claims.observe({"P1-01": (True, "")}, "models")


def notebook_with(findings, name):
    output = nbformat.v4.new_output("display_data", findings._repr_mimebundle_())
    cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell("pass")]
    cells.append(nbformat.v4.new_code_cell("claims", outputs=[output]))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:03d}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    generated_pages.mark_claims(notebook, name)
    return notebook


def test_the_page_links_every_finding_to_its_cell(tmp_path):
    findings = claims.derive_again("P1-01", "P1-05")
    notebook = notebook_with(findings, "04_downstream")
    nbformat.validate(notebook)
    nbformat.write(notebook, tmp_path / "04_downstream.ipynb")
    generated_pages.write_claims(tmp_path, "demo")
    page = (tmp_path / "claims.md").read_text()
    target = notebook.cells[2].source
    assert target == "(claims-04-downstream-cell-002)=" and notebook.cells[3].source == "claims"
    page = page.replace("\N{NON-BREAKING HYPHEN}", "-")
    lines = {line.split(" | ")[0].lstrip("| "): line for line in page.splitlines() if " | " in line}
    assert "**reproduced** on published numbers: 0.902 [cell](#claims-04-downst" in lines["P1-01"]
    assert "**differs**" in lines["P1-05"]
    assert "**cannot be tested here**: needs measured voxels" in lines["P1-10"]
    assert "1 reproduced, 1 differs, 32 cannot be tested here" in page


def test_the_table_shows_what_was_published_beside_what_was_found():
    frame = claims.derive_again("P1-01").to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc[0, ["Published", "Here", "Status"]].tolist() == [
        "0.902",
        "0.902",
        "reproduced",
    ]
