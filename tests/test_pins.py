"""The three places that name packages say the same."""

import re
import tomllib
from importlib.metadata import version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from analysis_lib.paths import project_root

ROOT = project_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [
    line
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
PINNED = {canonicalize_name(Requirement(line).name): Requirement(line) for line in LINES}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [*PROJECT["dependencies"], *EXTRAS["test"]]


@pytest.mark.parametrize("line", LINES)
def test_every_requirement_is_one_exact_public_version(line):
    assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][0-9a-z.!]*", line), (
        "no range, no URL, no local version such as +cpu"
    )
    assert "nvidia" not in line and "cuda" not in line and "triton" not in line


def test_requirements_are_sorted_and_named_once():
    names = [canonicalize_name(Requirement(line).name) for line in LINES]
    assert names == sorted(set(names))


@pytest.mark.parametrize("dependency", DIRECT)
def test_every_direct_dependency_is_pinned_within_its_range(dependency):
    wanted = Requirement(dependency)
    assert wanted.url is None
    (pin,) = PINNED[canonicalize_name(wanted.name)].specifier
    assert pin.version in wanted.specifier


@pytest.mark.parametrize("name", PINNED)
def test_what_is_installed_here_is_what_is_pinned(name):
    (pin,) = PINNED[name].specifier
    assert version(name).split("+")[0] == pin.version


@pytest.mark.parametrize("dependency", EXTRAS["cluster"])
def test_what_a_cluster_needs_is_one_exact_version_and_no_pin(dependency):
    wanted = Requirement(dependency)
    assert [specifier.operator for specifier in wanted.specifier] == ["=="]
    assert canonicalize_name(wanted.name) not in PINNED


def test_torch_is_pinned_exactly_everywhere():
    assert "torch==2.13.0" in PROJECT["dependencies"] and "torch==2.13.0" in LINES


def test_every_import_of_the_package_is_a_direct_dependency():
    known = {"yaml": "pyyaml", "sklearn": "scikit-learn", "jupyter_book": "jupyter-book"}
    direct = {canonicalize_name(Requirement(line).name) for line in DIRECT}
    imported = set()
    for file in (ROOT / "analysis_lib").rglob("*.py"):
        code = file.read_text()
        imported |= set(re.findall(r"^\s*(?:import|from) ([A-Za-z_]\w*)", code, re.M))
    third_party = {canonicalize_name(known.get(name, name)) for name in imported} & set(PINNED)
    assert third_party <= direct


def test_conda_users_get_the_same_pins():
    (pip,) = [entry["pip"] for entry in CONDA if isinstance(entry, dict)]
    assert pip == ["-r requirements.txt", "-e ."]
    (python,) = [entry for entry in CONDA if isinstance(entry, str) and entry.startswith("python")]
    assert python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])
    assert {"pip", "make", "git"} <= {entry for entry in CONDA if isinstance(entry, str)}
