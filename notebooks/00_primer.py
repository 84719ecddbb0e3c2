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
# # 0. Encoding models, distances and ceilings
#
# This page is for readers who have not met the three tools of the book: the encoding model, the
# comparison of distances, and the noise ceiling. Each is shown on a toy: a brain of which we know
# everything, because we made it. Who knows them can go on to
# [Chapter 1](01_extraction.ipynb).

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from analysis_lib import data, encoding, figures, rsa

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real; this page is the same in all
noise: float = 1.0  # noise of one measurement, in standard deviations of the signal
noise_levels: list[float] = [0.5, 1.0, 2.0, 4.0]  # the same, for the noise ceiling
n_voxels: int = 30  # voxels per area and subject
n_extra: int = 120  # useless dimensions to add, at the end
seed: int = 0  # of everything that is drawn

# %% [markdown]
# ## A brain that we made
#
# Sixty-odd short sounds of five kinds are played to a listener in a scanner. Each place in the
# scan, a *voxel* of a few cubic millimetres, gives one number per sound: how strongly the neurons
# in it responded. Sounds in rows, voxels in columns: that table is all that the scanner tells us.
#
# In the toy, the voxels of two areas do something simple. Those of the *primary* area add up the
# energy in frequency bands, each voxel with weights of its own; those of the *lateral* area add up
# how fast the energy changes. Then noise is added, three times anew, as if every sound had been
# played in three sessions. The numbers that an area adds up are its *features*.

# %%
sounds = data.simulated_sounds(seed=seed)
layers = data.planted_features(sounds)
areas = {"Primary": "spectrum", "Lateral": "modulation"}
responses = data.plant(
    layers, sounds.names, areas, n_subjects=2, n_voxels=n_voxels, noise=noise, n_null=0, seed=seed
).mean("repetition")
folds = data.folds("stratified", sounds)
print(f"{len(sounds)} sounds; {responses.sizes['target']} voxels, measured three times")
for name, values in layers.items():
    print(f"features '{name}': {values.shape[1]} numbers per sound")

# %% [markdown]
# ## An encoding model predicts
#
# Suppose somebody proposes the features and not the weights. Then the weights can be learned: find
# those with which the features come closest to what a voxel did. This is linear regression, and
# what it gives is an *encoding model* of the voxel {cite}`naselaris2011encoding`. It is judged by
# the share of variance that it explains, R².
#
# Judged on what? With as many features as sounds, weights can be found that reproduce any voxel,
# noise and all. So the sounds are divided into five *folds*: the weights are learned on four of
# them, the fifth is predicted, in turn, and only predictions for sounds that took no part in the
# learning are scored. Below is the same voxel both ways, with the features of all areas at once.

# %%
x = np.concatenate(list(layers.values()), axis=1)
x = (x - x.mean(axis=0)) / x.std(axis=0)
primary = responses[:, (responses["roi"] == "Primary").values]
voxel = primary[:, 0].data
weights = np.linalg.lstsq(x, voxel - voxel.mean(), rcond=None)[0]
fitted = encoding.nested_cv_ridge({"all": x}, primary.data, folds.data)

# %% tags=["figure"] mystnb={"figure": {"caption": "Responses of one voxel to all sounds against what an encoding model gives for them. Left: for the sounds that it learned from. Right: for sounds that it had not seen.", "name": "fig-primer-fit"}, "image": {"alt": "Two scatter plots; points on a line at the left, a broad cloud along it at the right."}}
fig, axes = plt.subplots(1, 2, figsize=(8.6, 4), sharey=True)
both = {"Same sounds": x @ weights, "New sounds": fitted["prediction"][:, 0].data}
axes = figures.plot_pairs(voxel, both, axes)
# %% [markdown]
# ## The penalty
#
# Regression can be told to be modest. *Ridge* regression adds to the error the squared length of
# the weights, times a penalty: the higher it is, the less the model follows what may be chance.
# Too low, and it learns noise; too high, and it learns nothing. The right value differs from voxel
# to voxel, and has to be found without looking at the sounds that are scored; so the four folds
# are divided again, and the penalty is chosen inside (*nested* cross-validation). With several
# layers of a network on offer, the layer is chosen in the same way, at the same time.

# %%
penalties = np.logspace(-2, 5, 15)
gram = x @ x.T
centred = primary.data - primary.data.mean(axis=0)
rows = []
for penalty in penalties:
    new = encoding.nested_cv_ridge(
        {"all": x}, primary.data, folds.data, alphas=(penalty,), extend="none"
    )
    same = gram @ np.linalg.solve(gram + penalty * np.eye(len(x)), centred)
    r = [np.corrcoef(one, other)[0, 1] for one, other in zip(same.T, centred.T, strict=True)]
    rows.append((np.square(r).mean(), float(new["score"].mean())))
scores = pd.DataFrame(rows, index=penalties, columns=["Same sounds", "New sounds"])

# %% tags=["figure"] mystnb={"figure": {"caption": "R² of the primary area's voxels for the sounds that were learned from, and for new ones, against the ridge penalty.", "name": "fig-primer-penalty"}, "image": {"alt": "One curve falls with the penalty; the other rises, peaks, and falls."}}
ax = figures.plot_penalties(scores)
# %% [markdown]
# ## The noise ceiling
#
# No model can predict noise. How much is there to predict? The three sessions tell: what is the
# same in all of them is signal, what differs is noise. The share of a voxel's variance that would
# come out again if the whole experiment were repeated is its *ceiling*. A model with R² of .4 is
# poor where the ceiling is .9, and perfect where it is .4. Here the model is given exactly the
# features that an area adds up, and the same area is measured with less and with more noise.
# Nothing but noise and the small number of sounds stands between the model and the ceiling; the
# ceiling is an estimate too, which is why points lie above it.

# %%
parts = []
for level in noise_levels:
    measured = data.plant(
        layers, sounds.names, {"Primary": "spectrum"}, n_subjects=1, n_voxels=n_voxels,
        noise=level, n_null=0, seed=seed,
    )  # fmt: skip
    right_model = {"spectrum": layers["spectrum"]}
    score = encoding.nested_cv_ridge(right_model, measured.mean("repetition"), folds.data)["score"]
    parts.append(
        pd.DataFrame({"noise": level, "ceiling": encoding.explainable(measured), "score": score})
    )
reached = pd.concat(parts, ignore_index=True)

# %% tags=["figure"] mystnb={"figure": {"caption": "R² of each voxel against the share of its variance that repeats, for a model that has the right features, in four measurements with more and more noise (in standard deviations of the signal). Dashed: the most that any model could reach, up to chance.", "name": "fig-primer-ceiling"}, "image": {"alt": "Scatter plot of voxels in four colours that move down along the diagonal, most of them below it."}}
ax = figures.plot_ceiling(reached)
# %% [markdown]
# ## Distances
#
# There is a way to compare a model with a brain that learns nothing. Take the responses of a
# hundred voxels to one sound as a pattern. Two sounds with similar patterns are alike *for this
# area*; one minus the correlation of the patterns says how unlike. All pairs of sounds make a
# square, the representational dissimilarity matrix or *RDM* {cite}`kriegeskorte2008representational`.
# A model has patterns too, over its units, and so a square of its own. If the same pairs are far
# apart in both, model and brain *represent* the sounds alike. The comparison uses ranks (Spearman's
# correlation), because nobody knows how the one scale maps onto the other.

# %%
matrices = {
    "Primary area": rsa.rdm(primary.data),
    "Its own features": rsa.rdm(layers["spectrum"]),
    "The other area's": rsa.rdm(layers["modulation"]),
}
alike_areas = rsa.compare(matrices["Primary area"], list(matrices.values()))[0]
agreement = dict(zip(matrices, alike_areas, strict=True))

# %% tags=["figure"] mystnb={"figure": {"caption": "Dissimilarity of all pairs of sounds: for the voxels of the primary area, for the features that they add up, and for the features of the other area. Colour is the rank of a pair's dissimilarity.", "name": "fig-primer-rdms"}, "image": {"alt": "Three square matrices; the first two have similar blocks."}}
fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.9))
for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
    title = name if name == "Primary area" else f"{name}: ρ = {agreement[name]:.2f}"
    figures.plot_rdm(matrix, list(sounds.categories), title, ax)
# %% [markdown]
# ## What each measure notices
#
# The two tools need not agree, and where they differ one can learn something. Take the right
# features of the primary area and spoil them, each time in another way. An encoding model is free
# to turn, stretch and discard, so it forgives whatever regression can undo. Distances are not:
# every dimension counts as it stands. (Each feature is standardised first, as in the papers, so
# that stretching one alone changes nothing here.)
#
# One bar is a surprise: *rotated* features, each a random mixture of the right ones, have
# distances that are **more** like the brain's than the right ones have. The reason is that a voxel
# is a random mixture too. The correlation of two patterns depends on the axes along which they are
# written down, and after mixing both are written down in the same way. So a high similarity of
# distances tells about the geometry *and* about how units carry it.

# %%
rng = np.random.default_rng(seed)
right = (layers["spectrum"] - layers["spectrum"].mean(axis=0)) / layers["spectrum"].std(axis=0)
width = right.shape[1]
rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
spoilt = {
    "The right features": right,
    "One stretched tenfold": right * np.where(np.arange(width) == 0, 10, 1),
    "Rotated": right @ rotation,
    "Every second one left out": right[:, ::2],
    f"{n_extra} of noise added": np.hstack([right, rng.standard_normal((len(right), n_extra))]),
    "Sounds shuffled": rng.permutation(right),
}
predicted = [
    encoding.nested_cv_ridge({"x": version}, primary.data, folds.data)["score"].mean().item()
    for version in spoilt.values()
]
alike = rsa.compare(matrices["Primary area"], [rsa.rdm(version) for version in spoilt.values()])[0]
measures = pd.DataFrame(
    {"Encoding model (R²)": predicted, "Distances (ρ)": alike.clip(min=0)}, index=list(spoilt)
)

# %% tags=["figure"] mystnb={"figure": {"caption": "Score of the primary area's own features, and of five spoilt versions of them, by the encoding model and by the comparison of distances.", "name": "fig-primer-measures"}, "image": {"alt": "Pairs of bars for six versions of the features."}}
ax = figures.plot_measures(measures)
# %% [markdown]
# ## What we found
#
# On a brain that we made, we can look up the answer. The table sets what the tools found beside
# what was planted. The chapters use the same functions; there, nobody can look up anything, and
# only what was learned here says how far to trust them.

# %%
by_noise = reached.groupby("noise")[["ceiling", "score"]].mean()
least, most = by_noise.iloc[0], by_noise.iloc[-1]
pd.DataFrame(
    [
        ("Ceiling, least noise and most", "high and low", least["ceiling"], most["ceiling"]),
        ("R² there, right features", "below the ceiling", least["score"], most["score"]),
        ("R², right features and shuffled sounds", "high and 0", *measures.iloc[[0, -1], 0]),
        ("ρ, its own features and the other area's", "high and low", *alike_areas[1:]),
    ],
    columns=["Quantity", "Planted", "Found, first", "Found, second"],
).style.hide(axis="index").format(precision=2)
