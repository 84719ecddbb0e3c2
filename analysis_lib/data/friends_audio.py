"""What was heard in each run of the Friends data: a WAV, or the audio of a film."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import soundfile

from ..errors import AudioError, MissingDataError
from ..paths import atomic_path, cache_dir, content_key
from .natural_sounds import Sounds, read_audio

__all__ = ["AudioFile", "audio_files", "walk"]

_AUDIO = re.compile(r"friends_(s\d{2}e\d{2}[a-z])\.(wav|mkv)")


@dataclass(frozen=True)
class AudioFile:
    """What was heard in one run: a WAV, or the audio of a film through ffmpeg."""

    path: Path

    def seconds(self) -> float:
        """Length of the audio, in seconds."""
        if self.path.suffix == ".wav":
            try:
                return soundfile.info(self.path).duration
            except soundfile.LibsndfileError as error:
                raise AudioError(f"{self.path} is not readable audio ({error})") from error
        return float(_stream(self.path)["duration"])

    def read(self, sample_rate: int) -> np.ndarray:
        """Waveform (n_samples,), float32, mono, at ``sample_rate`` Hz.

        Decoded and resampled once; afterwards it is read from the cache.
        """
        if not self.path.is_file():
            return self._decoded(sample_rate)  # which says what is missing
        stat = self.path.stat()
        key = content_key(self.path.resolve(), stat.st_size, stat.st_mtime_ns, sample_rate)
        prepared = cache_dir("friends-audio", f"{self.path.stem}-{key}.npy")
        if not prepared.is_file():
            with atomic_path(prepared) as temporary:
                np.save(temporary, self._decoded(sample_rate))
        return np.load(prepared)

    def _decoded(self, sample_rate: int) -> np.ndarray:
        name = self.path.stem
        if self.path.suffix == ".wav":
            return read_audio(self.path, sample_rate, name=name, on_silence="warn")
        stream = _stream(self.path)
        raw = _run_tool(
            "ffmpeg", "-v", "error", "-i", str(self.path), "-map", "0:a:0", "-f", "f32le", "pipe:1",
            path=self.path,
        )  # fmt: skip
        waveform = np.frombuffer(raw, dtype="<f4").reshape(-1, int(stream["channels"]))
        heard = Sounds([name], [waveform], None, int(stream["sample_rate"]), "warn")
        return heard.waveform(name, sample_rate)


def audio_files(folder: Path, given: bool) -> dict[str, AudioFile]:
    """Audio of each run in a folder, however deep; a WAV goes before a film.

    Parameters
    ----------
    folder : path
        Where to search.
    given : bool
        Whether the folder was named by the user, for the message when it does not exist.
    """
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder} to search for audio")
    found: dict[str, AudioFile] = {}
    for path in walk(folder, "friends_s*"):
        match = _AUDIO.fullmatch(path.name)
        if match and (match[1] not in found or path.suffix == ".wav"):
            found[match[1]] = AudioFile(path)
    if not found:
        more = "" if given else " Give the folder that holds the audio as stimuli."
        raise MissingDataError(f"no friends_s01e02a.wav or .mkv anywhere under {folder}.{more}")
    return found


def walk(folder: Path, pattern: str) -> Iterator[Path]:
    """Files that match, in order; hidden folders, such as git-annex's, are passed over."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if fnmatchcase(name, pattern):
                yield Path(root, name)


def _stream(path: Path) -> dict:
    """First audio stream of a film, as ffprobe describes it, with ``duration`` in seconds."""
    told = json.loads(_run_tool(
        "ffprobe", "-v", "error", "-select_streams", "a:0", "-of", "json",
        "-show_entries", "stream=sample_rate,channels:format=duration", str(path), path=path,
    ))  # fmt: skip
    if not told.get("streams"):
        raise AudioError(f"{path} has no audio")
    return {**told["streams"][0], **told["format"]}


def _run_tool(*command: str, path: Path) -> bytes:
    if shutil.which(command[0]) is None:
        raise MissingDataError(
            f"reading {path.name} needs the program {command[0]}, which is not installed. Install "
            f"ffmpeg, or write the audio beside it as {path.stem}.wav."
        )
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise AudioError(f"{path} is not readable: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
