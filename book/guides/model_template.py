"""A model family: copy this file to ``analysis_lib/models/``, rename, replace.

Card, for ``analysis_lib/models/cards.toml``::

    [family.MyFamily]
    source = "https://example.org/where-the-weights-are"
    licence = "MIT"
    citation = "author2026key"

    [model.my-model]
    label = "My model"
    family = "MyFamily"
    kind = "untrained"
    architecture = "two convolutions on the waveform"
    training_data = "none"
    parameters = 48252
    sample_rate = 16000
    layers = ["filters", "mixtures"]
    options = { n_filters = 32 }

Line for ``FAMILIES`` in ``analysis_lib/models/registry.py``::

    "MyFamily": "my_family:MyFamily",
"""

from collections.abc import Collection

import torch
from torch import nn

from analysis_lib.models import AudioModel, ModelCard
from analysis_lib.models.taps import run_tapped, stacked_grid

# Kernel, stride and padding of each layer's convolution: from these its frames have their times.
CONVOLUTIONS = {"filters": (400, 160, 0), "mixtures": (5, 2, 0)}


class MyNetwork(nn.Module):
    """The network as its authors published it, with their names, so that their weights fit."""

    def __init__(self, n_filters: int):
        super().__init__()
        kernel, stride, _ = CONVOLUTIONS["filters"]
        self.filters = nn.Conv1d(1, n_filters, kernel, stride)
        kernel, stride, _ = CONVOLUTIONS["mixtures"]
        self.mixtures = nn.Conv1d(n_filters, 220, kernel, stride)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """From (batch, time) to (batch, unit, frame)."""
        return self.mixtures(self.filters(waveforms[:, None]).relu()).relu()


class MyFamily(AudioModel):
    """My family of models.

    Layers ``filters``: (batch, frame, n_filters) and ``mixtures``: (batch, frame, 220), output of
    each convolution.

    References
    ----------
    Author & Author (2026), where it was published.
    """

    # Raise it when the family computes something else: features are stored under it.
    code_version = "1"
    # Shortest sound that gives a frame in every layer: 5 frames of the first are one of the last.
    min_samples = 400 + 4 * 160
    # Published tensors that no layer depends on, as regular expressions: r"classifier\..*"
    unused_tensors = ()

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.network = MyNetwork(**card.options)

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        wanted = {layer: getattr(self.network, layer) for layer in layers}
        outputs = run_tapped(lambda: self.network(waveforms), wanted)
        return {layer: outputs[layer].transpose(1, 2) for layer in layers}

    def _frame_grid(self, layer: str) -> tuple[float, float]:
        order = list(CONVOLUTIONS)
        below = [CONVOLUTIONS[name] for name in order[: order.index(layer) + 1]]
        return stacked_grid(below, 1 / self.sample_rate, 0.5 / self.sample_rate)
