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
# # Bring your own brain data
#
# Every analysis of this book takes responses as one labelled array: a row per sound, a column per
# target. A target may be a voxel, a parcel, an electrode or a component. This guide makes that
# array in two ways, from an array of numbers and from a BIDS data set, writes it to a file, and
# gives the file to the chapters.

# %% [markdown]
# The page is executed like the chapters, on data whose truth is known. Run it with another model
# from the command line, for instance `brainbook run own_brain -p model=small-cnn`.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from analysis_lib import data, encoding, extraction, figures, results, rsa
from analysis_lib.errors import AlignmentError

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo, natsound or paper
model: str = "planted"  # which model to hold against the responses
n_subjects: int = 2  # subjects of the simulated BIDS data set
noise: float = 0.5  # noise of one image, in units of the responses
seed: int = 0  # for the simulated data
device: str = "auto"  # where to compute: auto, cpu, cuda or mps

# %% [markdown]
# ## From an array
#
# Three things are needed: the numbers, the names of the sounds in the order of the rows, and what
# is known of the columns. Here the numbers come from the simulated cortex, as if they had been
# exported from another program. Names are what holds the book together. Rows are matched by name
# and never by position, so the order does not matter as long as each row has its own name.

# %% tags=["show-code"]
sounds = data.simulated_sounds()
planted = data.plant(data.planted_features(sounds), sounds.names, seed=seed, n_voxels=6)
numbers = planted.data  # (60 sounds, 136 voxels, 3 repetitions), plain numbers
responses = data.own_responses(
    numbers,
    sounds,
    subject=planted["subject"].data,
    roi=planted["roi"].data,
)
print(dict(responses.sizes), "with", ", ".join(responses.coords))

# %% [markdown]
# | Label of the columns | What it is for |
# | --- | --- |
# | `subject` | medians and dissimilarity matrices are made within a subject, error bars over subjects |
# | `roi` | areas that figures compare; an empty text is a voxel without an area |
# | `hemisphere`, `x`, `y` | maps: lh or rh, and the place on a flattened grid of 2 mm steps |
# | `kind` | voxel, parcel, component |
#
# A third axis holds repetitions of the same sounds. With it come noise ceilings. Without it, average
# first and accept that nobody can say how good a score could have been. A voxel that holds NaN is
# kept and gets NaN as its score; a sound without any response is refused by name, and so is an
# array on its side:

# %% tags=["show-code"]
try:
    data.own_responses(numbers[:, :40, 0].T, sounds)
except AlignmentError as error:
    print(error)

# %% [markdown]
# ## From a BIDS data set
#
# What is needed are images that have been preprocessed (a derivative such as fMRIPrep's), a table
# of events per run, and a mask. The table says when each sound was played. The column `stim_file`
# holds the name of the audio file, as BIDS wants it; `sound_column` names another.
#
# Below, a small data set is written whose responses are known, and read like any other.

# %% tags=["show-code"]
truth = data.plant(
    data.planted_features(sounds),
    sounds.names,
    n_subjects=n_subjects,
    n_voxels=8,
    n_repetitions=2,
    noise=0.3,
    seed=seed,
)
folder = data.simulated_bids(Path(tempfile.mkdtemp()) / "bids", sounds, truth, noise, seed)
events = folder / "sub-01" / "func" / "sub-01_task-listen_run-1_events.tsv"
pd.read_csv(events, sep="\t").head(3).style.hide(axis="index").format(precision=2)

# %% tags=["show-code"]
areas = {2: "Anterior", 3: "Lateral", 4: "Posterior", 5: "Primary"}
measured = data.bids_responses(
    folder,
    task="listen",
    mask=folder / "derivatives" / "mask.nii.gz",
    areas={1: ""} | areas,
)
print(dict(measured.sizes))

# %% [markdown]
# Each run gets a general linear model with one regressor per sound: the sound's time convolved with
# a haemodynamic response, beside slow drifts. It is nilearn's first-level model, and what that
# takes can be given here as well: `hrf_model`, `noise_model`, `confounds_strategy`, `sub_labels`.
# The weight of a sound's regressor is the voxel's response to it, and the runs are the repetitions.
#
# With fast designs neighbouring sounds overlap in time and such weights are noisy. Programs that
# estimate them better (a penalty per voxel, a fitted haemodynamic response) write arrays, and
# arrays were the subject of the first section.
#
# Since the truth is known, we can look how much of it comes back.

# %% tags=["figure"] mystnb={"figure": {"caption": "Responses estimated from the simulated images against those that were planted, for the voxel of median agreement; a point per sound, coloured by category. The line marks equality.", "name": "fig-own-brain-betas"}, "image": {"alt": "Scatter plot of estimated against planted responses of one voxel, close to the line."}}
expected = truth.sel(sound=measured["sound"]).isel(repetition=0)
found = measured.isel(repetition=0)
agreement = xr.corr(expected, found, "sound").data
driven = np.flatnonzero(truth["planted_layer"] != "none")
middle = driven[np.argsort(agreement[driven])[len(driven) // 2]]
kinds = responses["category"].sel(sound=measured["sound"]).data
voxel = expected.isel(target=middle).assign_coords(category=("sound", kinds))
title = f"r = {agreement[middle]:.2f}"
ax = figures.plot_prediction(voxel, found.isel(target=middle), title)
axis_labels = ax.set(xlabel="Planted response", ylabel="Estimated response")

# %% [markdown]
# ## A file that every chapter takes
#
# Responses are written together with where their sounds are: a folder with one audio file per
# sound, called as the sound. Subfolders are the categories. The path of the file is then the name
# of a data set.

# %% tags=["show-code"]
path = data.write_responses(measured, folder / "mine.nc", sounds=folder / "stimuli")
name = str(path)
heard = data.sounds(name)
print(heard)

# %% [markdown]
# From the command line that is
#
# ```bash
# brainbook run encoding -p dataset=/data/mine.nc -p voxels=/data/mine.nc -p models='[mfcc]'
# brainbook run similarity -p datasets='[/data/mine.nc]'
# ```
#
# A path that is not absolute begins in the folder of the book. The folds are drawn so that every
# category is spread evenly (`folds=auto`), unless the sounds are the 165 natural ones. When the
# file or a sound changes, the chapter is executed again.

# %% tags=["show-code"]
responses = data.responses(name)
features = extraction.features(model, heard, device=device)
encoded = results.cached(
    "encoding",
    encoding.nested_cv_ridge,
    {"dataset": "own-brain", "model": model},
    features=features,
    responses=responses,
    folds=data.folds("auto", heard),
    device=device,
)
by_area = encoding.aggregate(encoded, "roi").reset_index().assign(model=model)
similar = rsa.layerwise(features, responses, device=device)["score"]
similar.to_pandas().style.format(precision=2)

# %% tags=["figure"] mystnb={"figure": {"caption": "R² of the model for the responses of the BIDS data set: median over the voxels of an area, mean over subjects, bars for the standard error. Black lines: noise ceiling from the two runs.", "name": "fig-own-brain-scores"}, "image": {"alt": "Bars of R² for each area, below lines of the noise ceiling."}}
ceiling = encoding.explainable(responses).to_series()
ceiling = ceiling.groupby(responses["roi"].to_series()).median()
ax = figures.plot_scores(by_area, across="roi", ceiling=ceiling.drop("").to_dict())
label = ax.set_xlabel("Area")

# %% [markdown]
# ## Before you believe a score
#
# * **Was every sound measured as often?** If not, `average=True` averages what there is, and the
#   ceiling is gone.
# * **Which sounds were used to choose the voxels?** A mask drawn from the same responses that are
#   then predicted flatters every model. Choose voxels by anatomy, by another run, or by their
#   reliability over repetitions, and say which.
# * **How many sounds?** Below some forty, the inner folds hold so few that the choice of the layer
#   is close to a coin toss. Compare with shuffled responses, as the chapter on encoding does.
# * **What would acoustics predict?** Run `log-mel` and `spectrotemporal` beside your model.
#
# What may be refused, and what then: [troubleshooting](../guides/troubleshooting.md).
