"""From runs to batches: sound is read once, and cut anew for every step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.friends import FriendsData
from ..errors import DataError, ParameterError
from ..paths import atomic_path, cache_dir, content_key
from .head import frame_positions
from .network import FRAME, RATE, EncodingModel, hop
from .settings import Settings

__all__ = ["Recordings", "Segments", "paper_chunks", "precompute", "record"]

# Frames before a segment's first: what they hear, frame 2 and later are blind to.
CONTEXT = 2
CHUNK = 64  # frames of which the unchanging layers are computed at once
SHARED = 3  # the block whose output all deeper ones are computed from
_VERSION = 1  # raised whenever the cached output of a layer becomes another


@dataclass(frozen=True)
class Recordings:
    """Runs in memory: what goes into the network, and what came out of brains.

    Attributes
    ----------
    inputs : mapping of run to array of shape (channel, frame), float32
        Waveform at 22,050 Hz, or the output of layers that never change.
    lead : int
        Samples of silence in front of each run.
    n_trs : mapping of run to int
    responses : mapping of run to array of shape (n_subjects, n_trs, n_targets), float32
        0 where unknown.
    present : mapping of run to array of bool, shape (n_subjects, n_trs)
    known : array of bool, shape (n_subjects, n_targets)
        False for targets with a value that is not finite in any run.
    tr : float
        Seconds between volumes.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import finetuning
    >>> noise = np.random.default_rng(0).standard_normal(5 * 32_768).astype("float32")
    >>> recordings = finetuning.Recordings(
    ...     inputs={"s01e01a": np.pad(noise, (32_768, 0))[None]},
    ...     lead=32_768, n_trs={"s01e01a": 4},
    ...     responses={"s01e01a": np.zeros((1, 4, 3), dtype="float32")},
    ...     present={"s01e01a": np.ones((1, 4), dtype=bool)},
    ...     known=np.ones((1, 3), dtype=bool), tr=1.49,
    ... )
    >>> heard = recordings.waveform("s01e01a")
    >>> len(heard), bool((heard == noise[: len(heard)]).all())
    (131418, True)
    """

    inputs: Mapping[str, np.ndarray]
    lead: int
    n_trs: Mapping[str, int]
    responses: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    known: np.ndarray
    tr: float

    def waveform(self, run: str) -> np.ndarray:
        """Sound of a run without the silence around it, (n_samples,)."""
        n_samples = floor(self.n_trs[run] * self.tr * RATE)
        return self.inputs[run][0, self.lead : self.lead + n_samples]


def record(
    data: Sequence[FriendsData],
    runs: Sequence[str],
    settings: Settings,
    progress: bool = True,
) -> Recordings:
    """Read runs: sound once for all subjects, responses of each.

    A run stays in memory: 64 MB of sound for 12 minutes, and 4 bytes for each volume, target and
    subject.

    Parameters
    ----------
    data : sequence of FriendsData
        Subjects with the same targets.
    runs : sequence of str
        Each heard by one subject at least.
    settings : Settings
        Decides how sound is padded.
    progress : bool
        Show a bar.

    Raises
    ------
    DataError
        When a run was heard by nobody, or subjects differ in targets or repetition time.
    ParameterError
        When the paper's protocol, which counts frames, meets volumes that are not as far apart.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from analysis_lib import finetuning
    >>> from analysis_lib.data import friends
    >>> parcels = pd.DataFrame(index=["A1", "V1"])
    >>> run = friends.Run(
    ...     "s01e01a", "ses-001", 4, 1.49, parcels.index,
    ...     lambda: np.ones((4, 2)), lambda rate: np.zeros(6 * rate, dtype="float32"),
    ... )
    >>> brain = friends.FriendsData("made", "sub-01", 1.49, parcels, {"s01e01a": run})
    >>> settings = finetuning.Settings(n_taps=3, segment_trs=4)
    >>> recordings = finetuning.record([brain], ["s01e01a"], settings, progress=False)
    >>> recordings.responses["s01e01a"].shape, recordings.waveform("s01e01a").shape
    ((1, 4, 2), (131418,))
    """
    tr = data[0].tr
    for other in data[1:]:
        if list(other.targets.index) != list(data[0].targets.index) or other.tr != tr:
            raise DataError(
                f"{other.subject} and {data[0].subject} differ in their targets or repetition "
                "time. A group needs the same ones: use one parcellation for all."
            )
    if settings.protocol == "paper" and abs(tr * RATE / FRAME - 1) > 0.01:
        raise ParameterError(
            f"the paper's protocol takes one frame of {FRAME / RATE:.3f} s for one volume; these "
            f"are {tr} s apart. Use protocol='robust'."
        )
    inputs, n_trs, responses, present = {}, {}, {}, {}
    known = np.ones((len(data), len(data[0].targets)), dtype=bool)
    in_paper = settings.protocol == "paper"
    lead = 0 if in_paper else FRAME * (CONTEXT - floor((1 - settings.n_taps) * tr * RATE / FRAME))
    for name in tqdm(runs, desc="reading runs", leave=False, disable=not progress):
        heard = [subject.runs.get(name) for subject in data]
        lengths = [run.n_trs for run in heard if run is not None]
        if not lengths:
            raise DataError(f"none of the {len(data)} subjects has run {name}")
        n_trs[name] = max(lengths)
        longest = next(run for run in heard if run is not None and run.n_trs == n_trs[name])
        waveform = longest.audio(RATE)
        if in_paper:
            inputs[name] = paper_chunks(waveform, n_trs[name], tr)[None]
        else:
            tail = _end(settings, n_trs[name], tr) - len(waveform)
            inputs[name] = np.pad(waveform, (lead, max(tail, 0)))[None]
        responses[name] = np.zeros((len(data), n_trs[name], known.shape[1]), dtype=np.float32)
        present[name] = np.zeros((len(data), n_trs[name]), dtype=bool)
        for row, run in enumerate(heard):
            if run is not None:
                values = run.bold().values
                known[row] &= np.isfinite(values).all(axis=0)
                responses[name][row, : run.n_trs] = np.nan_to_num(values, posinf=0, neginf=0)
                present[name][row, : run.n_trs] = True
    return Recordings(inputs, lead, n_trs, responses, present, known, tr)


def paper_chunks(waveform: np.ndarray, n_trs: int, tr: float) -> np.ndarray:
    """Sound as the paper puts it together: a chunk of whole samples for each volume.

    Half a sample in 32,854.5 is lost with each.

    Parameters
    ----------
    waveform : array of shape (n_samples,)
        At 22,050 Hz.
    n_trs : int
        Volumes, and chunks.
    tr : float
        Seconds between volumes.

    Returns
    -------
    array of shape (n_trs * floor(22050 * tr),)

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import finetuning
    >>> finetuning.paper_chunks(np.arange(70_000), n_trs=2, tr=1.49).shape
    (65708,)
    """
    length = floor(RATE * tr)
    starts = np.arange(n_trs) * tr * RATE
    rows = starts.astype(int)[:, None] + np.arange(length)
    padded = np.pad(waveform, (0, max(0, int(rows.max()) + 1 - len(waveform))))
    return padded[rows].reshape(-1)


class Segments:
    """Segments of runs, and the batches that training sees.

    Parameters
    ----------
    recordings : Recordings
    runs : sequence of str
        Which of them.
    settings : Settings
    first : int
        First block that the model computes (:attr:`EncodingModel.first`); the inputs have the
        frames of the block before.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import finetuning
    >>> recordings = finetuning.Recordings(
    ...     inputs={"s01e01a": np.zeros((1, 14 * 32_768), dtype="float32")},
    ...     lead=5 * 32_768, n_trs={"s01e01a": 5},
    ...     responses={"s01e01a": np.zeros((1, 5, 3), dtype="float32")},
    ...     present={"s01e01a": np.ones((1, 5), dtype=bool)},
    ...     known=np.ones((1, 3), dtype=bool), tr=1.49,
    ... )
    >>> settings = finetuning.Settings(n_taps=3, segment_trs=2, batch_size=2)
    >>> segments = finetuning.Segments(recordings, ["s01e01a"], settings)
    >>> len(segments), segments.steps_per_epoch
    (3, 2)
    >>> inputs, positions, targets, valid = segments.batch_of(step=0, part=0, n_parts=1)
    >>> positions.shape, targets.shape
    (torch.Size([2, 4]), torch.Size([2, 1, 2, 3]))
    """

    def __init__(
        self, recordings: Recordings, runs: Sequence[str], settings: Settings, first: int = 1
    ):
        self.recordings, self.settings, self.runs = recordings, settings, list(runs)
        self._hop = hop(first - 1)
        self._rows = [
            (run, start)
            for run in self.runs
            for start in range(0, recordings.n_trs[run], settings.segment_trs)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every segment is seen about once."""
        return ceil(len(self) / self.settings.batch_size)

    def batch_of(self, step: int, part: int, n_parts: int) -> tuple[torch.Tensor, ...]:
        """Give one part of the batch of a step: a pure function of its arguments.

        Segments come in an order drawn anew from the seed in each epoch (robust), or once
        (paper). See :meth:`batch` for what is given.
        """
        size = self.settings.batch_size
        if size < n_parts:
            raise ParameterError(
                f"a batch of {size} segments cannot be divided into {n_parts} parts: raise "
                "batch_size, or use fewer processes"
            )
        places = range(step * size, (step + 1) * size)
        rows = [self._order(place // len(self))[place % len(self)] for place in places]
        return self.batch(rows[part::n_parts])

    def batch(self, rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Put segments together.

        Returns
        -------
        inputs : tensor of shape (batch, channel, frame)
        positions : tensor of shape (batch, n_volumes + n_taps - 1); (batch, n_volumes) for paper
        targets : tensor of shape (batch, n_subjects, n_volumes, n_targets)
        valid : tensor of bool, shape (batch, n_subjects, n_volumes)
        """
        cut = self._cut_paper if self.settings.protocol == "paper" else self._cut
        segments = [cut(*self._rows[row], self.first_of(row)) for row in rows]
        return tuple(map(torch.stack, zip(*segments, strict=True)))

    def first_of(self, row: int) -> int:
        """Volume with which a segment begins."""
        run, start = self._rows[row]
        if self.settings.protocol == "paper":
            return start
        return max(0, min(start, self.recordings.n_trs[run] - self.settings.segment_trs))

    def of_run(self, run: str) -> list[int]:
        """Rows of a run's segments, in order."""
        return [row for row, (name, _) in enumerate(self._rows) if name == run]

    def _order(self, epoch: int) -> np.ndarray:
        drawn = (self.settings.seed, 0 if self.settings.protocol == "paper" else epoch)
        return np.random.default_rng(drawn).permutation(len(self))

    def _cut(self, run: str, start: int, first: int) -> tuple[torch.Tensor, ...]:
        """Cut a segment with the sound before and behind it.

        The last one begins earlier than it counts, to be as long as the others.
        """
        recordings, n = self.recordings, self.settings.segment_trs
        history = self.settings.n_taps - 1
        positions = frame_positions(first - history, n + history, recordings.tr, FRAME / RATE)
        origin = floor(positions[0]) - CONTEXT
        begin = (FRAME * origin + recordings.lead) // self._hop
        n_frames = _n_frames(self.settings, recordings.tr) * FRAME // self._hop
        inputs = recordings.inputs[run][:, begin : begin + n_frames]
        targets, valid = self._responses(run, first, n)
        valid[:, : start - first] = False
        return _tensor(inputs), (positions - origin).float(), targets, valid

    def _cut_paper(self, run: str, _: int, first: int) -> tuple[torch.Tensor, ...]:
        """Cut a segment between zeros. The last one is shorter."""
        n = min(self.settings.segment_trs, self.recordings.n_trs[run] - first)
        length = floor(RATE * self.recordings.tr)
        inputs = self.recordings.inputs[run][:, first * length : (first + n) * length]
        targets, valid = self._responses(run, first, n)
        return _tensor(inputs), torch.arange(n).float(), targets, valid

    def _responses(self, run: str, first: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        targets = self.recordings.responses[run][:, first : first + n]
        valid = self.recordings.present[run][:, first : first + n]
        missing = n - targets.shape[1]
        return (
            torch.from_numpy(np.pad(targets, ((0, 0), (0, missing), (0, 0)))),
            torch.from_numpy(np.pad(valid, ((0, 0), (0, missing)))),
        )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values))  # a copy: the file is read-only


def _n_frames(settings: Settings, tr: float) -> int:
    """Frames of sound that a segment takes: its own, history, context and interpolation."""
    n_volumes = settings.segment_trs + settings.n_taps - 1
    return ceil(n_volumes * tr * RATE / FRAME) + 3 + CONTEXT


def _end(settings: Settings, n_trs: int, tr: float) -> int:
    """Count samples from a run's start to the end of its last segment's sound, at least."""
    first = max(0, n_trs - settings.segment_trs) + 1
    start = floor(first * tr * RATE / FRAME)
    return FRAME * (start + _n_frames(settings, tr))


def precompute(
    recordings: Recordings, model: EncodingModel, device: torch.device, progress: bool = True
) -> Recordings:
    """Replace sound by the output of the layers that never change.

    It is kept in the cache, for other depths, subjects and seeds: 8 MB for 12 minutes of conv3.

    Parameters
    ----------
    recordings : Recordings
        With sound.
    model : EncodingModel
        On ``device``; its blocks before ``first`` are computed, in evaluation mode.
    device : torch.device
        Where to compute; what comes out stays in files.
    progress : bool
        Show a bar.

    Returns
    -------
    Recordings
        The same where the model computes every layer in each step.
    """
    if model.first == 1:
        return recordings
    was_training = model.training
    model.eval()
    runs = tqdm(recordings.inputs, desc="layers that stay", leave=False, disable=not progress)
    inputs = {run: _layer(recordings.inputs[run], model, model.first - 1, device) for run in runs}
    model.train(was_training)
    return replace(recordings, inputs=inputs)


def _layer(
    waveform: np.ndarray, model: EncodingModel, number: int, device: torch.device
) -> np.ndarray:
    """Output of a block for a whole run, read from the cache where it is known."""
    key = content_key(_VERSION, waveform, model.settings.input_scale, _weights(model, number))
    path = cache_dir("finetuning", "layers", f"{key}.npy")
    if not path.is_file():
        # What lies behind conv3 costs a tenth of what lies before it, which others have in common.
        through = SHARED if number > SHARED else 0
        below = _layer(waveform, model, SHARED, device) if through else waveform
        output = _in_chunks(below, model, through, number, device)
        with atomic_path(path) as temporary:
            np.save(temporary, output)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def _in_chunks(
    values: np.ndarray, model: EncodingModel, through: int, number: int, device: torch.device
) -> np.ndarray:
    """Run the blocks behind ``through`` up to ``number``, as one pass over the run would."""
    taken, given = FRAME // hop(through), FRAME // hop(number)
    n_frames = ceil(values.shape[1] / taken)
    margin = CONTEXT * taken
    missing = n_frames * taken - values.shape[1]
    padded = np.pad(values, ((0, 0), (margin, missing + margin)))
    parts = []
    for begin in range(0, n_frames, CHUNK):
        n = min(CHUNK, n_frames - begin)
        chunk = padded[:, begin * taken :][:, : (n + 2 * CONTEXT) * taken]
        output = model.blocks(torch.from_numpy(chunk[None]).to(device), through, number)[0]
        parts.append(output[:, CONTEXT * given :][:, : n * given].cpu().numpy())
    return np.concatenate(parts, axis=1)


def _weights(model: EncodingModel, number: int) -> dict[str, np.ndarray]:
    names = tuple(f"conv{i}." for i in range(1, number + 1))
    return {
        name: tensor.detach().cpu().numpy()
        for name, tensor in model.network.state_dict().items()
        if name.startswith(names) and not name.endswith("num_batches_tracked")
    }
