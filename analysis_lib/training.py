"""One training loop for every network that is trained here.

A run is a folder. What a step does depends on the seed and the number of the step alone: which
sounds it sees, what dropout draws. So a run that was killed goes on where it was and ends with the
weights of a run that was not.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from .errors import ParameterError, TrainingError, WeightsError
from .paths import atomic_path
from .processes import Processes, processes

__all__ = ["Training", "checkpoints", "fit", "log_spaced_steps"]

log = logging.getLogger("brainbook")

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
_NAME = re.compile(r"step-(\d{8})\.safetensors")
_STATE = ".state.pt"
_HISTORY = "history.jsonl"
_ABOUT = "about.json"


@dataclass(frozen=True)
class Training:
    """A run of training: a folder with checkpoints and a record.

    Attributes
    ----------
    folder : Path
    history : DataFrame
        A row per step: ``step`` (of updates done), ``loss``, ``gradient_norm``, ``learning_rate``,
        ``seconds`` (without the evaluation), the objective's metrics, and
        ``validation_<name>`` where it was evaluated.
    checkpoints : dict of int to Path
        Weights by step.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from analysis_lib import training
    >>> class Mean(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.value = torch.nn.Parameter(torch.zeros(()))
    ...
    ...     def forward(self, x):
    ...         return ((x - self.value) ** 2).sum(), torch.tensor(float(len(x))), {}
    ...
    >>> mean, ones = Mean(), (torch.ones(4),)
    >>> sgd, folder = torch.optim.SGD(mean.parameters(), lr=0.1), tempfile.mkdtemp()
    >>> run = training.fit(mean, lambda *_: ones, sgd, folder, n_steps=3, progress=False)
    >>> run.history["loss"].round(2).tolist()
    [nan, 1.0, 0.64, 0.41]
    """

    folder: Path
    history: pd.DataFrame
    checkpoints: dict[int, Path]


def log_spaced_steps(last: int, n: int, first: int = 1) -> list[int]:
    """Space steps in equal ratios: 0, then ``n`` numbers from ``first`` to ``last``.

    Rounding makes small numbers meet, so that there may be fewer.

    Examples
    --------
    >>> from analysis_lib import training
    >>> training.log_spaced_steps(1000, 4)
    [0, 1, 10, 100, 1000]
    """
    if not 1 <= first <= last or n < 1:
        raise ParameterError(
            f"steps from {first} to {last} in {n}: need 1 <= first <= last, n >= 1"
        )
    return sorted({0, last, *np.geomspace(first, last, n).round().astype(int).tolist()})


def checkpoints(folder: str | Path) -> dict[int, Path]:
    """Weights in a run's folder, by step: those whose writing was finished.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from analysis_lib import training
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for suffix in (".safetensors", ".state.pt"):
    ...     (folder / f"step-00000100{suffix}").touch()
    ...
    >>> {step: path.name for step, path in training.checkpoints(folder).items()}
    {100: 'step-00000100.safetensors'}
    """
    found = {}
    for path in sorted(Path(folder).glob("step-*.safetensors")):
        match = _NAME.fullmatch(path.name)
        if match and path.with_suffix(_STATE).is_file():
            found[int(match[1])] = path
    return found


def fit(
    objective: nn.Module,
    batch_of: Callable[[int, int, int], Sequence[torch.Tensor]],
    optimiser: torch.optim.Optimizer,
    folder: str | Path,
    *,
    n_steps: int,
    checkpoint_steps: Sequence[int] = (),
    save_every: int = 0,
    schedule=None,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
    stop: Callable[[pd.DataFrame], bool] | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    compile: bool = False,
    clip_norm: float | None = None,
    seed: int = 0,
    device: str = "auto",
    about: Mapping[str, object] | None = None,
    resume_from: int | None = None,
    audio_per_step: float = 0.0,
    progress: bool = True,
) -> Training:
    """Train until a number of steps is done, going on from what the folder holds.

    Parameters
    ----------
    objective : Module
        ``forward(*batch)`` gives ``(loss_sum, weight, metrics)``: a sum over what the loss
        averages, how many that were, and a dict of further sums. The loss of a step is the sum
        over all its parts divided by their weight, so that parts and processes together do what
        one large batch does. (Batch normalisation in training mode sees one part at a time.)
    batch_of : callable
        ``batch_of(step, part, n_parts)`` gives one part of the batch of a step, as tensors. It
        must depend on its arguments alone. What is random per sound (a crop, a mask) is best
        drawn here, from the step and the number of the sound: then it does not depend on how the
        batch was divided.
    optimiser : Optimizer
        Over the parameters of ``objective``.
    folder : path
        Where checkpoints and record are; made if absent. In another process' folder of the same
        run this call goes on from its last checkpoint.
    n_steps : int
        Updates in all.
    checkpoint_steps : sequence of int
        Steps whose weights are kept, as ``step-<step>.safetensors``, with the optimiser beside
        them. The last step always is.
    save_every : int
        Save as often as this too, to lose little when killed; such a checkpoint is removed once a
        later one is there. 0: at ``checkpoint_steps`` only.
    schedule : torch.optim.lr_scheduler, optional
        Stepped after every update; a ``ReduceLROnPlateau`` after every evaluation, with its loss.
    evaluate, evaluate_every : callable, int
        ``evaluate(step)`` gives numbers for the record every so many steps, and at step 0. The
        objective is in evaluation mode then, and gradients are off.
    stop : callable, optional
        Given the record after an evaluation, tells whether to end. Must depend on the record
        alone, so that a resumed run stops where the other one would have.
    accumulate : int
        Parts into which each process divides its share of a batch, to save memory.
    precision : {"float32", "bfloat16"}
        bfloat16 computes the forward pass in mixed precision; weights stay float32.
    compile : bool
        Compile the objective with ``torch.compile``.
    clip_norm : float, optional
        Largest norm of the gradient.
    seed : int
        Decides everything that the objective draws.
    device : str
        See :func:`analysis_lib.device.resolve_device`.
    about : mapping, optional
        What the run is, in words and numbers that JSON holds; a folder of another is refused.
    resume_from : int, optional
        Step of a checkpoint to go on from, instead of the last.
    audio_per_step : float
        Seconds of sound in a batch, for the progress bar to show a rate.
    progress : bool
        Show a bar.

    Returns
    -------
    Training

    Raises
    ------
    TrainingError
        When a loss or gradient is not finite: nothing of that step is kept, and the message names
        the last good checkpoint.
    ParameterError
        When the folder is another run's, or ``resume_from`` was not saved.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from analysis_lib import training
    >>> class Slope(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.slope = torch.nn.Parameter(torch.zeros(1))
    ...
    ...     def forward(self, x):
    ...         error = (self.slope * x - 2 * x) ** 2
    ...         return error.sum(), torch.tensor(float(len(x))), {}
    ...
    >>> def batch_of(step, part, n_parts):
    ...     return (torch.arange(1.0, 5.0)[part::n_parts],)
    ...
    >>> line, folder = Slope(), tempfile.mkdtemp()
    >>> sgd = torch.optim.SGD(line.parameters(), lr=0.05)
    >>> run = training.fit(line, batch_of, sgd, folder, n_steps=20, device="cpu", progress=False)
    >>> round(line.slope.item(), 2), sorted(run.checkpoints)
    (2.0, [20])
    """
    folder = Path(folder)
    if precision not in PRECISIONS:
        raise ParameterError(f"precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    with processes(device) as group, torch.random.fork_rng(_cuda_devices(group.device)):
        run = _Run(objective, optimiser, schedule, folder, group)
        if group.is_first:
            run.claim({**(about or {}), "seed": seed, "precision": precision})
        group.wait()
        objective.to(group.device)
        step = run.resume(resume_from)
        forward = group.parallel(torch.compile(objective) if compile else objective)
        kept = {*checkpoint_steps, n_steps}
        if step == 0 and not run.record:
            run.add({"step": 0, **run.evaluated(evaluate, evaluate_every, 0)})
            if 0 in kept:
                run.save(0, kept)
        bar = tqdm(
            total=n_steps, initial=step, unit="step", disable=not (progress and group.is_first)
        )
        autocast = (
            torch.autocast(group.device.type, PRECISIONS[precision])
            if PRECISIONS[precision]
            else nullcontext()
        )
        objective.train()
        while step < n_steps and not (run.was_evaluated and stop and stop(run.history)):
            started = time.perf_counter()
            row = _gradient(forward, batch_of, step, accumulate, group, autocast, seed, optimiser)
            row["gradient_norm"] = _clip(objective, clip_norm)
            if not np.isfinite([row["loss"], row["gradient_norm"]]).all():
                raise TrainingError(run.not_finite(step + 1, row))
            optimiser.step()
            step += 1
            row["learning_rate"] = optimiser.param_groups[0]["lr"]
            plateau = isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)
            if schedule is not None and not plateau:
                schedule.step()
            row["seconds"] = time.perf_counter() - started
            found = run.evaluated(evaluate, evaluate_every, step)
            if found and plateau:
                schedule.step(found["validation_loss"])
            run.add({"step": step, **row, **found})
            if step in kept or (save_every and step % save_every == 0):
                run.save(step, kept)
            bar.update()
            bar.set_postfix(_shown(row, audio_per_step), refresh=False)
        bar.close()
        if step not in checkpoints(folder):
            run.save(step, kept | {step})
        group.wait()
        return Training(folder, run.history, checkpoints(folder))


def _gradient(
    forward: nn.Module,
    batch_of: Callable,
    step: int,
    accumulate: int,
    group: Processes,
    autocast,
    seed: int,
    optimiser: torch.optim.Optimizer,
) -> dict[str, float]:
    """Leave the gradient of a step's loss in the parameters; gives the loss and metrics."""
    optimiser.zero_grad()
    n_parts = group.n * accumulate
    sums: dict[str, torch.Tensor] = {}
    exact = torch.float32 if group.device.type == "mps" else torch.float64  # MPS has no float64
    for micro in range(accumulate):
        part = group.rank * accumulate + micro
        batch = [tensor.to(group.device) for tensor in batch_of(step, part, n_parts)]
        torch.manual_seed(int(np.random.SeedSequence([seed, step, part]).generate_state(1)[0]))
        last = micro == accumulate - 1
        with nullcontext() if last or group.n == 1 else forward.no_sync():
            with autocast:
                loss_sum, weight, metrics = forward(*batch)
            loss_sum.backward()
        terms = {"loss": loss_sum, "weight": weight, **metrics}
        for name, term in terms.items():
            term = torch.as_tensor(term, device=group.device).detach().to(exact)
            sums[name] = sums[name] + term if name in sums else term
    totals = group.sum(torch.stack(list(sums.values())))
    weight = totals[list(sums).index("weight")]
    # The processes' gradients were averaged, and the loss is one sum over one weight.
    scale = (group.n / weight).float()
    for parameters in optimiser.param_groups:
        for parameter in parameters["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
    values = (totals / weight).tolist()
    return {name: value for name, value in zip(sums, values, strict=True) if name != "weight"}


def _clip(objective: nn.Module, clip_norm: float | None) -> float:
    """Norm of the gradient, which is made no longer than ``clip_norm``."""
    if clip_norm is not None:
        return float(nn.utils.clip_grad_norm_(objective.parameters(), clip_norm))
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    return float(nn.utils.get_total_norm(gradients))


def _shown(row: Mapping[str, float], audio_per_step: float) -> dict[str, str]:
    shown = {"loss": f"{row['loss']:.3f}"}
    if audio_per_step:
        shown["audio s/s"] = f"{audio_per_step / row['seconds']:,.0f}"
    return shown


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


class _Run:
    """The folder of a run: reads and writes its checkpoints and its record."""

    def __init__(self, objective, optimiser, schedule, folder: Path, group: Processes):
        self.objective, self.optimiser, self.schedule = objective, optimiser, schedule
        self.folder, self.group = folder, group
        self.record: list[dict[str, float]] = []

    @property
    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.record)

    @property
    def was_evaluated(self) -> bool:
        """Whether the last step was one that was evaluated."""
        return bool(self.record) and any(name.startswith("validation_") for name in self.record[-1])

    def claim(self, about: Mapping[str, object]) -> None:
        """Make the folder this run's, or see that it is."""
        path = self.folder / _ABOUT
        text = json.dumps(about, indent=1, sort_keys=True, default=str)
        if path.is_file() and path.read_text() != text:
            theirs, ours = json.loads(path.read_text()), json.loads(text)
            differing = [
                f"{name}: {theirs.get(name)} there, {ours.get(name)} here"
                for name in sorted({*theirs, *ours})
                if theirs.get(name) != ours.get(name)
            ]
            raise ParameterError(
                f"{self.folder} holds a run with other settings ({'; '.join(differing)}). Use "
                "another folder, or the same settings."
            )
        with atomic_path(path) as temporary:
            temporary.write_text(text)

    def resume(self, step: int | None) -> int:
        """Read a checkpoint into the network; gives its step, or 0 where there is none."""
        saved = checkpoints(self.folder)
        if step is not None and step not in saved:
            raise ParameterError(
                f"no checkpoint of step {step} in {self.folder}; there are {list(saved)}"
            )
        if not saved:
            self._keep_record(-1)
            return 0
        step = max(saved) if step is None else step
        path = saved[step]
        try:
            self.objective.load_state_dict(load_file(path))
            state = torch.load(
                path.with_suffix(_STATE), map_location=self.group.device, weights_only=True
            )
        except Exception as error:  # safetensors and pickle raise what they like
            raise WeightsError(
                f"{path} cannot be read ({error}). Remove it and its {_STATE} file; the run then "
                "goes on from the checkpoint before it."
            ) from error
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self._keep_record(step)
        log.info("resumed %s at step %d", self.folder.name, step)
        return step

    def _keep_record(self, last: int) -> None:
        """Read the record up to a step, and forget what a killed run wrote beyond it."""
        path = self.folder / _HISTORY
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        self.record = [row for row in map(json.loads, whole) if row["step"] <= last]
        self.group.wait()  # every process has read it
        if self.group.is_first:
            with atomic_path(path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in self.record))

    def add(self, row: dict[str, float]) -> None:
        """Write a row of the record."""
        self.record.append(row)
        if self.group.is_first:
            with (self.folder / _HISTORY).open("a") as file:
                file.write(json.dumps(row) + "\n")

    def evaluated(self, evaluate, every: int, step: int) -> dict[str, float]:
        """Evaluate where it is due; gives what was found, named for the record."""
        if evaluate is None or not every or step % every:
            return {}
        self.objective.eval()
        with torch.no_grad():
            found = self.group.from_first(lambda: dict(evaluate(step)))
        self.objective.train()
        return {f"validation_{name}": float(value) for name, value in found.items()}

    def save(self, step: int, kept: set[int]) -> None:
        """Write a checkpoint, then remove those that only guarded against a kill."""
        if not self.group.is_first:
            return
        path = self.folder / f"step-{step:08d}.safetensors"
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()  # shared ones are written twice
            for name, tensor in self.objective.state_dict().items()
        }
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"step": str(step)})
        state = {
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
        }
        with atomic_path(path.with_suffix(_STATE)) as temporary:
            torch.save(state, temporary)
        for other, old in checkpoints(self.folder).items():
            if other < step and other not in kept:
                old.unlink()
                old.with_suffix(_STATE).unlink()

    def not_finite(self, step: int, row: Mapping[str, float]) -> str:
        """Say what happened, and where the last good weights are."""
        saved = checkpoints(self.folder)
        good = f"the last good checkpoint is {saved[max(saved)]}" if saved else "none was saved yet"
        return (
            f"{self.folder.name}: loss {row['loss']}, gradient norm {row['gradient_norm']} at step "
            f"{step}; nothing of this step was kept, {good}. Lower the learning rate, set "
            "clip_norm, or look for sounds that are not finite."
        )
