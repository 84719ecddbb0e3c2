import base64
import io
import json
import re

import nbformat
import numpy as np
import pytest
import soundfile
import xarray as xr
from PIL import Image

from analysis_lib import data, execution, figures
from analysis_lib.errors import ParameterError


@pytest.fixture
def measured():
    values = np.random.default_rng(0).standard_normal((5, 2))
    coords = {"sound": list("abcde"), "target": ["Pitch", "Music"]}
    array = xr.DataArray(values, coords, ("sound", "target"))
    return array.assign_coords(category=("sound", ["speech"] * 3 + ["music"] * 2))


def content_of(html):
    return json.loads(re.search(r"const data = (.*);\n", html)[1])


def test_holds_what_was_measured_predicted_seen_and_heard(measured):
    wave = np.sin(np.arange(20_000) * 2 * np.pi * 440 / 20_000).astype(np.float32)
    picture = np.zeros((200, 211))
    picture[:, 150:] = 1.0  # high frequencies
    reversed_order = (measured + 0.1).isel(sound=slice(None, None, -1))
    html = figures.listening_html({"b": picture}, measured, reversed_order, {"b": wave}, 20_000)
    content = content_of(html)
    assert content["targets"] == ["Pitch", "Music"] and content["scores"] == [1.0, 1.0]
    first, second = content["sounds"][:2]
    assert first["name"] == "a" and not first["picture"] and not first["audio"]
    np.testing.assert_allclose(second["measured"], second["predicted"], atol=2e-3)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(second["picture"]))).convert("L"))
    assert image[:5].mean() > 100 > image[-5:].mean()  # high frequencies are above
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(second["audio"])))
    spectrum = np.abs(np.fft.rfft(heard[:16_000]))
    assert rate == 16_000 and abs(int(spectrum.argmax()) - 440) <= 2
    assert "http://www.w3.org" in html and "https://" not in html


def test_refuses_unknown_sounds_and_large_pages(measured):
    with pytest.raises(ParameterError, match="without a response: z"):
        figures.listening_html({"z": np.eye(3)}, measured, measured)
    noise = np.random.default_rng(1).standard_normal(16_000 * 300).astype(np.float32) * 0.1
    with pytest.raises(ParameterError, match=r"and 1 MB is the most: show fewer"):
        figures.listening_html({}, measured, measured, {"a": noise})


def test_spreads_over_categories():
    sounds = data.simulated_sounds(4)
    chosen = sounds.spread(7)
    kinds = [sounds.categories[sounds.names.index(name)] for name in chosen]
    assert len(set(chosen)) == 7 and set(kinds) == set(sounds.categories)
    assert max(map(kinds.count, kinds)) == 2 and sounds.spread(99) == list(sounds.names)


def test_sounds_without_a_licence_are_never_in_a_copy_to_pass_on(real_data):
    values = {
        "profile": "natsound", "public": True, "model": "log-mel", "n_sounds": 3,
    }  # fmt: skip
    executed = nbformat.read(execution.run("listen", values), 4)
    (page,) = (
        output["data"]["text/html"]
        for cell in executed.cells
        for output in cell.get("outputs", ())
        if "listening" in output.get("data", {}).get("text/html", "")
    )
    sounds = content_of(page)["sounds"]
    assert len(sounds) == 165 and not any(sound["audio"] for sound in sounds)
    assert sum(bool(sound["picture"]) for sound in sounds) == 3
    assert not data.may_be_passed_on("nh2015-components") and data.may_be_passed_on("simulated")


def test_nothing_but_this_page_plays_sounds():
    """Audio enters the book in one place, which knows what may be passed on."""
    for name, source in execution.chapters().items():
        if name != "listen":
            assert "Audio(" not in source.read_text(), name


def test_a_public_book_asks_its_chapters_to_leave_sounds_out(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        execution, "run", lambda name, values, *rest: asked.setdefault(name, values)
    )
    for writer in ("write_status", "write_claims", "write_answer", "write_parameters", "render"):
        monkeypatch.setattr(execution, writer, lambda *arguments: None)
    execution.build_book("demo", public=True)
    assert asked["listen"]["public"] is True and "public" not in asked["encoding"]
