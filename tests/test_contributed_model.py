"""What is asked of a model before it joins the zoo; by default of the template that the guide shows.

``BRAINBOOK_CONTRIBUTED=my-model pytest tests/test_contributed_model.py`` asks it of a model of the
zoo, with fresh weights.
"""

import importlib.util
import os
import tomllib
from types import MappingProxyType

import pytest
import torch
from published import click_time
from safetensors.torch import load_file, save_file

from analysis_lib import models
from analysis_lib.errors import AudioError, WeightsError
from analysis_lib.models import registry, weights
from analysis_lib.paths import project_root

TEMPLATE = project_root() / "book" / "guides" / "model_template.py"
NAME = os.environ.get("BRAINBOOK_CONTRIBUTED", "")


def template():
    """The template's module, and the card in its head."""
    spec = importlib.util.spec_from_file_location("model_template", TEMPLATE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    toml = module.__doc__.split("cards.toml``::")[1].split("Line for")[0]
    table = tomllib.loads(toml)
    ((name, entry),) = table["model"].items()
    values = {**table["family"][entry["family"]], **entry, "layers": tuple(entry["layers"])}
    options = MappingProxyType(values.pop("options", {}))
    return module, models.ModelCard(name=name, options=options, **values)


def build(seed=0):
    if NAME:
        return models.load(NAME, untrained=True, seed=seed, device="cpu")
    module, card = template()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(module, card.family)(card)
    model.network.eval().requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def noise(model, seconds, seed=0):
    n = int(seconds * model.sample_rate)
    return 0.1 * torch.randn(n, generator=torch.manual_seed(seed))


def test_every_layer_of_the_card_comes_out(model):
    outputs = model.embed(torch.stack([noise(model, 1.0), noise(model, 1.0, 1)]))
    assert tuple(outputs) == model.card.layers
    for layer, values in outputs.items():
        assert values.ndim >= 3 and len(values) == 2 and torch.isfinite(values).all(), layer
        assert not torch.equal(values[0], values[1]), f"{layer} does not depend on the sound"


def test_a_sound_gets_in_a_batch_what_it_gets_alone(model):
    long, short = noise(model, 1.5), noise(model, 1.0, 1)
    batch = torch.zeros(2, len(long))
    batch[0], batch[1, : len(short)] = long, short
    together = model.embed(batch, [len(long), len(short)])
    alone = model.embed(short[None])
    for layer, values in alone.items():
        n_frames = values.shape[1]
        torch.testing.assert_close(together[layer][1, :n_frames], values[0], rtol=1e-4, atol=1e-5)
        assert together[layer][1, n_frames:].isnan().all()


def test_frames_are_where_the_model_says(model):
    for layer in model.layers:
        if model.frame_rate(layer) > 0:
            early, late = (click_time(model, layer, 1.5, at) for at in (0.6, 0.9))
            step = 1 / model.frame_rate(layer)
            assert late - early == pytest.approx(0.3, abs=max(0.02, step))
            assert early == pytest.approx(0.6, abs=max(0.1, 1.5 * step))


def test_the_shortest_sound_is_taken_and_a_shorter_one_refused(model):
    shortest = noise(model, 1.0)[: model.min_samples]
    assert all(values.shape[1] >= 1 for values in model.embed(shortest[None]).values())
    with pytest.raises(AudioError, match="needs at least"):
        model.embed(shortest[None, :-1])


def test_weights_are_taken_exactly_or_not_at_all(model, tmp_path):
    path, tensors = tmp_path / "weights.safetensors", dict(model.network.state_dict())
    if not tensors:
        pytest.skip("has no weights")
    if NAME:
        pytest.skip("the published names may differ: tested with the family's manifest")
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    other = build(seed=1)
    assert other.weights_sha256 != model.weights_sha256
    fresh = build(seed=1)
    weights.load_published(fresh, path)
    assert fresh.weights_sha256 == model.weights_sha256
    for spoil in (lambda t: t.pop(next(iter(t))), lambda t: t.update(extra=torch.ones(1))):
        spoiled = load_file(path)
        spoil(spoiled)
        save_file(spoiled, tmp_path / "spoiled.safetensors")
        with pytest.raises(WeightsError, match="missing|unexpected"):
            weights.load_published(build(), tmp_path / "spoiled.safetensors")


def test_fresh_weights_are_repeatable(model):
    assert build().weights_sha256 == model.weights_sha256


def test_the_number_of_parameters_is_the_one_of_the_card(model):
    counted = sum(parameter.numel() for parameter in model.network.parameters())
    assert model.card.parameters in (None, counted)


def test_the_template_names_the_class_as_the_registry_wants_it():
    module, card = template()
    assert f'"{card.family}": "my_family:{card.family}"' in module.__doc__
    assert card.family not in registry.FAMILIES
