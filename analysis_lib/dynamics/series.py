"""The checkpoints of one training run as one object, whether here, published or on a hub."""

import json
import logging
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .. import models, training
from ..data import fetch
from ..device import resolve_device
from ..errors import ChecksumError, DataError, MissingDataError, UnknownNameError, WeightsError
from ..models import AudioModel
from ..models.checkpoints import forget
from ..models.registry import family_class
from ..paths import cache_dir, file_sha256

__all__ = ["PUBLIC_SERIES", "CheckpointSeries", "Place", "PublicSeries"]

log = logging.getLogger("brainbook")

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class PublicSeries:
    """Where the checkpoints of a published training run are.

    Attributes
    ----------
    model : str
        Name in the zoo of the model that they are checkpoints of.
    repository, folder, revision : str
        On the Hugging Face hub.
    steps : range
        Which steps are there.
    """

    model: str
    repository: str
    folder: str
    steps: range
    revision: str = "main"


PUBLIC_SERIES: Mapping[str, PublicSeries] = MappingProxyType({
    # The first fifth of the 500,000 steps that the published model was trained for.
    "mel256-ec-base": PublicSeries(
        model="mel256-ec-base",
        repository="lpepino/encodecmae-pretrained",
        folder="full_exps/base_models/mel256-ec-base/pretrain_checkpoints/finegrained",
        steps=range(0, 100_000, 1000),
    ),
})  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where one checkpoint is: at ``path``, or to be fetched from ``url``."""

    file: str
    path: Path | None = None
    url: str = ""
    sha256: str = ""
    n_bytes: int = 0


class CheckpointSeries:
    """Checkpoints of one training run, by step, loaded one at a time.

    Made by :meth:`of_folder` or :meth:`public`.

    Parameters
    ----------
    name : str
        What to call the series.
    places : mapping of int to Place
        By step.
    load : str or callable, optional
        What opens a file: the zoo's name of the model, or a function from a path to an
        :class:`~analysis_lib.models.AudioModel`. By default the files say themselves what network
        they are of, as those of :mod:`analysis_lib.pretraining` do.
    keep : bool
        Leave fetched files in the cache.

    Attributes
    ----------
    name : str
    steps : tuple of int
        In ascending order.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from safetensors.torch import save_file
    >>> from analysis_lib import data, dynamics, models
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for step in (0, 100):
    ...     network = models.load("small-cnn", untrained=True, seed=step, device="cpu").network
    ...     save_file(network.state_dict(), folder / f"step={step}.safetensors")
    ...
    >>> series = dynamics.CheckpointSeries.of_folder(folder, load="small-cnn")
    >>> series.steps, series.load(100, device="cpu").layers[0]
    ((0, 100), 'conv1')
    """

    def __init__(
        self,
        name: str,
        places: Mapping[int, Place],
        load: str | Callable[[Path], AudioModel] | None = None,
        keep: bool = True,
    ):
        self.name, self.steps = name, tuple(sorted(places))
        self._places, self._load, self._keep = dict(places), load, keep
        self._code = _code_of(load, self._places[self.steps[0]])
        self._fetched: set[int] = set()

    @classmethod
    def of_folder(
        cls,
        folder: str | Path,
        load: str | Callable[[Path], AudioModel] | None = None,
        name: str | None = None,
        expected: Collection[int] = (),
    ) -> "CheckpointSeries":
        """Find the checkpoints in a folder.

        Parameters
        ----------
        folder : path
            A run of :mod:`analysis_lib.training`, or any folder of checkpoints whose names hold
            the step: the number after the last ``=`` (as Lightning names them), otherwise the
            last number in the name.
        load : str or callable, optional
            What opens a file, see the class.
        name : str, optional
            By default the folder's.
        expected : collection of int, optional
            Steps that must be there.

        Raises
        ------
        MissingDataError
            When the folder holds no checkpoint, or lacks one that is expected; it says which.
        DataError
            When two files claim the same step.
        UnknownNameError
            When the zoo has no model of that name.
        """
        folder = Path(folder)
        places = {step: Place(path.name, path) for step, path in _found(folder).items()}
        _require(expected, places, str(folder))
        return cls(name or folder.name, places, load)

    @classmethod
    def public(cls, name: str = "mel256-ec-base", keep: bool = False) -> "CheckpointSeries":
        """Give a published series, whose files are fetched as they are needed.

        Files are looked for below ``models/<name>-steps`` in ``BRAINBOOK_DATA`` and the cache.
        Unless all are there, the hub is asked for their names, sizes and checksums.

        Parameters
        ----------
        name : str
            One of :data:`PUBLIC_SERIES`.
        keep : bool
            Leave fetched files in the cache. By default :meth:`release` removes them again, so
            that no more than one takes up room.

        Raises
        ------
        MissingDataError
            When the hub cannot be reached, or lacks a step.
        """
        if name not in PUBLIC_SERIES:
            raise UnknownNameError("public checkpoint series", name, PUBLIC_SERIES)
        entry = PUBLIC_SERIES[name]
        here = fetch.find(_dataset(name), ".")
        files = [] if here is None else _files(here)
        places = _by_step({path.name: Place(path.name, path) for path in files})
        if not set(entry.steps) <= places.keys():
            places = _listed(name, entry)
            _require(entry.steps, places, entry.repository)
        return cls(name, places, entry.model, keep)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return (
            f"CheckpointSeries({self.name}: {len(self)} steps, {self.steps[0]} to {self.steps[-1]})"
        )

    def path(self, step: int) -> Path:
        """File of one step, fetched if it is not here.

        Raises
        ------
        MissingDataError
            When the series has no such step, or its file is gone or cannot be fetched.
        ChecksumError
            When what was fetched is not the published file.
        """
        place = self._place(step)
        if place.path is None:
            if fetch.find(_dataset(self.name), place.file) is None:
                self._fetched.add(step)
            return fetch.fetch_url(
                _dataset(self.name), place.file, place.url, place.sha256, place.n_bytes
            )
        if not place.path.is_file():
            raise MissingDataError(f"{self.name}: the file of step {step}, {place.path}, is gone")
        return place.path

    def load(self, step: int, device: str = "auto") -> AudioModel:
        """Load the network as it was after so many steps.

        Raises
        ------
        MissingDataError
            When there is no such step.
        WeightsError
            When the file is damaged or of another network; it names file and step.
        """
        try:
            path = self.path(step)
            if self._load is None:
                return models.load(str(path), device=device)
            if isinstance(self._load, str):
                return models.load(self._load, checkpoint=path, device=device)
            return self._load(path).to(resolve_device(device))
        except (WeightsError, ChecksumError) as error:
            raise WeightsError(
                f"{self.name}: the checkpoint of step {step}, {self._place(step).file}, cannot be "
                f"used: {error}"
            ) from error

    def release(self, step: int) -> None:
        """Remove what this series fetched for one step, unless it is to be kept."""
        if self._keep or step not in self._fetched:
            return
        path = cache_dir("data", _dataset(self.name), self._place(step).file)
        if path.is_file():
            forget(path)
            path.unlink()
            log.info("removed %s after use", path)
        self._fetched.discard(step)

    def identity(self, step: int) -> dict[str, str]:
        """Name what features of a step depend on besides the sounds; nothing is loaded for it."""
        sha256 = self._place(step).sha256 or file_sha256(self.path(step))
        return {"sha256": sha256, **self._code}

    def _place(self, step: int) -> Place:
        if step not in self._places:
            near = sorted(self.steps, key=lambda other: abs(other - step))[:3]
            raise MissingDataError(
                f"{self.name} has no checkpoint of step {step}; the nearest of its {len(self)} "
                f"are {_some(sorted(near))}"
            )
        return self._places[step]


def _dataset(name: str) -> str:
    """Folder of a public series in mirror and cache."""
    return f"models/{name}-steps"


def _require(expected: Collection[int], places: Mapping[int, Place], source: str) -> None:
    absent = sorted(set(expected) - places.keys())
    if absent:
        raise MissingDataError(
            f"{source} lacks the checkpoints of {len(absent)} steps: {_some(absent)}. Put them "
            "there, or expect only the others."
        )


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in SUFFIXES and not path.name.startswith(".")
    ]


def _found(folder: Path) -> dict[int, Path]:
    """Checkpoints in a folder by step; those of an own run that were finished."""
    if not folder.is_dir():
        raise MissingDataError(f"{folder} is no folder of checkpoints: it is not there")
    found = training.checkpoints(folder) or _by_step({path.name: path for path in _files(folder)})
    if not found:
        raise MissingDataError(
            f"{folder} holds no checkpoints: no file with a step in its name and one of the "
            f"endings {', '.join(SUFFIXES)}"
        )
    return found


def _by_step(files: Mapping[str, object]) -> dict[int, object]:
    """Sort files by the step in their names; names without a number are passed over."""
    found: dict[int, object] = {}
    names: dict[int, str] = {}
    for name, place in files.items():
        step = _step_of(name)
        if step is None:
            continue
        if step in names:
            raise DataError(
                f"{names[step]} and {name} are both of step {step}: remove or rename one of them"
            )
        names[step], found[step] = name, place
    return found


def _step_of(name: str) -> int | None:
    """Read the step out of a file's name."""
    stem = name.rsplit(".", 1)[0]
    number = re.match(r"\d+", stem.rsplit("=", 1)[1]) if "=" in stem else None
    if number is None:
        numbers = re.findall(r"\d+", stem)
        return int(numbers[-1]) if numbers else None
    return int(number[0])


def _listed(name: str, entry: PublicSeries) -> dict[int, Place]:
    """Names, sizes and checksums of a published series' files, as the hub lists them."""
    hub = "https://huggingface.co"
    api = f"{hub}/api/models/{entry.repository}/tree/{entry.revision}/{entry.folder}"
    listing = fetch.fetch_url(_dataset(name), "files.json", api, source=f"{hub}/{entry.repository}")
    places = {}
    for item in json.loads(listing.read_text()):
        file = item["path"].rsplit("/", 1)[-1]
        if Path(file).suffix in SUFFIXES:
            url = f"{hub}/{entry.repository}/resolve/{entry.revision}/{item['path']}"
            sha256 = item.get("lfs", {}).get("oid", "")
            places[file] = Place(file, None, url, sha256, int(item.get("size", 0)))
    return _by_step(places)


def _code_of(load: str | Callable | None, first: Place) -> dict[str, str]:
    """Name what opens the files, and its version."""
    if load is None or isinstance(load, str):
        card = models.card(str(first.path) if load is None else load)
        return {
            "family": card.family,
            "options": repr(sorted(card.options.items())),
            "code_version": family_class(card.family).code_version,
        }
    version = getattr(sys.modules[load.__module__], "ALGORITHM_VERSION", 1)
    return {"loader": f"{load.__module__}.{load.__qualname__}", "code_version": str(version)}


def _some(numbers: Collection[int], limit: int = 6) -> str:
    shown = ", ".join(map(str, list(numbers)[:limit]))
    return shown + (f", … ({len(numbers)} in all)" if len(numbers) > limit else "")
