"""What follows from the papers' own numbers, claim by claim.

A derivation gives the numbers to hold against the published ones, alone or with a remark, or,
where the claim is an order or a direction, whether it holds and the number behind the answer.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import scipy

from . import published, published_encoding
from .models import card
from .stats import correlate

__all__ = ["DERIVATIONS"]


def _correlation(one: str, other: str) -> float:
    models = published.table("pepino_models_alignment_approx")
    return scipy.stats.pearsonr(models[one], models[other]).statistic


def _table1(*targets: str, subset: str = "All") -> list[float]:
    derived = published.overall_correlations()["pearson"].xs(subset, level="subset")
    return derived[list(targets)].tolist()


def _recent_models() -> tuple[bool, str]:
    """Whether general self-supervised families predict better than the others."""
    models = published.table("pepino_models_alignment_approx").set_index("model")
    recent = [card(name).family in ("EnCodecMAE", "BEATs", "Dasheng") for name in models.index]
    texts, holds = [], True
    for dataset in ("NH2015", "B2021"):
        scores = models[f"REG_{dataset}"]
        new, old = scores[recent].to_numpy(), scores[~np.array(recent)].to_numpy()
        rng = np.random.default_rng(0)
        differences = [
            rng.choice(new, len(new)).mean() - rng.choice(old, len(old)).mean()
            for _ in range(10_000)
        ]
        low, high = np.percentile(differences, [2.5, 97.5])
        holds &= low > 0
        texts.append(f"{dataset}: +{new.mean() - old.mean():.3f} R² ({low:.3f} to {high:.3f})")
    return holds, "; ".join(texts)


def _diverse_data() -> tuple[bool, str]:
    """Whether the mixture beats each of the three sources alone, on every measure."""
    models = published.table("pepino_models_alignment_approx").set_index("model")
    columns = list(published.ALIGNMENT_COLUMNS.values())
    mixture = models.loc["mel256-ec-base", columns]
    alone = models.loc[[f"mel256-ec-base-{source}" for source in ("as", "fma", "ll")], columns]
    better = (mixture > alone).to_numpy()
    worst = (mixture - alone).to_numpy(dtype=float).min()
    return bool(better.all()), f"better in {better.sum()} of {better.size}; smallest {worst:+.3f}"


def _small_tasks() -> tuple[bool, str]:
    """Whether rank gains fall with the amount of training data, over tasks."""
    gains = published.rank_gains().groupby("task")["gain"].mean()
    seconds = published.table("hear_training_seconds").set_index("task")["seconds"]
    found = correlate(seconds[gains.index], gains).sel(kind="spearman")
    rho, low, high = (float(found[name]) for name in ("r", "low", "high"))
    text = f"rank gain against training time, {len(gains)} tasks: Spearman {rho:.2f}"
    return high < 0, f"{text} ({low:.2f} to {high:.2f})"


def _beats_the_filters() -> float:
    """Fewest models above SpectroTemporal in a data set."""
    bars = published.table("tuckute_median_r2_approx")
    trained = bars[~bars["permuted"]].pivot(index="model", columns="dataset", values="median_r2")
    return float((trained > trained.loc["SpectroTemporal"]).sum().min())


def _beats_permuted() -> tuple[bool, str]:
    bars = published.table("tuckute_median_r2_approx")
    bars = bars[bars["model"] != "SpectroTemporal"]
    pairs = bars.pivot(index=["model", "dataset"], columns="permuted", values="median_r2")
    above = pairs[False] > pairs[True]
    return bool(above.all()), f"{above.sum()} of {len(above)} pairs of model and data set"


def _components() -> tuple[list[float], str]:
    derived = _table1("LF", "HF", "Broadband", "Pitch", "Speech", "Music")
    return derived, " (without the filter bank, whose values the figure draws as a line)"


def _verdicts() -> tuple[list[int], str]:
    missing_as_unchanged, missing_left_out = (
        published.task_changes(rule)["verdict"].value_counts()[["improved", "worsened"]].tolist()
        for rule in ("unchanged", "dropped")
    )
    return missing_as_unchanged, " ({} and {} with missing scores left out)".format(
        *missing_left_out
    )


def _places() -> list[float]:
    means = published.summarise_rank_gains()
    return [means.loc[a, t] for a in ("wholebrain", "STG") for t in ("individual", "group")]


def _raised() -> tuple[bool, str]:
    """Whether tuning raised the best parcel of every subject in the training logs."""
    gain = published_encoding.selected_models().loc["wholebrain", "gain"].dropna()
    spread = published_encoding.replicate_spread().xs("conv4", level="finetune")
    spread = spread.loc["wholebrain", "gain_z"].dropna()
    text = f"raised in {(gain > 0).sum()} of {len(gain)} subjects in the training logs, by "
    return bool((gain > 0).all()), text + (
        f"{gain.min():.3f} to {gain.max():.3f}: {spread.min():.1f} to {spread.max():.1f} standard "
        "deviations of replicates"
    )


def _own_is_best() -> tuple[bool, str]:
    pairs = published_encoding.cross_subject()
    stg, whole = (pairs.loc[atlas] for atlas in ("STG", "wholebrain"))
    return stg["n_lower"] == stg["n_pairs"], (
        f"others lower in {stg['n_lower']} of {stg['n_pairs']} pairs (STG), "
        f"{whole['n_lower']} of {whole['n_pairs']} (whole brain)"
    )


def _own_or_group() -> tuple[bool, str]:
    """Whether no more subjects are better off with the group than worse."""
    verdicts = published_encoding.group_against_own()["verdict"]
    counts = {
        atlas: verdicts.loc[atlas].value_counts().reindex(["better", "worse"], fill_value=0)
        for atlas in ("wholebrain", "STG")
    }
    text = "; ".join(
        f"{atlas}: group better for {count['better']}, worse for {count['worse']} of 6"
        for atlas, count in counts.items()
    )
    return all(count["better"] <= count["worse"] for count in counts.values()), text


def _replicates() -> list[float]:
    spread = published_encoding.replicate_spread().loc["STG"].xs("conv4", level="finetune")
    return spread["sd"].dropna().tolist()


def _soundnet_parameters() -> float:
    from .models.soundnet import SoundNet8

    blocks = [part for name, part in SoundNet8().named_children() if not name.startswith("conv8")]
    return float(sum(p.numel() for block in blocks for p in block.parameters()))


_VOXELS, _DISTANCES = ("REG_NH2015", "REG_B2021"), ("RSA_NH2015_maxlayer", "RSA_B2021_maxlayer")
DERIVATIONS: Mapping[str, Callable] = MappingProxyType({
    "P1-01": lambda: _table1(_VOXELS[0]),
    "P1-02": lambda: _table1(_VOXELS[1]),
    "P1-03": lambda: _table1(_DISTANCES[0]),
    "P1-04": lambda: _table1(_DISTANCES[1]),
    "P1-05": _components,
    "P1-06": lambda: _table1(*_VOXELS, *_DISTANCES, subset="Overall>-1"),
    "P1-08": lambda: [_correlation(*pair) for pair in zip(_VOXELS, _DISTANCES, strict=True)],
    "P1-09": lambda: [_correlation(*_DISTANCES), _correlation(*_VOXELS)],
    "P1-12": _recent_models,
    "P1-17": _diverse_data,
    "P2-01": _soundnet_parameters,
    "P2-02": _raised,
    "P2-05": _verdicts,
    "P2-06": _places,
    "P2-07": _small_tasks,
    "P2-08": _own_is_best,
    "P2-09": _own_or_group,
    "P2-11": _replicates,
    "T-02": _beats_the_filters,
    "T-03": _beats_permuted,
})  # fmt: skip
