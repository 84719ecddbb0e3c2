"""A browser over the rendered book, served from this machine."""

import contextlib
import functools
import http.server
import shutil
import threading

import pytest

from analysis_lib.paths import project_root

HTML = project_root() / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def origin():
    """Address of the rendered book."""
    if not (HTML / "index.html").is_file():
        pytest.skip("the book is not built: run make book")
    handler = functools.partial(_Quiet, directory=HTML)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests: Playwright's own, or the system's."""
    playwright = pytest.importorskip("playwright.sync_api", reason="run make test-browser")
    with playwright.sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium to drive ({error.message.splitlines()[0]})")
        yield found
        found.close()


class Visit:
    """A page, with what went wrong on it and what it asked the network for."""

    def __init__(self, page, origin):
        self.page, self.origin = page, origin
        self.errors, self.foreign, self.missing = [], [], []
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._request)
        page.on("response", self._response)

    def _request(self, request):
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.foreign.append(request.url)

    def _response(self, response):
        if response.status >= 400:
            self.missing.append(f"{response.status} {response.url}")

    def open(self, path):
        """Load a page of the book, by its path below the root, and wait until it rests."""
        self.page.goto(f"{self.origin}/{path}", wait_until="networkidle")
        return self.page


@pytest.fixture(scope="session")
def window(browser, origin):
    """Context manager: a fresh window of a laptop's size."""

    @contextlib.contextmanager
    def fresh():
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        yield Visit(context.new_page(), origin)
        context.close()

    return fresh


@pytest.fixture
def visit(window):
    """A fresh window of a laptop's size, closed after the test."""
    with window() as found:
        yield found
