"""What the networks trained on cochleagrams share: front end, axes and checkpoint format."""

import re
from collections.abc import Collection, Iterator, Mapping

import torch

from .audio_model import AudioModel
from .cards import ModelCard
from .cochleagram import CochleagramTransform, normalize_level
from .taps import take_layers

__all__ = ["CochDNN"]

# Every network but those trained on words alone has a head for each task.
TASKS = ("signal/word_int", "signal/speaker_int", "noise/labels_binary_via_int")


class CochDNN(AudioModel):
    """Base of the networks on cochleagrams of Tuckute, Feather et al. (2023).

    A network here is a module with ``stages(cochleagrams)``, which yields each layer's name and
    its output of shape (batch, channel, frequency, time) or (batch, unit).

    Attributes
    ----------
    head : str
        Published name of the classifier(s), which no layer depends on.
    """

    head: str
    min_samples = CochleagramTransform.min_samples

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.cochleagram = CochleagramTransform()
        tasks = [re.escape(f".{task}") for task in TASKS] if card.options["all_heads"] else [""]
        self.unused_tensors = (
            rf"{self.head}({'|'.join(tasks)})\.(weight|bias)",
            # The front end's tables, and a second copy of everything (adversarial training).
            r"preproc\..+",
            r"model\.0\..+",
            r"attacker\..+",
        )

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        cochleagrams = self.cochleagram(normalize_level(waveforms)).unsqueeze(1)
        taken = take_layers(self._stages(cochleagrams, layers), layers)
        return {
            layer: output.unsqueeze(1) if output.ndim == 2 else output.permute(0, 3, 1, 2)
            for layer, output in taken.items()
        }

    def _stages(
        self, cochleagrams: torch.Tensor, layers: Collection[str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        return self.network.stages(cochleagrams)

    def from_published(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Strip the name of the network within the published front end and network."""
        return {name.removeprefix("model.1."): tensor for name, tensor in tensors.items()}
