"""Any audio encoder of the transformers library: ``hf:<repository or folder>``.

The class is the one that the checkpoint was saved from, weights are read in float32, and every
tensor that is missing, left over or of the wrong shape is an error: left to itself the library
fills missing tensors with random numbers and says so in a log line.

Layers are the library's hidden states: ``Embedding`` is the input of the first block,
``Encoder_i`` the output of the ``i``-th; where the library counts the final norm (or pooling) as
part of the last hidden state, so does the last layer. Layers of codecs are the blocks of their
convolutional encoder, then of its transformer if there is one.

Sounds go through the feature extractor saved with the model, or else through the default one of
its architecture. Networks that take a fixed length get the sound in windows of that length, the
last one padded as the extractor does, and give the frames that begin within the sound.
"""

import json
import re
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from ..errors import MissingDataError, UnknownNameError, WeightsError
from .audio_model import AudioModel
from .cards import ModelCard
from .encoder_table import ENCODERS
from .encoders import CODEC, Encoder
from .taps import run_tapped

__all__ = ["HuggingFace", "describe", "open_model"]

PREFIX = "hf:"
TRAINING_ONLY = re.compile(r"(.*\.)?masked_spec_embed")


def describe(name: str) -> ModelCard:
    """Card of a model: reads its configuration, not its weights."""
    return Repository(name).card


def open_model(name: str, untrained: bool = False) -> "HuggingFace":
    """Model of a repository or folder, with its weights (or fresh ones)."""
    return HuggingFace(Repository(name), untrained)


class Repository:
    """What a Hugging Face repository or folder says about its model.

    Parameters
    ----------
    name : str
        ``hf:<folder>``, ``hf:<repository>`` or ``hf:<repository>@<revision>``.

    Raises
    ------
    MissingDataError
        When there is no such folder, and no such repository within reach.
    UnknownNameError
        When the architecture is none that we know.
    """

    def __init__(self, name: str):
        self.name = name
        self.source, _, revision = name.removeprefix(PREFIX).partition("@")
        if Path(name.removeprefix(PREFIX)).is_dir():
            self.source, revision = name.removeprefix(PREFIX), ""
        self.options = {"revision": revision} if revision else {}
        settings = self._settings()
        architectures = settings.get("architectures") or []
        model_type = settings.get("model_type", "")
        if model_type not in ENCODERS:
            raise UnknownNameError("architecture of audio encoder", model_type, ENCODERS)
        self.encoder = ENCODERS[model_type]
        module = self.encoder.load_module()
        class_name = architectures[0] if architectures else self.encoder.class_name
        if not hasattr(module, class_name):
            raise WeightsError(
                f"{name} was saved from {class_name}, which transformers does not have in "
                f"{module.__name__}. Code that comes with a checkpoint is not run."
            )
        self.model_class = getattr(module, class_name)
        self.encoder_class = getattr(module, self.encoder.class_name)

    def _settings(self) -> Mapping:
        from transformers import PreTrainedConfig

        try:
            settings, _ = PreTrainedConfig.get_config_dict(self.source, **self.options)
        except (OSError, ValueError) as error:
            raise MissingDataError(
                f"no model {self.source!r}: there is no such folder with a config.json, and it "
                f"could not be had from huggingface.co ({str(error).splitlines()[0]})"
            ) from error
        return settings

    @cached_property
    def config(self):
        """Configuration of the class that was saved."""
        return self.model_class.config_class.from_pretrained(self.source, **self.options)

    @cached_property
    def extractor(self):
        """Feature extractor saved with the model, or the default of its architecture."""
        from transformers import AutoFeatureExtractor

        try:
            return AutoFeatureExtractor.from_pretrained(self.source, **self.options)
        except (OSError, ValueError, json.JSONDecodeError):
            return self.encoder.default_extractor(self.skeleton.config)

    @cached_property
    def skeleton(self) -> nn.Module:
        """Encoder without memory for its weights."""
        with torch.device("meta"):
            return self.pick(self.model_class(self.config))

    def pick(self, model: nn.Module) -> nn.Module:
        """Audio encoder within a model."""
        for module in model.modules():
            if type(module) is self.encoder_class:
                return module
        raise WeightsError(
            f"{self.name}: {type(model).__name__} holds no {self.encoder_class.__name__}"
        )

    def load(self) -> nn.Module:
        """Read the encoder with its weights, every tensor accounted for."""
        try:
            with _without_progress_bars():
                model, report = self.model_class.from_pretrained(
                    self.source, dtype=torch.float32, output_loading_info=True,
                    ignore_mismatched_sizes=True, **self.options,
                )  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{self.name} could not be read: {error}") from error
        problems = [
            f"{label}: {', '.join(map(str, names[:8]))}"
            for label, key in (
                ("missing", "missing_keys"),
                ("unexpected", "unexpected_keys"),
                ("wrong shape", "mismatched_keys"),
            )
            if (names := [n for n in sorted(report[key]) if not TRAINING_ONLY.fullmatch(str(n))])
        ]
        if problems:
            raise WeightsError(
                f"{self.name} does not fit {self.model_class.__name__}, the class it says it was "
                f"saved from. {'. '.join(problems)}."
            )
        return self.pick(model)

    def build(self) -> nn.Module:
        """Make the encoder with fresh weights."""
        return self.pick(self.model_class(self.config)).float()

    @cached_property
    def card(self) -> ModelCard:
        """Card made from the configuration."""
        layers = self.encoder.layers(self.skeleton)
        kept = self.encoder.kept(self.skeleton)
        return ModelCard(
            name=self.name,
            label=self.source.rstrip("/").rsplit("/", 1)[-1],
            family="Hugging Face",
            kind="published",
            architecture=f"{self.encoder_class.__name__} of the transformers library",
            sample_rate=self.extractor.sampling_rate,
            layers=tuple(layers),
            parameters=sum(p.numel() for p in kept.parameters()),
            training_data="see its page",
            source="" if Path(self.source).is_dir() else f"https://huggingface.co/{self.source}",
            revision=self.options.get("revision", ""),
            licence="see its page",
        )


@contextmanager
def _without_progress_bars():
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class HuggingFace(AudioModel):
    """An audio encoder of the transformers library.

    Parameters
    ----------
    repository : Repository
        Where it comes from.
    untrained : bool
        Fresh weights instead of the saved ones.
    """

    def __init__(self, repository: Repository, untrained: bool = False):
        super().__init__(repository.card)
        self._encoder: Encoder = repository.encoder
        self._extractor = repository.extractor
        model = repository.build() if untrained else repository.load()
        self.network = self._encoder.kept(model)
        self._config = model.config
        self.min_samples = self._encoder.min_samples(self._config, self._extractor)
        self._grids = self._encoder.grids(self.network, self._config, self._extractor)

    @property
    def identity(self) -> dict[str, str]:
        """What the features depend on, the settings of network and extractor included."""
        settings = (self._config.to_dict(), self._extractor.to_dict())
        return super().identity | {"settings": json.dumps(settings, sort_keys=True, default=str)}

    def _forward(self, waveforms, layers):
        window = self._encoder.window(self._config, self._extractor)
        if window is None:
            return self._frames(waveforms, layers)
        # A window is followed by the next one where its last frame ends.
        n_samples, n_frames = window
        step = n_frames * self._grids[self.layers[0]][0]
        parts = []
        for start in range(0, waveforms.shape[1], round(step)):
            part = waveforms[:, start : start + n_samples]
            short = max(0, self.min_samples - part.shape[1])
            frames = self._frames(nn.functional.pad(part, (0, short)), layers)
            parts.append(
                {
                    layer: values[:, : self._n_inside(layer, min(part.shape[1], round(step)))]
                    for layer, values in frames.items()
                }
            )
        return {layer: torch.cat([part[layer] for part in parts], dim=1) for layer in layers}

    def _frames(self, waveforms: torch.Tensor, layers) -> dict[str, torch.Tensor]:
        inputs = self._inputs(waveforms)
        if self._encoder.kind == CODEC:
            modules = self._encoder.layers(self.network)
            taken = run_tapped(
                lambda: self._encoder.run(self.network, inputs["input_values"]),
                {layer: modules[layer] for layer in layers},
            )
            return {
                layer: self._encoder.frames(values, layer, self._config)
                for layer, values in taken.items()
            }
        states = self.network(**inputs, output_hidden_states=True, return_dict=True).hidden_states
        if len(states) != len(self.layers):
            raise WeightsError(
                f"{self.card.name} gave {len(states)} hidden states instead of {len(self.layers)}"
            )
        by_name = dict(zip(self.layers, states, strict=True))
        return {
            layer: self._encoder.frames(by_name[layer], layer, self._config) for layer in layers
        }

    def _inputs(self, waveforms: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the feature extractor on each sound; its output on the model's device."""
        made = self._extractor(
            [*waveforms.cpu().numpy()], sampling_rate=self.sample_rate, return_tensors="pt",
            **self._encoder.extractor_arguments,
        )  # fmt: skip
        inputs = {}
        for name in self._encoder.accepted:
            if name in made:
                value = torch.as_tensor(made[name]).to(waveforms.device)
                value = value.float() if value.is_floating_point() else value
                inputs[self._encoder.renamed.get(name, name)] = value
        return inputs

    def _n_inside(self, layer: str, n_samples: int) -> int:
        """Count a layer's frames that begin within the first ``n_samples``."""
        step, _ = self._grids[layer]
        return max(1, int(-(-n_samples // step)))

    def _frame_grid(self, layer):
        step, first = self._grids[layer]
        return step / self.sample_rate, first / self.sample_rate
