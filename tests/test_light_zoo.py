from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis_lib import light_zoo, models, probes
from analysis_lib.data import hear, light_tasks
from analysis_lib.errors import DataError, MissingDataError, UnknownNameError


@pytest.fixture
def short(monkeypatch):
    """Generated notes only, and a few steps: no data, a second."""
    notes = light_zoo._notes()

    few = tuple(part[::12] for part in notes)
    monkeypatch.setattr(light_zoo, "_notes", lambda: few)
    recipe = replace(light_zoo.RECIPES["light-notes"], n_steps=8, batch_size=16)
    monkeypatch.setattr(light_zoo, "RECIPES", {**light_zoo.RECIPES, "light-notes": recipe})


def test_cards_name_the_recipes_they_were_made_by():
    """A changed recipe needs a new ``revision`` in cards.toml: copy it from this message."""
    expected = {name: light_zoo.revision(name) for name in light_zoo.RECIPES}
    assert {name: models.card(name).revision for name in light_zoo.RECIPES} == expected
    assert set(models.list_models(kind="trained-here")) == set(light_zoo.RECIPES)


def test_at_least_ten_light_representations():
    light = [
        name
        for kind in ("handcrafted", "untrained", "trained-here")
        for name in models.list_models(kind=kind)
    ]
    assert len(light) >= 10


def test_untrained_weights_are_asked_for_by_command():
    with pytest.raises(MissingDataError, match="brainbook train light-digits"):
        models.load("light-digits")
    assert models.load("light-digits", untrained=True).layers[-1] == "conv5"
    with pytest.raises(UnknownNameError, match="light-digits"):
        light_zoo.train("light-digit")


def test_training_is_reproducible_and_found_by_name(short):
    path = light_zoo.train("light-notes")
    first = models.load("light-notes")
    written = path.stat().st_mtime_ns
    assert light_zoo.train("light-notes") == path and path.stat().st_mtime_ns == written
    light_zoo.train("light-notes", again=True)
    again = models.load("light-notes")
    other = models.load("light-notes", checkpoint=light_zoo.train("light-notes", seed=1))
    fresh = models.load("light-notes", untrained=True)
    assert first.weights_sha256 == again.weights_sha256
    assert len({model.weights_sha256 for model in (first, other, fresh)}) == 3
    provenance = light_zoo.provenance(path)
    assert provenance["seed"] == 0 and provenance["recipe"]["n_steps"] == 8
    assert set(provenance["domains"]) == {"pitch", "instrument"}


def test_training_leaves_the_random_state_alone(short):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    light_zoo.train("light-notes")
    torch.testing.assert_close(torch.rand(3), expected)


def test_instruments_are_learned(monkeypatch):
    notes = light_zoo._notes()
    few = tuple(part[::6] for part in notes)
    monkeypatch.setattr(light_zoo, "_notes", lambda: few)
    recipe = replace(
        light_zoo.RECIPES["light-notes"], domains=("instrument",), n_steps=40, batch_size=24
    )
    monkeypatch.setattr(light_zoo, "RECIPES", {"light-notes": recipe})
    path = light_zoo.train("light-notes")
    assert light_zoo.provenance(path)["training_accuracy"]["instrument"] > 0.5  # chance: 1/8


def test_no_probe_note_is_heard_in_training():
    heard = {note.tobytes() for note in light_zoo._notes()[0]}
    for maker in (light_tasks._pitch, light_tasks._instrument):
        for entries in maker().values():
            assert not heard & {audio.tobytes() for _, audio in entries.values()}


def test_no_probe_clip_speaker_or_recording_is_heard_in_training(real_data):
    speakers = {clip[2] for clip in light_tasks.fsdd_clips()}
    assert speakers == {*light_tasks.PROBE_SPEAKERS, *light_tasks.ZOO_SPEAKERS}
    for name in ("spoken-digits", "spoken-speakers"):
        probed = {clip.split("_")[1] for clip in hear.task(name).clips}
        assert not probed & set(light_tasks.ZOO_SPEAKERS)
    heard = {
        file.name.split("-")[1]
        for file, _, fold in light_tasks.esc10_clips()
        if fold in light_tasks.ZOO_ESC10_FOLDS
    }
    probed = {clip.split("-")[1] for clip in hear.task("esc10-heldout").clips}
    assert not probed & heard


def test_probing_on_training_clips_is_refused(real_data, short):
    light_zoo.train("light-notes")
    model = models.load("light-notes")
    with pytest.raises(DataError, match="160 clips of esc10. Use .* esc10-heldout"):
        probes.evaluate(model, hear.task("esc10"), protocol="linear")


def test_excerpts_have_one_length_and_come_from_the_sound():
    rng = np.random.default_rng(0)
    long = torch.arange(300.0)[:, None].repeat(1, 4)
    excerpt = light_zoo._excerpt(long, rng)
    assert excerpt.shape == (light_zoo.FRAMES, 4)
    assert (excerpt.diff(dim=0) == 1).all()
    short = light_zoo._excerpt(torch.arange(10.0)[:, None], rng)
    assert sorted(set(short[:, 0].tolist())) == list(range(10))


@pytest.mark.slow
def test_training_helps_the_task_it_is_for(real_data):
    """Digits of unheard speakers, from a network trained on other speakers' digits."""
    task = hear.task("spoken-digits")
    light_zoo.train("light-digits")
    trained = probes.evaluate(models.load("light-digits"), task, protocol="linear")
    fresh = probes.evaluate(models.load("small-cnn"), task, protocol="linear")
    assert float(trained["mean_score"][0]) > float(fresh["mean_score"][0]) + 0.1
