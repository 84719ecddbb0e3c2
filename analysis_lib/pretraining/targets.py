"""What the network is to predict: one code per frame and codebook.

``encodec``
    The first codebooks of a pretrained EnCodec (Défossez et al. 2022), as published.
``kmeans``
    A residual k-means quantiser learned on the mel frames of the training audio: what one codebook
    leaves over is quantised by the next. Needs no download.
a checkpoint
    Self-training: k-means over a layer of a network that was pretrained before.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits
from torch import nn

from ..data import fetch
from ..errors import MissingDataError, ParameterError, WeightsError
from ..models.residual_transformer import SAMPLE_RATE
from ..paths import atomic_path

__all__ = [
    "EncodecTargets",
    "KMeansTargets",
    "Targets",
    "TeacherTargets",
    "fit_residual_kmeans",
    "nearest_codes",
]

ENCODEC = "models/encodec_24khz"  # place below BRAINBOOK_DATA or the cache
ENCODEC_SOURCE = "https://huggingface.co/facebook/encodec_24khz"


class Targets(nn.Module):
    """Base: waveforms and their frames in, codes out. Nothing here is learned by the network.

    Attributes
    ----------
    n_codebooks, n_codes : int
    """

    n_codebooks: int
    n_codes: int

    def forward(self, waveforms: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Give the codes of every frame.

        Parameters
        ----------
        waveforms : tensor of shape (batch, time)
            At 24 kHz.
        frames : tensor of shape (batch, frame, input)
            What the network gets of them.

        Returns
        -------
        tensor of int64, shape (batch, frame, codebook)
            Frame by frame those of ``frames``; there may be one or two fewer at the end.
        """
        raise NotImplementedError


class KMeansTargets(Targets):
    """Codes of the nearest centroids of the mel frames, codebook after codebook.

    Parameters
    ----------
    codebooks : tensor of shape (n_codebooks, n_codes, input)

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import pretraining
    >>> targets = pretraining.KMeansTargets(torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]))
    >>> frames = torch.tensor([[[0.1, 0.0], [0.9, 1.2], [0.7, 0.6]]])
    >>> targets(waveforms=torch.zeros(1, 954), frames=frames)[0, :, 0]
    tensor([0, 1, 1])
    """

    def __init__(self, codebooks: torch.Tensor):
        super().__init__()
        self.n_codebooks, self.n_codes = codebooks.shape[:2]
        self.register_buffer("codebooks", codebooks)

    def forward(self, waveforms: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        return nearest_codes(frames, self.codebooks)


class TeacherTargets(Targets):
    """Codes of the nearest centroids of a layer of an earlier network.

    Parameters
    ----------
    teacher : AudioModel
        At 24 kHz, with the frames of the network that it teaches.
    layer : str
    codebooks : tensor of shape (n_codebooks, n_codes, unit)

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import torch
    >>> from analysis_lib import pretraining
    >>> waves = 0.1 * np.random.default_rng(0).standard_normal((4, 12_000))
    >>> corpus = pretraining.Corpus(
    ...     [
    ...         pretraining.Clip(f"noise {i}", wave, 12_000, 24_000, label="ab"[i % 2])
    ...         for i, wave in enumerate(waves)
    ...     ]
    ... )
    >>> run = pretraining.pretrain(
    ...     "demo", corpus, tempfile.mkdtemp(), control="labels", n_steps=1, batch_size=2,
    ...     seconds=0.5, n_checkpoints=1, device="cpu", progress=False,
    ... )
    >>> teacher = pretraining.load(run.checkpoints[1], device="cpu")
    >>> targets = pretraining.TeacherTargets(teacher, "layer_2", torch.randn(1, 8, 48))
    >>> targets(torch.randn(2, 12_000), frames=torch.zeros(2, 36, 256)).shape
    torch.Size([2, 36, 1])
    """

    def __init__(self, teacher, layer: str, codebooks: torch.Tensor):
        super().__init__()
        if teacher.sample_rate != SAMPLE_RATE:
            raise ParameterError(
                f"{teacher.card.name} hears sounds at {teacher.sample_rate} Hz, not {SAMPLE_RATE}: "
                "it cannot teach this network"
            )
        self.n_codebooks, self.n_codes = codebooks.shape[:2]
        self.teacher, self.layer, self.network = teacher, layer, teacher.network
        self.register_buffer("codebooks", codebooks)

    def forward(self, waveforms: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        features = self.teacher.embed(waveforms, layers=[self.layer])[self.layer]
        return nearest_codes(features, self.codebooks)


class EncodecTargets(Targets):
    """Codes of a pretrained EnCodec at 24 kHz.

    Its frames come every 320 samples, those of the mel front end every 318. As in the original,
    the first goes with the first and so on: over four seconds they drift apart by one frame.

    Parameters
    ----------
    folder : path
        With ``config.json`` and weights, as transformers saves them.
    n_codebooks : int

    Raises
    ------
    MissingDataError
        When there is no such folder.
    WeightsError
        When it does not hold the whole model.

    Examples
    --------
    >>> import tempfile
    >>> from analysis_lib import pretraining
    >>> pretraining.EncodecTargets(tempfile.mkdtemp())
    Traceback (most recent call last):
        ...
    analysis_lib.errors.MissingDataError: no EnCodec in ...
    >>> targets = pretraining.EncodecTargets("models/encodec_24khz", 8)  # doctest: +SKIP
    >>> targets.n_codes  # doctest: +SKIP
    1024
    """

    def __init__(self, folder: str | Path, n_codebooks: int = 8):
        super().__init__()
        if not Path(folder, "config.json").is_file():
            raise MissingDataError(
                f"no EnCodec in {folder}: it should hold config.json and model.safetensors. "
                f"Download {ENCODEC_SOURCE} there, or use targets='kmeans'."
            )
        self.model = _read_encodec(folder)
        self.n_codebooks, self.n_codes = n_codebooks, self.model.config.codebook_size
        if n_codebooks > len(self.model.quantizer.layers):
            raise ParameterError(
                f"the EnCodec in {folder} has {len(self.model.quantizer.layers)} codebooks, not "
                f"{n_codebooks}"
            )

    def forward(self, waveforms: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        left = self.model.encoder(waveforms[:, None])
        codes = []
        for layer in self.model.quantizer.layers[: self.n_codebooks]:
            codes.append(layer.encode(left))
            left = left - layer.decode(codes[-1])
        return torch.stack(codes, dim=-1)[:, : frames.shape[1]]


def _read_encodec(folder: str | Path) -> nn.Module:
    from transformers import EncodecModel

    model, report = EncodecModel.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise WeightsError(
            f"the EnCodec in {folder} lacks {len(missing)} tensors, such as {missing[0]}"
        )
    return model.eval().requires_grad_(False)


def find_encodec() -> Path:
    """Folder of the pretrained EnCodec: mirror first, then cache, then the network.

    Raises
    ------
    MissingDataError
        Says what to download, and where to put it.
    """
    for file in ("config.json", "model.safetensors"):
        url = f"{ENCODEC_SOURCE}/resolve/main/{file}"
        path = fetch.fetch_url(ENCODEC, file, url, source=ENCODEC_SOURCE)
    return path.parent


def fit_residual_kmeans(
    vectors: np.ndarray, n_codebooks: int, n_codes: int, seed: int
) -> torch.Tensor:
    """Learn codebooks, each on what those before it leave over.

    Parameters
    ----------
    vectors : array of shape (n_vectors, n_dims)
        At least ``n_codes`` of them.
    n_codebooks, n_codes : int
        How many, and how many centroids in each.
    seed : int
        Same seed, same codebooks.

    Returns
    -------
    tensor of shape (n_codebooks, n_codes, n_dims), float32
    """
    if len(vectors) < n_codes:
        raise ParameterError(
            f"{len(vectors)} frames of audio cannot be divided into {n_codes} codes. Use more "
            "audio or fewer codes."
        )
    left, codebooks = np.ascontiguousarray(vectors, dtype=np.float32), []
    # With several threads the sums are added up in an order that is left to chance.
    with threadpool_limits(1):
        for number in range(n_codebooks):
            kmeans = MiniBatchKMeans(
                n_codes, batch_size=2048, n_init=1, max_iter=20, random_state=seed + number
            ).fit(left)
            codebooks.append(kmeans.cluster_centers_)
            left = left - codebooks[-1][kmeans.labels_]
    return torch.from_numpy(np.stack(codebooks).astype(np.float32))


def nearest_codes(vectors: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
    """Quantise vectors, each codebook what those before it left over.

    Parameters
    ----------
    vectors : tensor of shape (..., n_dims)
        In the codebooks' precision.
    codebooks : tensor of shape (n_codebooks, n_codes, n_dims)
        Of :func:`fit_residual_kmeans`.

    Returns
    -------
    tensor of int64, shape (..., n_codebooks)
    """
    left, codes = vectors.reshape(-1, vectors.shape[-1]), []
    for codebook in codebooks:
        distance = torch.addmm(codebook.square().sum(1), left, codebook.T, alpha=-2)
        codes.append(distance.argmin(-1))
        left = left - codebook[codes[-1]]
    return torch.stack(codes, dim=-1).reshape(*vectors.shape[:-1], -1)


def save_codebooks(codebooks: torch.Tensor, path: Path, about: Mapping[str, str]) -> None:
    """Write codebooks and what they were learned from."""
    with atomic_path(path) as temporary:
        save_file({"codebooks": codebooks.contiguous()}, temporary, dict(about))


def read_codebooks(path: Path, about: Mapping[str, str]) -> torch.Tensor:
    """Read codebooks that were learned from the same.

    Raises
    ------
    ParameterError
        When they were learned from something else.
    """
    with safe_open(path, "pt") as file:
        theirs = file.metadata() or {}
    if theirs != dict(about):
        raise ParameterError(
            f"{path} was learned from other audio or with other settings ({theirs}, not "
            f"{dict(about)}). Use another folder."
        )
    return load_file(path)["codebooks"]
