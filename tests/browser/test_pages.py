"""The book in a browser: what readers do, and what must not happen while they do it."""

import functools
import re

import pytest
import yaml

from analysis_lib.paths import project_root

pytestmark = pytest.mark.browser

TOC = yaml.safe_load((project_root() / "_toc.yml").read_text())
CHAPTERS = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
PAGES = [TOC["root"]]  # in reading order
for chapter in CHAPTERS:
    PAGES += [chapter["file"], *(section["file"] for section in chapter.get("sections", ()))]
CHAPTER = "book/chapters/04_downstream.html"


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.removeprefix("book/"))
def opened(window, request):
    """Every page of the book in turn, loaded once for all that is asked of it."""
    with window() as visit:
        visit.open(f"{request.param}.html")
        yield visit


@pytest.fixture(scope="module")
def is_there(window):
    """Whether an address answers; each is asked once."""
    with window() as visit:
        yield functools.cache(lambda link: visit.page.request.get(link).ok)


def test_a_page_loads_without_an_error_and_asks_nobody_else(opened):
    assert not opened.errors and not opened.missing and not opened.foreign


def test_every_image_is_there(opened):
    broken = opened.page.eval_on_selector_all(
        "img", "all => all.filter(i => i.complete && !i.naturalWidth && i.src).map(i => i.src)"
    )
    assert not broken


def test_every_internal_link_leads_somewhere(opened, is_there):
    page = opened.page
    links = page.eval_on_selector_all("main a[href], nav a[href]", "all => all.map(a => a.href)")
    inside = {link for link in links if link.startswith(opened.origin)}
    assert inside
    for link in sorted({link.partition("#")[0] for link in inside}):
        assert is_there(link), link
    here = page.url.partition("#")[0]
    for link in inside:
        target, _, anchor = link.partition("#")
        if target == here and anchor:
            assert page.evaluate("id => document.getElementById(id) !== null", anchor), link


def test_fits_a_phone(opened):
    size = opened.page.viewport_size
    opened.page.set_viewport_size({"width": 400, "height": 800})
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    opened.page.set_viewport_size(size)
    # Code and wide tables scroll in boxes of their own; the page itself does not.
    assert width <= 400


def test_nothing_serious_for_readers_with_a_disability(opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened.page.add_style_tag(content="* { transition: none !important; }")
    violations = axe.run(opened.page).response["violations"]
    serious = [
        f"{found['id']}: {node['html'][:120]}"
        for found in violations
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]
    assert not serious, "\n".join(serious[:10])


def test_next_and_previous_lead_through_the_book(visit):
    page = visit.open(f"{PAGES[0]}.html")
    visited = [page.url]
    while (following := page.locator("a.right-next")).count():
        following.click()
        page.wait_for_load_state()
        visited.append(page.url)
        assert len(visited) <= len(PAGES)
    assert [url.removeprefix(visit.origin + "/") for url in visited] == [f"{p}.html" for p in PAGES]
    page.locator("a.left-prev").click()
    page.wait_for_load_state()
    assert page.url == visited[-2]


def test_search_finds_a_chapter_by_a_word_in_it(visit):
    page = visit.open("search.html?q=brain-tuned")
    page.locator("#search-results li a").first.wait_for()
    links = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("04_downstream" in link for link in links)


def test_dark_mode_can_be_chosen_and_stays(visit):
    page = visit.open(CHAPTER)
    mode = "document.documentElement.dataset.theme"
    background = "getComputedStyle(document.body).backgroundColor"
    page.evaluate("localStorage.setItem('mode', 'light')")
    page.reload()
    light = page.evaluate(background)
    for _ in range(3):
        if page.evaluate(mode) == "dark":
            break
        page.locator("button.theme-switch-button").first.click()
    assert page.evaluate(mode) == "dark" and page.evaluate(background) != light
    page.goto(f"{visit.origin}/{PAGES[0]}.html")
    assert page.evaluate(mode) == "dark"


def test_code_is_folded_and_unfolds(visit):
    page = visit.open(CHAPTER)
    folded = page.locator("div.cell details.hide").first
    code = folded.locator("div.highlight").first
    assert not code.is_visible()
    folded.locator("summary").click()
    assert code.is_visible()
    parameters = page.locator("div.cell.tag_parameters div.highlight").first
    assert parameters.is_visible()


def test_the_notebook_of_a_chapter_can_be_downloaded(visit):
    page = visit.open(CHAPTER)
    link = page.locator("a[href$='04_downstream.ipynb']").first
    reply = page.request.get(link.evaluate("a => a.href"))
    assert reply.ok and reply.json()["nbformat"] == 4


def test_the_explorer_answers_to_a_click(visit):
    page = visit.open(CHAPTER)
    explorer = page.locator(".explorer").first
    explorer.scroll_into_view_if_needed()
    before = explorer.inner_text()
    assert re.search(r"r = -?\d?\.?\d+|r = -?\d", before)
    explorer.locator("circle").first.dispatch_event("click")
    assert explorer.inner_text() != before
    assert not visit.errors


def test_one_can_choose_a_sound_see_it_and_hear_it(visit):
    page = visit.open("book/chapters/92_listen.html")
    listening = page.locator(".listening")
    picture, before = listening.locator("img.ear"), listening.locator(".found").inner_text()
    first = picture.get_attribute("src")
    listening.locator("select.sound").select_option(index=1)
    assert picture.get_attribute("src") != first
    assert listening.locator(".found").inner_text() != before
    audio = listening.locator("audio")
    assert audio.get_attribute("src").startswith("data:audio/mpeg;base64,")
    duration = audio.evaluate(
        "a => new Promise(done => { a.onloadedmetadata = () => done(a.duration); a.load(); })"
    )
    assert 0.5 < duration < 4
    listening.locator("circle").first.dispatch_event("click")
    assert "measured" in listening.locator(".found").inner_text() and not visit.errors
