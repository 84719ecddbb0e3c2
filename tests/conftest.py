import multiprocessing
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before any test imports torch


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Every test has a cache and a result store of its own."""
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BRAINBOOK_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def real_data():
    """Folder of the real data sets; the test is skipped where there is none."""
    folder = os.environ.get("BRAINBOOK_DATA")
    if not folder:
        pytest.skip("needs real data: set BRAINBOOK_DATA to a folder with the data sets")
    return folder


@pytest.fixture(scope="session")
def processes():
    """Other processes that start at once, forked from one that has imported the package."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["analysis_lib.results"])
    return context
