"""Filling networks with weights: exactly, or not at all."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..errors import WeightsError, WeightsNotice
from .audio_model import AudioModel
from .checkpoints import read_with_settings

__all__ = [
    "check_settings",
    "check_tied",
    "load_exactly",
    "load_published",
    "parameters_unfilled",
    "permute",
]


@contextmanager
def parameters_unfilled() -> Iterator[None]:
    """Build networks whose parameters have shapes but no storage and draw no random numbers.

    For networks that a checkpoint is about to fill: :func:`load_exactly` then takes over the
    tensors of the checkpoint without a copy. Buffers are computed as always. A parameter that
    nothing fills stays on the meta device and cannot compute.
    """

    def unfilled(module, name, parameter):
        if parameter is None or parameter.is_meta:
            return None
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(unfilled)
    try:
        yield
    finally:
        handle.remove()


def load_published(model: AudioModel, path: str | Path) -> None:
    """Fill a model from a published checkpoint, every tensor accounted for.

    Parameters
    ----------
    model : AudioModel
        Its family says which published name belongs where
        (:meth:`AudioModel.from_published`) and which published tensors inference does not
        need (``unused_tensors``).
    path : path
        The published file, a ``.safetensors`` file with the same tensor names, or a folder.

    Raises
    ------
    WeightsError
        Naming every tensor that is missing, left over or of the wrong shape.
    """
    published, settings = read_with_settings(Path(path))
    model.accept_settings(settings)
    tensors = model.from_published(published)
    load_exactly(model.network, tensors, unused=model.unused_tensors, source=path)
    model.__dict__.pop("weights_sha256", None)


def load_exactly(
    network: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    unused: Sequence[str] = (),
    source: str | Path = "checkpoint",
) -> None:
    """Copy tensors into a network; a silently random network is the failure to prevent.

    Parameters
    ----------
    network : torch.nn.Module
        Where every parameter and persistent buffer must be filled.
    tensors : mapping of str to tensor
        By the network's own names.
    unused : sequence of str
        Regular expressions (full match) of tensors that may be there and are not needed.
    source : path
        For messages.

    Raises
    ------
    WeightsError
    """
    wanted = network.state_dict()
    missing = sorted(
        name for name in wanted.keys() - tensors.keys() if not name.endswith("num_batches_tracked")
    )
    left_over = sorted(
        name
        for name in tensors.keys() - wanted.keys()
        if not any(re.fullmatch(pattern, name) for pattern in unused)
    )
    misshaped = [
        f"{name} is {tuple(tensors[name].shape)}, should be {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    problems = [
        f"{label}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
        for label, names in (
            ("missing", missing),
            ("unexpected", left_over),
            ("wrong shape", misshaped),
        )
        if names
    ]
    if problems:
        stranger = "It is the checkpoint of another model: hardly any name is one of this network. "
        hint = stranger if 2 * len(missing) > len(wanted) else ""
        raise WeightsError(f"{source} does not fit the network. {hint}{'. '.join(problems)}.")
    unfilled = any(target.is_meta for target in wanted.values())
    fitting = {
        name: tensors[name].to(target.dtype).contiguous()
        for name, target in wanted.items()
        if name in tensors
    }
    network.load_state_dict(fitting, strict=False, assign=unfilled)


def check_settings(
    model: AudioModel, found: Mapping[str, object], expected: Mapping[str, object]
) -> None:
    """Refuse a checkpoint that says of itself that it is of another network.

    Parameters
    ----------
    model : AudioModel
        For messages.
    found : mapping
        What the checkpoint says; entries that are not expected are not looked at.
    expected : mapping
        What it must say where it says anything.

    Raises
    ------
    WeightsError
    """
    wrong = [
        f"{name} = {found[name]!r} (should be {value!r})"
        for name, value in expected.items()
        if name in found and found[name] != value
    ]
    if wrong:
        raise WeightsError(
            f"the checkpoint is not one of {model.card.name}. Its settings say {', '.join(wrong)}."
        )


def check_tied(tensors: Mapping[str, torch.Tensor], pattern: str) -> None:
    """Warn when copies of what should be one tensor differ.

    Parameters
    ----------
    tensors : mapping of str to tensor
        By published name, first layer first.
    pattern : str
        Regular expression (full match); names with the same first group are copies.

    Warns
    -----
    WeightsNotice
        A network that shares one module between its layers ends up with the last copy.
    """
    first: dict[str, torch.Tensor] = {}
    different = []
    for name, tensor in tensors.items():
        match = re.fullmatch(pattern, name)
        if match and not torch.equal(first.setdefault(match[1], tensor), tensor):
            different.append(name)
    if different:
        notice = WeightsNotice(
            f"{different[0]} and {len(different) - 1} more tensors differ from their copies in "
            "the first layer, though the network has one tensor for all layers. The last copy "
            "is used everywhere, as the original code does."
        )
        warnings.warn(notice, stacklevel=3)


def permute(model: AudioModel, seed: int = 0) -> None:
    """Shuffle the values within every learned tensor, in place.

    The control of Tuckute et al. (2023): the same distribution of weights in each layer,
    nothing of what was learned.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
    model.__dict__.pop("weights_sha256", None)
