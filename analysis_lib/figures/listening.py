"""A page on which one can listen: sounds, what the ear makes of them, and what the brain did."""

import base64
import io
from collections.abc import Mapping

import matplotlib
import numpy as np
import soundfile
import soxr
import xarray as xr
from PIL import Image

from ..errors import ParameterError
from .templates import filled

__all__ = ["listening_html"]

RATE = 16_000  # of the sounds on the page, in Hz
LARGEST = 1_000_000  # bytes of a page


def listening_html(
    pictures: Mapping[str, np.ndarray],
    measured: xr.DataArray,
    predicted: xr.DataArray,
    waveforms: Mapping[str, np.ndarray] | None = None,
    sample_rate: int = RATE,
    seconds: float = 2.0,
) -> str:
    """Build a page to listen and look, that works without a network.

    Choose a sound, in a list or in the drawing, to see its cochleagram, to hear it, and to find
    its measured and predicted response among those of all sounds.

    Parameters
    ----------
    pictures : mapping of str to array of shape (n_frames, n_channels)
        Cochleagrams of some of the sounds, by name.
    measured, predicted : DataArray (sound, target)
        Over the same sounds and targets; ``measured`` carries ``category``.
    waveforms : mapping of str to array of shape (n_samples,), optional
        Sounds that can be heard; leave out those that may not be passed on.
    sample_rate : int
        Of the waveforms, in Hz.
    seconds : float
        Length of the cochleagrams, for their description.

    Returns
    -------
    str
        HTML with data, sounds (MP3) and pictures (PNG) inside.

    Raises
    ------
    ParameterError
        When a picture's sound has no response, or the page would exceed 1 MB.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from analysis_lib import figures
    >>> coords = {"sound": ["a", "b", "c"], "target": ["Pitch"]}
    >>> measured = xr.DataArray([[0.0], [1], [2]], coords, ("sound", "target"))
    >>> measured = measured.assign_coords(category=("sound", ["speech", "speech", "music"]))
    >>> html = figures.listening_html({"a": np.eye(4)}, measured, measured * 0.5)
    >>> "data:audio" in html.split("<script>")[0], "https://" in html
    (False, False)
    """
    waveforms = {} if waveforms is None else waveforms
    names = [str(name) for name in measured["sound"].data]
    unknown = [name for name in [*pictures, *waveforms] if name not in names]
    if unknown:
        raise ParameterError(f"sounds without a response: {', '.join(unknown[:5])}")
    measured = (measured - measured.mean("sound")) / measured.std("sound")
    predicted = predicted.sel(sound=measured["sound"], target=measured["target"])
    predicted = (predicted - predicted.mean("sound")) / predicted.std("sound")
    r = (measured * predicted).mean("sound").data
    content = {
        "seconds": seconds,
        "targets": [str(target) for target in measured["target"].data],
        "scores": np.round(r.clip(min=0) ** 2, 3).tolist(),
        "sounds": [
            {
                "name": name.removesuffix(".wav"),
                "category": str(kind),
                "measured": np.round(row, 3).tolist(),
                "predicted": np.round(guess, 3).tolist(),
                "picture": _png(pictures[name]) if name in pictures else "",
                "audio": _mp3(waveforms[name], sample_rate) if name in waveforms else "",
            }
            for name, kind, row, guess in zip(
                names, measured["category"].data, measured.data, predicted.data, strict=True
            )
        ],
    }
    page = filled("listening", content)
    if len(page.encode()) > LARGEST:
        raise ParameterError(
            f"the page would have {len(page.encode()) / 1e6:.1f} MB, and {LARGEST / 1e6:.0f} MB is "
            "the most: show fewer sounds"
        )
    return page


def _png(picture: np.ndarray) -> str:
    """Picture of about 128 by 64 points in 32 colours, low frequency at the bottom, as base64."""
    rows = max(1, len(picture) // 128)
    columns = max(1, picture.shape[1] // 64)
    n_frames, n_channels = len(picture) // rows * rows, picture.shape[1] // columns * columns
    coarse = picture[:n_frames, :n_channels].reshape(n_frames // rows, rows, -1, columns)
    coarse = coarse.mean(axis=(1, 3)).T[::-1]
    spread = max(float(np.ptp(coarse)), 1e-12)
    levels = (31 * (coarse - coarse.min()) / spread).round().astype(np.uint8)
    image = Image.fromarray(levels, mode="P")
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, 32))[:, :3]
    image.putpalette((255 * colours).astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True, bits=5)
    return base64.b64encode(file.getvalue()).decode()


def _mp3(waveform: np.ndarray, sample_rate: int) -> str:
    file = io.BytesIO()
    at_rate = soxr.resample(waveform, sample_rate, RATE)
    soundfile.write(
        file, at_rate, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.9
    )
    return base64.b64encode(file.getvalue()).decode()
