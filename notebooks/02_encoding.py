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
# # 2. From features to brain responses
#
# If a model hears as the brain does, the brain's responses should be readable from the model's
# features. An *encoding model* puts that to a test: fit a linear map from features to a voxel's
# response on some sounds, predict the response to others, compare. This chapter re-derives the
# voxel-wise and component-wise regression of {cite:t}`pepino2025better`.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from analysis_lib import data, encoding, extraction, figures, published, results, surface

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo, natsound or paper
dataset: str = "simulated-components"  # a few targets to look at one by one
voxels: str = "simulated"  # many targets: voxels
models: list[str] = ["log-mel", "mfcc", "small-cnn", "planted"]  # which models to compare
folds: str = "auto"  # which cross-validation folds: auto, pepino or stratified
rival: str = "log-mel"  # what the model with the most layers is held against
extend: str = "greedy"  # penalties beyond the grid: greedy (the paper's rule) or none
n_shuffles: int = 40  # shuffles for the null distribution
cortical_maps: bool = False  # draw the components on the cortical surface (real data only)
seed: int = 0  # for the shuffles
device: str = "auto"  # where to compute: auto, cpu, cuda or mps

# %% [markdown]
# ## The responses
#
# {cite:t}`normanhaignere2015distinct` found that the responses of eleven thousand voxels of human
# auditory cortex to 165 natural sounds are, to a good approximation, mixtures of only six response
# profiles, the *components*: four that follow acoustics (low and high frequencies, broadband
# events, pitch), one for speech and one for music. Profiles and mixing weights are public; the
# voxels measured in single subjects come in the next chapter. Until then the product of profiles
# and weights stands in for voxels. It has as many columns as there were voxels, but rank six, no
# noise and no subjects: it can rank models, it cannot say how much of the *measured* response they
# explain.
#
# In the demo the cortex is simulated. Each of its areas listens to one of three planted layers
# (`spectrum`, `modulation`, `conjunction`), so that we know what an analysis should find; and the
# planted layers enter the comparison as if they were a model.

# %%
responses = {name: data.responses(name) for name in (dataset, voxels)}
heard = {name: data.sounds(name) for name in responses}
fold_of = {name: data.folds(folds, heard[name]) for name in responses}
for name, array in responses.items():
    print(f"{name}: {dict(array.sizes)}, {len(np.unique(fold_of[name]))} folds")

# %% [markdown]
# ## The method
#
# For every voxel $v$ and outer fold, the layer $l$ and the penalty $\alpha$ of a ridge regression
#
# $$\hat w = \arg\min_w \lVert y_v - X_l w \rVert^2 + \alpha \lVert w \rVert^2$$
#
# are chosen **together**, by cross-validation inside the other folds; then the model is refitted on
# all of those and predicts the held-out sounds. The score is the squared correlation of measured
# and predicted responses over all sounds, with negative correlations counted as zero. Where the
# best penalty lies at an end of the grid the search goes on beyond it, by factors of two.
#
# Done literally that is two thousand regressions per voxel. With fewer sounds than units it can be
# done in the space of sounds: one eigendecomposition per training set serves every voxel and every
# penalty. The tests compare the result with a literal transcription.

# %%
features = {
    (name, model): extraction.features(model, heard[name], device=device)
    for name in responses
    for model in models
}
encoded = {
    (name, model): results.cached(
        "encoding",
        encoding.nested_cv_ridge,
        {"dataset": name, "model": model},
        features=layers,
        responses=responses[name],
        folds=fold_of[name],
        extend=extend,
        device=device,
    )
    for (name, model), layers in features.items()
}

# %% [markdown]
# ## Which component does which model predict?

# %%
tables = [encoded[dataset, model]["score"].to_dataframe() for model in models]
scores = pd.concat(tables, keys=models, names=["model"]).reset_index()

# %% tags=["figure"] mystnb={"figure": {"caption": "Cross-validated R² of each model for each component: the squared correlation of measured and predicted responses over all sounds.", "name": "fig-components"}, "image": {"alt": "Grouped bars of R², a group per component, a bar per model."}}
ax = figures.plot_scores(scores)
# %% [markdown]
# ## Sound by sound
#
# A correlation can come from a few sounds. Here is the best model's prediction of each component,
# a point per sound. A cloud that follows the line within one colour predicts more than the
# category; two clumps of different colours, one low and one high, predict the category and little
# else.

# %% tags=["figure"] mystnb={"figure": {"caption": "Measured and predicted response of each component, by the model with the highest R² for it. A point per sound, coloured by category; the line marks equality.", "name": "fig-predictions"}, "image": {"alt": "Scatter plots of predicted against measured responses, a panel per component."}}
best = scores.loc[scores.groupby("target", sort=False)["score"].idxmax()]
n_rows = -(-len(best) // 3)
fig, axes = plt.subplots(n_rows, 3, figsize=(9, 3.4 * n_rows + 0.6), squeeze=False)
for ax, row in zip(axes.flat, best.itertuples(), strict=False):
    measured = responses[dataset].sel(target=row.target)
    predicted = encoded[dataset, row.model]["prediction"].sel(target=row.target)
    title = f"{row.target}, R² {row.score:.2f}\n{figures.label(row.model)}"
    figures.plot_prediction(measured, predicted, title, ax)
handles, kinds = axes.flat[0].get_legend_handles_labels()
style = {"loc": "outside lower center", "ncols": 5, "markerscale": 2}
legend = fig.legend(handles, kinds, **style)
# %% [markdown]
# ## Voxels
#
# The paper's summary of a model is the median R² over the voxels of each subject, then the mean
# over subjects; the error is the standard error over subjects. Areas are kept apart where the data
# set labels them. Where sounds were repeated, the agreement of the repetitions bounds what any
# model could reach: the noise ceiling, in the same squared correlation as the scores.

# %%
grouping = "roi" if "roi" in responses[voxels].coords else "dominant_component"
tables = [encoding.aggregate(encoded[voxels, model], grouping) for model in models]
by_area = pd.concat(tables, keys=models, names=["model"]).reset_index()
found = list(dict.fromkeys(by_area[grouping]))
areas = [name for name in data.COMPONENTS.values() if name in found] or found
by_area = by_area.set_index(grouping).loc[areas].reset_index()

# %% tags=["figure"] mystnb={"figure": {"caption": "Median R² over voxels, averaged over subjects, in each area (simulated or measured voxels) or in the voxels that one component dominates (reconstructed voxels). Error bars: standard error over subjects, where there are subjects. Black lines: noise ceiling, where sounds were repeated.", "name": "fig-voxels"}, "image": {"alt": "Grouped bars of R², a group per area, a bar per model."}}
ceiling = encoding.explainable(responses[voxels]).to_series()
ceiling = ceiling.groupby(responses[voxels][grouping].to_series()).median()
ax = figures.plot_scores(by_area, across=grouping, ceiling=ceiling)
label = ax.set_xlabel("Area" if grouping == "roi" else "Voxels dominated by")
# %% [markdown]
# ## Where on the cortex?
#
# Voxels that know their place can be mapped. The demo's voxels lie on a flattened grid like those
# of the measured data sets, which come in the next chapter. The reconstructed voxels carry no
# place; for them we show where on the cortical surface each component was found, from the group
# maps that {cite:t}`normanhaignere2015distinct` published: the acoustic components follow the
# tonotopic layout of primary auditory cortex, speech and music lie around it.

# %% tags=["figure"] mystnb={"figure": {"caption": "Where the responses come from. Measured or simulated voxels: R² of the first model on the flattened grid, areas outlined. Reconstructed voxels: signed significance of each component's weights in the group of ten listeners (red: positive, blue: negative; grey: p > .05), on the inflated fsaverage5 surface.", "name": "fig-maps"}, "image": {"alt": "Maps of auditory cortex in both hemispheres."}}
if cortical_maps:
    folder = data.fetch.fetch("natsound165", "component-weight-significances/*")
    fig = plt.figure(figsize=(10, 8))
    panels = fig.subfigures(3, 2).flat
    for panel, component in zip(panels, surface.COMPONENT_NUMBERS, strict=True):
        axes = panel.subplots(1, 2, subplot_kw={"projection": "3d"})
        values = surface.group_component_map(folder, component)
        look = {"cmap": "RdBu_r", "limits": (-10, 10), "threshold": 1.3}
        surface.plot_surface(values, axes, label="signed -log10 p", **look)
        panel.suptitle(component)
elif "x" in responses[voxels].coords:
    scored = responses[voxels].isel(sound=0, repetition=0, drop=True, missing_dims="ignore")
    scored = scored.copy(data=encoded[voxels, models[0]]["score"].data)
    surface.plot_flat_grid(scored, label=f"R² of {figures.label(models[0])}")

# %% [markdown]
# ## Which layer wins where?
#
# For a model with several layers the choice itself is a finding: in the published models, early
# layers win in primary auditory cortex and later ones around it {cite}`tuckute2023many`. Below, for
# the model with the most layers, how often each layer was chosen. In the demo the answer is planted.

# %%
layered = [model for model in models if len(features[voxels, model]) > 1] or models
shares = {}
for model in layered:
    chosen = encoded[voxels, model]["layer"].to_dataframe().reset_index()
    counts = pd.crosstab(chosen[grouping], chosen["layer"], normalize="index")
    columns = features[voxels, model].layers
    shares[model] = counts.reindex(index=areas, columns=columns, fill_value=0)

# %% tags=["figure"] mystnb={"figure": {"caption": "How often each layer was chosen, over voxels and outer folds, in each area; for the models with more than one layer.", "name": "fig-layers"}, "image": {"alt": "Heat maps of the share of voxels that choose each layer, areas in rows, a panel per model."}}
height = 1.0 + 0.4 * len(areas)
fig, axes = plt.subplots(len(layered), figsize=(8, height * len(layered)), squeeze=False)
for ax, model in zip(axes.flat, layered, strict=True):
    figures.plot_layer_choice(shares[model], ax).set_title(figures.label(model))

# %% [markdown]
# ## What does a model explain beyond another?
#
# Two models that predict a component equally well need not predict the same part of it. Banded
# ridge regression gives each feature space a penalty of its own {cite}`latour2022himalaya`; what the
# joint model explains beyond either space alone is unique to the other. Here: the best layer of the
# model with the most layers against the rival named among the parameters. For trained networks the
# interesting rival is the SpectroTemporal filter bank, which stands for acoustics.

# %%
others = [model for model in (*layered, *models) if model != rival] or models
other = max(others, key=lambda model: len(features[dataset, model]))
if other == rival:  # a model alone needs another one to be held against
    rival = "mfcc" if other == "log-mel" else "log-mel"
favourite = encoded[dataset, other]["layer"].to_series().mode().iloc[0]

# %%
baseline = extraction.features(rival, heard[dataset], device=device)
spaces = {
    figures.label(rival): baseline[baseline.layers[-1]],
    figures.label(other): features[dataset, other][favourite],
}
parts = results.cached(
    "variance-partition",
    encoding.variance_partition,
    {"dataset": dataset, "spaces": f"{rival} {other}"},
    features=spaces,
    responses=responses[dataset],
    folds=fold_of[dataset],
    device=device,
)
rival_only, other_only = (parts["unique"].sel(feature_space=name) for name in spaces)
divided = pd.DataFrame(
    {
        f"Only {figures.label(rival)}": rival_only.to_series(),
        "Shared": parts["shared"].to_series(),
        f"Only {figures.label(other)}": other_only.to_series(),
    }
)

# %% tags=["figure"] mystnb={"figure": {"caption": "Cross-validated variance of each component that two feature spaces explain alone and in common. Parts estimated below zero are drawn as zero.", "name": "fig-unique"}, "image": {"alt": "Stacked horizontal bars, a bar per component, parts unique to each model and shared."}}
ax = figures.plot_unique(divided)

# %% [markdown]
# ## What would chance give?
#
# The score cannot be negative, so its mean under chance is above zero, and a model with many layers
# has more chances. Shuffling the responses across sounds breaks every relation to the features and
# leaves everything else, the search over layers and penalties included. All shuffles of all targets
# go through one call.

# %%
deepest = max(reversed(models), key=lambda model: len(features[dataset, model]))
rng = np.random.default_rng(seed)
orders = [rng.permutation(len(heard[dataset])) for _ in range(n_shuffles)]
shuffled = np.concatenate([responses[dataset].data[order] for order in orders], axis=1)
null = results.cached(
    "encoding-null",
    encoding.nested_cv_ridge,
    {"dataset": dataset, "model": deepest, "seed": seed},
    features=features[dataset, deepest],
    responses=shuffled,
    folds=fold_of[dataset].data,
    extend=extend,
    device=device,
)
null_means = null["score"].data.reshape(n_shuffles, -1).mean(axis=1)
means = scores.groupby("model", sort=False)["score"].mean()

# %% tags=["figure"] mystnb={"figure": {"caption": "Mean R² over components: with responses shuffled across sounds (grey, the model with the most layers), and as measured (lines).", "name": "fig-null"}, "image": {"alt": "Histogram of shuffled scores near zero and vertical lines for the models."}}
ax = figures.plot_null(means.to_dict(), null_means)
# %%
above = [(null_means >= score).sum() for score in means]
pd.DataFrame(
    {
        "Model": [figures.label(model) for model in means.index],
        "Mean R²": means.to_numpy(),
        "p (shuffled)": [(1 + count) / (1 + n_shuffles) for count in above],
    }
).style.hide(axis="index").format(precision=3)

# %% [markdown]
# ## What we found, what the papers report
#
# The paper scores measured voxels with trained models; the representations of this chapter are
# hand-made or untrained, and the voxels reconstructed or simulated. One row can be set against a
# published number by name, and even that with care: the SpectroTemporal baseline on voxels, which
# the paper measured on the real ones. For the components the paper prints trained models only; the
# range over its 35 models is what a trained model would have to reach.

# %%
approximate = published.table("pepino_components_approx")
columns = ["LF", "HF", "Broadband", "Pitch", "Speech", "Music"]
ranges = dict(zip(data.COMPONENTS.values(), columns, strict=True))
ours = scores.loc[scores.groupby("target", sort=False)["score"].idxmax()]
comparison = pd.DataFrame(
    {
        "Component": ours["target"].to_numpy(),
        "Best here": [figures.label(model) for model in ours["model"]],
        "R² here": ours["score"].to_numpy(),
        "Published, lowest of 35": [
            approximate[ranges[t]].min() if t in ranges else np.nan for t in ours["target"]
        ],
        "Published, highest of 35": [
            approximate[ranges[t]].max() if t in ranges else np.nan for t in ours["target"]
        ],
    }
)
comparison.style.hide(axis="index").format(precision=3, na_rep="not in the paper")

# %%
alignment = published.table("pepino_models_alignment_approx").set_index("model")
baseline = alignment.loc["braindnn_spectemp_filters", "REG_NH2015"]
overall = {m: encoding.aggregate(encoded[voxels, m]).loc["all", "score"] for m in models}
rows = [(figures.label(m), voxels, overall[m], np.nan) for m in models]
rows.append(("SpectroTemporal, as published", "nh2015, measured voxels", np.nan, baseline))
columns = ["Model", "Voxels", "Median R² here", "Published"]
pd.DataFrame(rows, columns=columns).style.hide(axis="index").format(precision=3, na_rep="–")

# %% [markdown]
# With noise-free targets of rank six the scores are higher than any measured voxel would allow, so
# the two columns must not be compared row by row. The next chapter takes the measured voxels, their
# noise ceilings, and a second way of asking: do the *distances* between sounds agree?
