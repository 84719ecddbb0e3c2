"""What a probe is, apart from how it is computed: grid, initial weights, random numbers.

Everything random is drawn from generators that depend on the seed, the epoch and the hidden layer
alone. So configurations share the order of the clips and the dropout masks (common random
numbers), one trained alone does exactly what it does among others, and they differ by what they
are rather than by luck.
"""

from dataclasses import dataclass

import torch

__all__ = [
    "BATCH",
    "BN_EPS",
    "BN_MOMENTUM",
    "DROPOUT",
    "INITIALISERS",
    "PAPER_GRID",
    "Configuration",
    "dropout_kept",
    "epoch_batches",
    "epoch_generator",
    "initial_parameters",
]

BATCH = 1024
DROPOUT = 0.1
BN_MOMENTUM, BN_EPS = 0.1, 1e-5
INITIALISERS = {
    "xavier_uniform": torch.nn.init.xavier_uniform_,
    "xavier_normal": torch.nn.init.xavier_normal_,
}


@dataclass(frozen=True)
class Configuration:
    """One point of the grid: hidden widths, learning rate, initial weights."""

    hidden: tuple[int, ...]
    learning_rate: float
    init: str

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.hidden))} lr {self.learning_rate:g} {self.init}"


PAPER_GRID = tuple(
    Configuration(hidden, rate, init)
    for hidden in ((1024,), (1024, 1024))
    for rate in (3.2e-3, 1e-3, 3.2e-4, 1e-4)
    for init in ("xavier_uniform", "xavier_normal")
)


def initial_parameters(
    configuration: Configuration,
    n_layers: int,
    n_units: int,
    n_classes: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """Draw the initial parameters of one probe, on the CPU.

    Equal for configurations that differ by the learning rate only. Biases start at 0 (the paper
    does not say). A linear map before batch norm has none: the norm would take it out again.

    Returns
    -------
    dict of str to tensor
        ``mix`` (n_layers,); ``weight<i>`` (n_out, n_in) and ``shift<i>`` (n_out,) of every linear
        map, and ``scale<i>`` (n_out,) of the batch norm after it, except for the last.
    """
    generator = _generator(seed, 0, torch.device("cpu"))
    widths = (n_units, *configuration.hidden)
    parameters = {"mix": torch.ones(n_layers, dtype=dtype)}
    for i, (n_in, n_out) in enumerate(zip(widths, (*widths[1:], n_classes), strict=True)):
        weight = torch.empty(n_out, n_in, dtype=torch.float32)
        INITIALISERS[configuration.init](weight, generator=generator)
        parameters[f"weight{i}"] = weight.to(dtype)
        if i < len(configuration.hidden):
            parameters[f"scale{i}"] = torch.ones(n_out, dtype=dtype)
        parameters[f"shift{i}"] = torch.zeros(n_out, dtype=dtype)
    return parameters


def epoch_generator(
    seed: int, epoch: int, device: torch.device, hidden_layer: int | None = None
) -> torch.Generator:
    """Random numbers of one epoch: for the order of the clips, or for one layer's dropout.

    Parameters
    ----------
    seed : int
        Of the training.
    epoch : int
        Counted from 1.
    device : torch.device
        Where the numbers are drawn.
    hidden_layer : int, optional
        Counted from 0, the layer whose dropout masks are drawn, one batch after the other. By
        default the generator is that of :func:`epoch_batches`.
    """
    stream = epoch if hidden_layer is None else epoch + 100_003 * (hidden_layer + 1)
    return _generator(seed, stream, device)


def dropout_kept(width: int, n_clips: int, generator: torch.Generator) -> torch.Tensor:
    """Draw what one dropout layer keeps, bool of shape (width, n_clips)."""
    return torch.rand((width, n_clips), generator=generator, device=generator.device) >= DROPOUT


def epoch_batches(n_clips: int, generator: torch.Generator) -> list[torch.Tensor] | list[slice]:
    """Rows of each step of one epoch, shuffled unless one step takes all.

    Batch norm cannot use a single clip, so a last batch of one joins the one before.
    """
    if n_clips <= BATCH:
        return [slice(None)]
    order = torch.randperm(n_clips, generator=generator, device=generator.device)
    batches = list(order.split(BATCH))
    if len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _generator(seed: int, stream: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed((seed + 1) * 1_000_003 + stream)
