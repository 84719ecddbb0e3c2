"""Pretraining, from audio to a folder of checkpoints."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from .. import models, training
from ..errors import AudioError, MissingDataError, ParameterError, UnknownNameError
from ..models.audio_model import AudioModel
from ..models.pretrained import NETWORK
from ..models.residual_transformer import mel_front_end
from ..paths import atomic_path
from ..processes import Processes, processes
from .audio import Corpus
from .audio import corpus as find_corpus
from .baselines import measured_baselines
from .batches import VALIDATION, Alter, Batches
from .controls import CONTROLS, altered
from .masking import gap_mask
from .network import LabelledEncoder, MaskedAutoencoder, size_of
from .recipes import Recipe, recipe_of
from .targets import (
    EncodecTargets,
    KMeansTargets,
    Targets,
    TeacherTargets,
    find_encodec,
    fit_residual_kmeans,
    read_codebooks,
    save_codebooks,
)

__all__ = ["baselines", "load", "pretrain"]

log = logging.getLogger("brainbook")

_CODEBOOKS = "codebooks.safetensors"
_BASELINES = "baselines.json"
_N_VECTORS = 10_000  # frames that codebooks are learned on, or 100 per code if that is more
_VALIDATION_CROPS = 64
_VERSION = 1  # raised whenever a run computes something else


def pretrain(
    recipe: str | Recipe,
    audio: str | Path | Corpus,
    folder: str | Path,
    *,
    seed: int = 0,
    control: str = "none",
    device: str = "auto",
    precision: str = "auto",
    compile: bool | None = None,
    accumulate: int = 1,
    save_every: int = 0,
    encodec: str | Path | None = None,
    resume_from: int | None = None,
    progress: bool = True,
    **changes,
) -> training.Training:
    """Train a masked autoencoder on audio, or go on where a run was ended.

    The folder gets a checkpoint at step 0 (the untrained network) and at log-spaced steps, each of
    which :func:`load` turns into a model; ``network.json`` says what network it is,
    ``codebooks.safetensors`` holds learned targets, ``history.jsonl`` the record. Killed at any
    step and started again, a run ends with the same weights, bit for bit on a CPU. Runs in several
    processes under ``torchrun``.

    Parameters
    ----------
    recipe : str or Recipe
        A name in :data:`analysis_lib.pretraining.RECIPES`, or settings.
    audio : str, path or Corpus
        A name or folder for :func:`analysis_lib.pretraining.corpus`, or recordings.
    folder : path
        Of the run.
    seed : int
        Decides initial weights, crops, masks and codebooks.
    control : {"none", "shuffled", "noise", "labels"}
        What is trained on, and by what: see :mod:`analysis_lib.pretraining.controls`.
    device : str
        See :func:`analysis_lib.device.resolve_device`.
    precision : {"auto", "float32", "bfloat16"}
        ``"auto"``: bfloat16 on CUDA, float32 elsewhere.
    compile : bool, optional
        By default on CUDA only.
    accumulate : int
        Parts into which a batch is divided, to save memory.
    save_every : int
        Steps between checkpoints that only guard against a kill.
    encodec : path, optional
        Folder of the pretrained EnCodec; by default where models are kept, fetched if possible.
    resume_from : int, optional
        Step to go on from, instead of the last.
    progress : bool
        Show a bar with the loss and the seconds of audio per second.
    **changes
        Settings that differ from the recipe's.

    Returns
    -------
    Training
        With ``history`` and ``checkpoints``. Columns of the record: see
        :meth:`MaskedAutoencoder.forward`; ``validation_…`` are measured on held-out recordings.

    Raises
    ------
    AudioError
        When there is no audio, a file cannot be read, or crops are refused for being too short.
    TrainingError
        When the loss is not finite; names the last good checkpoint.
    ParameterError
        When the folder is another run's.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from analysis_lib import pretraining
    >>> waves = 0.1 * np.random.default_rng(0).standard_normal((4, 12_000))
    >>> corpus = pretraining.Corpus(
    ...     [
    ...         pretraining.Clip(f"noise {i}", wave, 12_000, 24_000, label="ab"[i % 2])
    ...         for i, wave in enumerate(waves)
    ...     ]
    ... )
    >>> run = pretraining.pretrain(
    ...     "demo", corpus, tempfile.mkdtemp(), control="labels", n_steps=2, batch_size=2,
    ...     seconds=0.5, n_checkpoints=1, device="cpu", progress=False,
    ... )
    >>> run.history["step"].tolist(), sorted(run.checkpoints)
    ([0, 1, 2], [0, 1, 2])
    >>> pretraining.pretrain("demo", "demo", "runs/demo").history  # doctest: +SKIP
    """
    recipe = recipe_of(recipe, **changes)
    if control not in CONTROLS:
        raise UnknownNameError("control", control, CONTROLS)
    audio = _checked(audio if isinstance(audio, Corpus) else find_corpus(audio), recipe, control)
    folder = Path(folder)
    about = {
        "recipe": asdict(recipe),
        "control": control,
        "audio": audio.key,
        "targets": None if control == "labels" else _name_of_targets(recipe, encodec),
        "version": _VERSION,
    }
    with processes(device) as group:
        on_cuda = group.device.type == "cuda"
        if precision == "auto":
            precision = "bfloat16" if on_cuda else "float32"
        heard, held_out = audio.split(recipe.held_out, seed)
        alter = altered(control, heard, recipe.n_samples, seed)
        targets = None
        if control != "labels":
            targets = _targets(recipe, heard, alter, folder, seed, group, encodec, about)
        network = _network(recipe, targets, len(audio.labels), seed).to(group.device)
        if group.is_first:
            _describe(folder, recipe, control, audio)
        optimiser = torch.optim.AdamW(
            network.parameters(),
            recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=on_cuda,
        )
        shared = (recipe, targets, audio.labels, alter, seed, group.device)
        with Batches(heard, *shared) as batches, Batches(held_out, *shared) as unheard:
            if group.is_first and targets is not None:
                _measure_baselines(folder, batches, unheard, network, targets.n_codes)
            return training.fit(
                network,
                batches,
                optimiser,
                folder,
                n_steps=recipe.n_steps,
                checkpoint_steps=recipe.checkpoint_steps,
                save_every=save_every,
                schedule=recipe.learning_rate_schedule(optimiser),
                evaluate=_validation(network, unheard),
                evaluate_every=max(1, recipe.n_steps // 10),
                accumulate=accumulate,
                precision=precision,
                compile=on_cuda if compile is None else compile,
                clip_norm=recipe.clip_norm,
                seed=seed,
                device=device,
                about=about,
                resume_from=resume_from,
                audio_per_step=recipe.batch_size * recipe.seconds,
                progress=progress,
            )


def load(checkpoint: str | Path, device: str = "auto") -> AudioModel:
    """Load the encoder of a checkpoint of a run, tapped like the published EnCodecMAE.

    The same as ``models.load(str(checkpoint))``; features, probes and chapters take the path as the
    name of a model.

    Parameters
    ----------
    checkpoint : path
        ``step-….safetensors`` in the folder of a run.
    device : str
        See :func:`analysis_lib.device.resolve_device`.

    Raises
    ------
    MissingDataError
        When the checkpoint, or what its run says of it, is not there.
    WeightsError
        When it does not fit.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
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
    >>> pretraining.load(run.checkpoints[1], device="cpu").layers
    ('layer_0', 'layer_1', 'layer_2')
    """
    return models.load(str(checkpoint), device=device)


def _checked(audio: Corpus, recipe: Recipe, control: str) -> Corpus:
    """Refuse recordings and settings with which a run could not be done to its end."""
    n_frames = mel_front_end().n_frames(recipe.n_samples)
    gap_mask(max(n_frames, 1), np.random.default_rng(0), recipe.mask_gap, recipe.mask_share)
    if control == "labels":
        if len(audio.labels) < 2:
            raise ParameterError(
                f"control='labels' needs recordings of at least two labels, not {audio.labels}"
            )
        # Several recordings in one crop would have several labels.
        audio = audio.with_short("loop") if audio.short == "join" else audio
    too_short = [clip.name for clip in audio.clips if clip.seconds < recipe.seconds]
    if audio.short == "refuse" and too_short:
        raise AudioError(
            f"{len(too_short)} of {len(audio)} recordings are shorter than the crops of "
            f"{recipe.seconds:g} s, such as {too_short[0]}. Use shorter crops, leave them out, or "
            "let short='join', 'loop' or 'pad'."
        )
    return audio


def _network(recipe: Recipe, targets: Targets | None, n_labels: int, seed: int) -> nn.Module:
    """Fresh network; the encoders of all controls start with the same weights."""
    size = size_of(recipe.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if targets is None:
            return LabelledEncoder(size, n_labels)
        return MaskedAutoencoder(size, targets.n_codebooks, targets.n_codes, recipe.masked_weight)


def _describe(folder: Path, recipe: Recipe, control: str, audio: Corpus) -> None:
    """Say beside the checkpoints what network they are of."""
    size = size_of(recipe.size)
    taught = "labels" if control == "labels" else f"{recipe.targets} targets"
    content = {
        "label": f"EnCodecMAE {recipe.size}, {control}" if control != "none" else recipe.size,
        "architecture": f"{size.n_layers}-layer {size.width}d {size.n_heads}-head transformer "
        f"(ResiDual norm) MAE encoder, 256 mels in, {taught}",
        "training_data": f"{len(audio)} recordings, {audio.seconds:.0f} s ({control})",
        "options": {
            "front_end": "mel",
            "n_layers": size.n_layers,
            "width": size.width,
            "n_heads": size.n_heads,
            "n_hidden": size.n_hidden,
        },
    }
    path, text = folder / NETWORK, json.dumps(content, indent=1, sort_keys=True)
    if path.is_file() and path.read_text() != text:
        raise ParameterError(f"{folder} holds a run of another network. Use another folder.")
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def _measure_baselines(
    folder: Path, batches: Batches, unheard: Batches, network: MaskedAutoencoder, n_codes: int
) -> None:
    """Write down, once, what the network has to beat."""
    path = folder / _BASELINES
    if not path.is_file():
        weights = network.codebook_weights.tolist()
        found = measured_baselines(batches, unheard, weights, n_codes, _n_batches(unheard))
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1))


def baselines(folder: str | Path) -> dict[str, float]:
    """Read what the network of a run has to beat, on the crops that validate it.

    Returns
    -------
    dict of str to float
        ``unigram_loss`` and ``unigram_nats``: guessing codes by how frequent they are in the
        training audio, to hold against ``validation_masked_loss`` and ``validation_masked_nats``
        (first codebook, nats). ``copy_accuracy``: giving a hidden frame the code of the nearest
        visible one, to hold against ``validation_masked_accuracy``.

    Raises
    ------
    MissingDataError
        When the folder holds no such run.

    Examples
    --------
    >>> import tempfile
    >>> from analysis_lib import pretraining
    >>> pretraining.baselines(tempfile.mkdtemp())
    Traceback (most recent call last):
        ...
    analysis_lib.errors.MissingDataError: ... is not a run of masked prediction ...
    >>> run = pretraining.pretrain("demo", "demo", "runs/demo")  # doctest: +SKIP
    >>> sorted(pretraining.baselines(run.folder))  # doctest: +SKIP
    ['copy_accuracy', 'unigram_loss', 'unigram_nats']
    """
    path = Path(folder) / _BASELINES
    if not path.is_file():
        raise MissingDataError(
            f"no {path}: {folder} is not a run of masked prediction (runs taught by labels have "
            "none)"
        )
    return json.loads(path.read_text())


def _n_batches(unheard: Batches) -> int:
    return -(-_VALIDATION_CROPS // unheard.recipe.batch_size)


def _validation(network: nn.Module, unheard: Batches) -> Callable[[int], dict[str, float]]:
    """Loss and metrics on fixed crops of recordings that are not trained on."""
    fixed: list[tuple[torch.Tensor, ...]] = []

    def evaluate(step: int) -> dict[str, float]:
        if not fixed:
            fixed.extend(unheard(VALIDATION + number) for number in range(_n_batches(unheard)))
        sums: dict[str, float] = {}
        for batch in fixed:
            loss, weight, metrics = network(*batch)
            for name, value in {"loss": loss, "weight": weight, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return {name: value / sums["weight"] for name, value in sums.items() if name != "weight"}

    return evaluate


def _name_of_targets(recipe: Recipe, encodec: str | Path | None) -> str:
    return str(encodec) if recipe.targets == "encodec" and encodec else recipe.targets


def _targets(
    recipe: Recipe,
    audio: Corpus,
    alter: Alter,
    folder: Path,
    seed: int,
    group: Processes,
    encodec: str | Path | None,
    about: dict,
) -> Targets:
    """Find or learn what is to be predicted; learned codebooks are kept in the run's folder."""
    if recipe.targets == "encodec":
        return EncodecTargets(encodec or find_encodec(), recipe.n_codebooks)
    teacher = layer = None
    if recipe.targets != "kmeans":
        teacher = load(recipe.targets, str(group.device))
        layer = recipe.layer or f"{teacher.layers[-1]}_left"
    path = folder / _CODEBOOKS
    learned_from = {
        name: json.dumps(value, sort_keys=True, default=str)
        for name, value in {
            "audio": about["audio"],
            "control": about["control"],
            "seed": seed,
            "n_codebooks": recipe.n_codebooks,
            "n_codes": recipe.n_codes,
            "teacher": teacher.weights_sha256 if teacher is not None else None,
            "layer": layer,
        }.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".codebooks.lock"):
        if not path.is_file():
            log.info("learning %d codebooks for %s", recipe.n_codebooks, folder.name)
            vectors = _vectors(recipe, audio, alter, seed, group.device, teacher, layer)
            codebooks = fit_residual_kmeans(vectors, recipe.n_codebooks, recipe.n_codes, seed)
            save_codebooks(codebooks, path, learned_from)
    codebooks = read_codebooks(path, learned_from)
    if teacher is None:
        return KMeansTargets(codebooks)
    return TeacherTargets(teacher, layer, codebooks)


def _vectors(
    recipe: Recipe,
    audio: Corpus,
    alter: Alter,
    seed: int,
    device: torch.device,
    teacher: AudioModel | None,
    layer: str | None,
) -> np.ndarray:
    """Frames to learn codebooks on, (n_vectors, n_dims), out of crops of the training audio."""
    front_end = mel_front_end().to(device)
    wanted = max(_N_VECTORS, 100 * recipe.n_codes)
    vectors, n_vectors, number = [], 0, 0
    while n_vectors < wanted:
        rng = np.random.default_rng([seed, 2, number])
        wave = alter(audio.crop(recipe.n_samples, rng)[0], rng)
        waveform = torch.from_numpy(wave)[None].to(device)
        if teacher is None:
            found = front_end(waveform)[0]
        else:
            found = teacher.embed(waveform, layers=[layer])[layer][0]
        vectors.append(found.cpu().numpy())
        n_vectors, number = n_vectors + len(found), number + 1
    return np.concatenate(vectors)[:wanted]
