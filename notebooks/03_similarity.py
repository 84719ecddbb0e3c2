# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Do they find the same sounds alike?
#
# An encoding model may stretch, rotate and discard: a linear map is free to pick out of a layer
# whatever a voxel needs. Representational similarity analysis (RSA) gives no such freedom. It asks
# whether two sounds that are far apart in the model are far apart in the brain
# {cite}`nili2014toolbox`. This chapter re-derives the second analysis of {cite:t}`pepino2025better`
# and the split-half protocol of {cite:t}`tuckute2023many`, with what both leave open: intervals,
# ceilings in the same metric as the scores, and a choice of layers that is really held out.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from analysis_lib import (
    claims,
    data,
    encoding,
    extraction,
    figures,
    published,
    results,
    rsa,
    stats,
    surface,
)

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo, natsound or paper
datasets: list[str] = ["nh2015-twin", "b2021-twin"]  # voxel data sets
models: list[str] = ["log-mel", "mfcc", "small-cnn", "planted"]  # which models to compare
folds: str = "auto"  # cross-validation folds: auto, pepino or stratified
n_boot: int = 300  # bootstrap draws
n_permutations: int = 300  # permutations of the sounds
seed: int = 0  # for both
device: str = "auto"  # where to compute: auto, cpu, cuda or mps

# %% [markdown]
# ## The voxels
#
# Two public data sets hold measured voxels: eight listeners and 7,694 voxels of
# {cite:t}`normanhaignere2015distinct`, twenty listeners and 26,792 voxels of
# {cite:t}`boebinger2021music`, each sound heard in three sessions. The profile `paper` reads them.
# The demo writes a simulated twin in exactly their file layout, odd corners included, and reads it
# with the same loader. The profile `natsound` has only the voxels rebuilt from six components: of
# rank six, without noise and without subjects. They have no noise ceiling and no areas, the
# interval over subjects is empty, and a high similarity says that a model agrees with the six
# components, not with measured voxels.

# %%
responses = {name: data.responses(name) for name in datasets}
heard = {name: data.sounds(name) for name in datasets}
fold_of = {name: data.folds(folds, heard[name]) for name in datasets}
features = {
    (name, model): extraction.features(model, heard[name], device=device)
    for name in datasets
    for model in models
}
for name, array in responses.items():
    subjects = np.unique(array["subject"]) if "subject" in array.coords else ["none"]
    print(f"{name}: {dict(array.sizes)}, subjects: {', '.join(subjects)}")

# %% [markdown]
# ## Distances between sounds
#
# The dissimilarity of two sounds is 1 minus the correlation of their patterns, over the voxels of
# a brain or the units of a layer, each standardised over sounds. All pairs make a matrix, the RDM.
# Below: the brain's, the average over subjects, beside those of three models. Dark squares on the
# diagonal are categories whose members are alike.

# %%
first = datasets[0]
averaged = responses[first]
if "repetition" in averaged.dims:
    averaged = averaged.mean("repetition")
categories = list(averaged["category"].data)
if "subject" in averaged.coords:
    parts = [rsa.rdm(part.data) for _, part in averaged.groupby("subject")]
else:
    parts = [rsa.rdm(averaged.data)]
matrices = {"Brain": np.mean(parts, axis=0)}
for model in models[-3:]:
    layers = features[first, model]
    last = layers[layers.layers[-1]].sel(sound=averaged["sound"])
    matrices[f"{figures.label(model)}: {layers.layers[-1]}"] = rsa.rdm(last.data)

# %% tags=["figure"] mystnb={"figure": {"caption": "Dissimilarity matrices of the brain (mean over subjects) and of the last layer of three models. Colour is the rank of a pair's dissimilarity among all pairs, from alike (dark) to different (bright). Sounds are sorted by category.", "name": "fig-rdms"}, "image": {"alt": "Four square matrices with blocks along the diagonal."}}
fig, axes = plt.subplots(2, 2, figsize=(9, 8.4))
for ax, (title, matrix) in zip(axes.flat, matrices.items(), strict=False):
    figures.plot_rdm(matrix, categories, title, ax)
for ax in axes.flat[len(matrices) :]:
    ax.remove()

# %% [markdown]
# The same distances as a map: sounds that the brain (left) or a model (right) finds alike lie near
# each other. Two dimensions cannot hold all of it; the map is a picture, not a measurement.

# %% tags=["figure"] mystnb={"figure": {"caption": "Sounds placed by classical multidimensional scaling of the brain's matrix (left) and of the last model's (right), coloured by category.", "name": "fig-embedding"}, "image": {"alt": "Two scatter plots of sounds in colours of their categories."}}
fig, axes = plt.subplots(1, 2, figsize=(9, 5))
for ax, title in zip(axes, ["Brain", list(matrices)[-1]], strict=True):
    figures.plot_embedding(rsa.embedding(matrices[title]), categories, title, ax)
handles, kinds = axes[0].get_legend_handles_labels()
legend = fig.legend(handles, kinds, loc="outside lower center", ncols=6)

# %% [markdown]
# ## Layer by layer
#
# Two matrices are compared by the Spearman correlation of their upper triangles. Intervals come
# from drawing the *sounds* with replacement: they say how far the result would move with another
# sample of sounds. The grey band is the noise ceiling. Its lower edge is how well one listener's
# matrix is predicted by the others', its upper edge how well by all, that listener included; a
# perfect model lies somewhere between.

# %%
curves = {
    key: results.cached(
        "rsa-bootstrap",
        rsa.bootstrap,
        {"dataset": key[0], "model": key[1]},
        features=layers,
        responses=responses[key[0]],
        over="sounds",
        n_boot=n_boot,
        seed=seed,
        device=device,
    )
    for key, layers in features.items()
}
ceilings = {name: rsa.noise_ceiling(array) for name, array in responses.items()}

# %% tags=["figure"] mystnb={"figure": {"caption": "Similarity of each layer with the brain: mean over subjects, 95 % interval over draws of sounds. Grey: lower to upper noise ceiling, where there are several subjects.", "name": "fig-layer-curves"}, "image": {"alt": "Similarity against layer depth, a line per model, a panel per data set, with a grey ceiling band."}}
fig, axes = plt.subplots(
    1, len(datasets), figsize=(5 * len(datasets), 5), squeeze=False, sharey=True
)
for ax, name in zip(axes.flat, datasets, strict=True):
    ceiling = [float(ceilings[name][edge].mean()) for edge in ("lower", "upper")]
    shown = {model: curves[name, model] for model in models}
    figures.plot_layer_curve(shown, ceiling, name, ax)
handles, names = axes.flat[0].get_legend_handles_labels()
legend = fig.legend(handles, names, loc="outside lower center", ncols=3)

# %% [markdown]
# ## One number per model: three ways to choose the layer
#
# The paper's main figure takes the **best** layer on the data that it is then scored with. Its
# cross-validated variant chooses on some pairs of sounds and writes the chosen layer's distances
# into a composite matrix for the others; but pairs that share a tested sound stay in the choice, and
# later folds overwrite earlier ones, so that the result depends on the order of the folds. We
# compute it as described (**paper**), and beside it a choice in which no sound is on both sides
# (**strict**). The difference between the first and the last is what choosing costs.

# %%
rows = []
for (name, model), layers in features.items():
    best = rsa.layerwise(layers, responses[name], device=device)["score"]
    top = best.isel(layer=int(best.mean("subject").argmax("layer")))
    scored = {"best layer": top}
    for scheme in ("paper", "strict"):
        chosen = rsa.cross_validated(layers, responses[name], fold_of[name], scheme, device=device)
        scored[f"cross-validated, {scheme}"] = chosen["score"]
    for scheme, score in scored.items():
        error = float(stats.standard_error(score))
        rows.append((name, model, scheme, float(score.mean()), error))
schemes = pd.DataFrame(rows, columns=["dataset", "model", "scheme", "score", "error"])

# %% tags=["figure"] mystnb={"figure": {"caption": "Similarity of each model with the brain under three ways of choosing its layer. Bars: standard error over subjects, where there are subjects.", "name": "fig-schemes"}, "image": {"alt": "Points per model and way of choosing, a panel per data set."}}
fig, axes = plt.subplots(
    len(datasets), figsize=(8, (1.6 + 0.5 * len(models)) * len(datasets)), squeeze=False
)
for ax, name in zip(axes.flat, datasets, strict=True):
    figures.plot_schemes(schemes[schemes["dataset"] == name], name, ax)
handles, kinds = axes.flat[0].get_legend_handles_labels()
legend = fig.legend(handles, kinds, loc="outside lower center", ncols=3)

# %% [markdown]
# ## How sure are we?
#
# For each model's best layer: the distribution over draws of sounds, and what chance would give,
# from shuffling which sound is which. Among many layers the best of a shuffle is higher than a
# single one, and the p-value is taken against that.

# %%
draws, tests = {}, {}
for model in models:
    curve = curves[first, model]
    draws[model] = curve["draws"].isel(layer=int(curve["score"].argmax())).data
    tests[model] = results.cached(
        "rsa-permutation",
        rsa.permutation,
        {"dataset": first, "model": model},
        features=features[first, model],
        responses=responses[first],
        n_permutations=n_permutations,
        seed=seed,
        device=device,
    )
null = np.concatenate([test["null"].max("layer").data for test in tests.values()])

# %% tags=["figure"] mystnb={"figure": {"caption": "Bootstrap distributions of the best layer's similarity (lines), and the highest similarity over layers with the sounds permuted (grey, all models together).", "name": "fig-distributions"}, "image": {"alt": "Distributions of similarity, a line per model, and a grey one near zero."}}
ax = figures.plot_distributions(draws, null)

# %% [markdown]
# ## Areas and depth
#
# Where voxels are labelled by area, each area has a matrix of its own, and the layer that suits it
# best a depth. In the published models, layers that suit primary auditory cortex lie earlier than
# those that suit the areas around it {cite}`tuckute2023many`; Wilcoxon's signed-rank test over
# models asks whether that is so here. With a handful of models it can hardly be significant, and
# where areas are unknown there is nothing to test.

# %%
layered = [model for model in models if len(features[first, model]) > 1]
if "roi" in responses[first].coords and layered:
    position = {}
    for model in layered:
        by_area = rsa.layerwise(features[first, model], responses[first], ("subject", "roi"))
        depth = encoding.best_layer_position(by_area["score"])
        position[model] = depth.mean("subject").to_series()
    positions = pd.DataFrame(position).T
else:
    positions = pd.DataFrame({"All voxels": {m: np.nan for m in layered or models}})
    for model in layered:
        depth = encoding.best_layer_position(curves[first, model]["score"])
        positions.loc[model, "All voxels"] = float(depth)

# %% tags=["figure"] mystnb={"figure": {"caption": "Depth of the layer that agrees best with each area, averaged over subjects: a line per model, the black bar their mean.", "name": "fig-positions"}, "image": {"alt": "Depth of the best layer per area, lines for models."}}
ax = figures.plot_region_positions(positions)

# %%
table = pd.DataFrame({"": ["areas are unknown in this data set"]})
if "Primary" in positions and len(positions) > 1:
    labelled = positions.rename_axis(index="model", columns="roi").stack().to_xarray()
    table = stats.region_contrasts(labelled)
table.style.hide(axis="index").format(precision=3)

# %% [markdown]
# ## A second protocol, and what noise takes away
#
# {cite:t}`tuckute2023many` split the sounds into random halves, ten times; the penalty is chosen by
# leave-one-out, in closed form, on one half, and the squared correlation on the other half is
# divided by what the reliability of the voxel and of the prediction allow. Squaring after clipping
# hides how often a prediction is worse than none, so the signed correlation stands beside it.
# Without repetitions there is nothing to correct by. Of more than two thousand voxels every few are
# taken, evenly spaced.

# %%
step = max(1, responses[first].sizes["target"] // 2000)
thinned = responses[first].isel(target=slice(None, None, step))
halves = {
    model: results.cached(
        "split-half",
        encoding.split_half_ridge,
        {"dataset": first, "model": model},
        features=features[first, model],
        responses=thinned,
        splits=data.splits("tuckute", heard[first]),
        device=device,
    )
    for model in models
}
rows = []
for model, result in halves.items():
    chosen = encoding.choose_by_split_halves(result["r2"])["score"]
    rows.append((model, "r², uncorrected", float(chosen.median())))
    if "r2_corrected" in result:
        chosen = encoding.choose_by_split_halves(result["r2_corrected"])["score"]
        rows.append((model, "r², noise-corrected", float(chosen.median())))
    signed = result["r"].median("split").max("layer")
    rows.append((model, "signed r", float(signed.median())))
split_scores = pd.DataFrame(rows, columns=["model", "measure", "score"])

# %% tags=["figure"] mystnb={"figure": {"caption": "Median over voxels under the split-half protocol: squared correlation as measured, corrected for noise where there are repetitions, and the signed correlation.", "name": "fig-split-half"}, "image": {"alt": "Grouped bars, a group per measure, a bar per model."}}
ax = figures.plot_scores(split_scores, across="measure")
label = ax.set_ylabel("Median over voxels")

# %% [markdown]
# Voxel by voxel, the layer with the highest score has a depth, and the voxels have places. On the
# flattened grid of the data sets this is the published map of preferred layers, without leaving
# Python; for voxels without places, the same numbers by the component that dominates them.

# %%
deepest = max(models, key=lambda model: len(features[first, model]))
scored = halves[deepest]["r2_corrected" if "r2_corrected" in halves[deepest] else "r2"]
scored = scored.median("split").clip(max=1)
depth = encoding.best_layer_position(scored)

# %% tags=["figure"] mystnb={"figure": {"caption": "Preferred layer of each voxel in the model with the most layers, as relative depth (0 first, 1 last); on the flattened grid with areas outlined where places are known, otherwise as a share of the voxels that each component dominates.", "name": "fig-preferred"}, "image": {"alt": "Maps of both hemispheres, or a heat map, of the depth of each voxel's best layer."}}
if "x" in depth.coords:
    axes = surface.plot_flat_grid(depth, label=f"Depth in {figures.label(deepest)}")
else:
    known = "dominant_component" if "dominant_component" in depth.coords else "roi"
    kinds = depth[known].to_series().rename("component")
    shares = pd.crosstab(kinds, depth.to_series().round(2).rename("depth"), normalize="index")
    ax = figures.plot_layer_choice(shares)
    label = ax.set_xlabel(f"Depth in {figures.label(deepest)}")

# %% [markdown]
# ## What we found, what the papers report
#
# The published similarities are those of 36 trained models with measured voxels. By name only the
# SpectroTemporal baseline can be among ours, and only with the same voxels may the numbers be
# compared; the published range says where trained models lie.

# %%
digitised = published.table("pepino_models_alignment_approx").set_index("model")
columns = {"nh2015": "RSA_NH2015_maxlayer", "b2021": "RSA_B2021_maxlayer"}
rows = []
for name in datasets:
    column = columns["b2021" if name.startswith("b2021") else "nh2015"]
    for model in models:
        ours = schemes[(schemes["dataset"] == name) & (schemes["model"] == model)]
        theirs = digitised[column].get(
            "braindnn_spectemp_filters" if model == "spectrotemporal" else model, np.nan
        )
        rows.append((name, figures.label(model), *ours["score"], theirs))
columns = ["Voxels", "Model", *dict.fromkeys(schemes["scheme"]), "Published, best layer"]
pd.DataFrame(rows, columns=columns).style.hide(axis="index").format(precision=3, na_rep="–")

# %%
topline = {name: float(ceilings[name]["topline"].mean()) for name in datasets}
rows = [
    ("Best of 36 models, NH2015", "–", digitised["RSA_NH2015_maxlayer"].max()),
    ("Best of 36 models, B2021", "–", digitised["RSA_B2021_maxlayer"].max()),
    *((f"Topline, {name}", f"{topline[name]:.3f}", np.nan) for name in datasets),
    ("Topline, NH2015 (digitised)", "–", 0.759),
    ("Topline, B2021 (digitised)", "–", 0.752),
]
columns = ["Quantity", "Here", "Published"]
pd.DataFrame(rows, columns=columns).style.hide(axis="index").format(precision=3, na_rep="–")

# %%
claims.derive_again("T-02", "T-03")

# %% [markdown]
# Two cautions carry over to everything that follows. The best layer of a deep model is chosen among
# many, and only the strict column is free of that: compare columns before comparing models. A deep
# model gains most from the search, a filter bank with one layer nothing. And the published error
# bars of the similarities are standard deviations over subjects, not standard errors; ours are
# standard errors.
