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
# # 1. From sounds to features
#
# A model of hearing takes a waveform and gives numbers; a brain does the same. Before the two can
# be compared, the model's numbers have to be brought into a shape that fits the measurement. In
# this chapter we listen to the sounds, push them through a handful of representations, and look at
# what comes out: one vector per sound and layer. Everything after this chapter starts from these
# vectors.
#
# Functional MRI is slow. One response per sound and voxel is what remains of two seconds of
# listening, so each layer is averaged over time as well {cite}`tuckute2023many,pepino2025better`.
# The two papers that this book re-derives share that choice, and most of the numbers in it.

# %% [markdown]
# The first cell sets up the figures; the second holds every choice of this chapter. Run the
# chapter with other values from the command line, for instance
# `brainbook run extraction -p models='[mfcc, cochleagram]'`.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd

from analysis_lib import data, extraction, figures, published, stats
from analysis_lib import models as zoo

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo, natsound or paper
sounds: str = "simulated"  # which sounds: simulated or natsound165
models: list[str] = ["log-mel", "mfcc", "cochleagram", "small-cnn"]  # which models to compare
pooling: str = "mean"  # how frames become one vector per sound: mean or max
device: str = "auto"  # where to compute: auto, cpu, cuda or mps

# %% [markdown]
# ## The sounds
#
# The real data sets of this book were measured while people listened to the 165 natural sounds of
# {cite:t}`normanhaignere2015distinct`: two seconds each, chosen because they are frequent in
# everyday life and can be recognised, equal in level. The demo uses a synthetic stand-in with six
# kinds of sound, so that every page can be built without a download. Sounds are matched **by
# name** throughout: the public files list the same 165 in different orders, and a match by row
# would be wrong without looking wrong.

# %%
heard = data.sounds(sounds)
print(f"{len(heard)} sounds in {len(set(heard.categories))} categories")

# %% tags=["figure"] mystnb={"figure": {"caption": "Number of sounds in each category.", "name": "fig-categories"}, "image": {"alt": "Horizontal bars with the number of sounds in each category."}}
ax = figures.plot_category_counts(heard.categories)
# %% [markdown]
# ## What an ear would pass on
#
# A cochleagram is a rough picture of what leaves the inner ear: 211 band-pass filters spaced as on
# the basilar membrane, the envelope of each, compressed. It is the front end of the SpectroTemporal
# baseline and of the CochDNN models of {cite:t}`tuckute2023many`, and already separates many kinds
# of sound by eye: the stacked lines of a voice, the vertical strokes of impacts, the blur of noise.

# %%
ear = zoo.load("cochleagram", device=device)
kinds = list(dict.fromkeys(heard.categories))[:6]
examples = {kind: heard.names[heard.categories.index(kind)] for kind in kinds}
waves = {kind: heard.waveform(name, ear.sample_rate) for kind, name in examples.items()}
pictures = {kind: ear.embed(wave[None])["cochleagram"][0] for kind, wave in waves.items()}

# %% tags=["figure"] mystnb={"figure": {"caption": "Cochleagrams of the first sound of six categories; channels run from low to high frequency.", "name": "fig-cochleagrams"}, "image": {"alt": "Six time-frequency pictures, one sound each."}}
fig, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True)
for ax, (kind, picture) in zip(axes.flat, pictures.items(), strict=False):
    seconds = len(waves[kind]) / ear.sample_rate
    figures.plot_spectrogram(picture.cpu().numpy(), seconds, kind, ax)
    ax.label_outer()

# %% [markdown]
# ## The models
#
# Each model has a card: where it comes from, what it was trained on, which layers it offers. The
# representations of this chapter are hand-made or untrained; they are the floor that a learned
# model has to rise above. `brainbook list models` shows all of them, with what each needs to run.

# %%
cards = [zoo.card(name) for name in models]
pd.DataFrame(
    {
        "Model": [card.label for card in cards],
        "Kind": [card.kind for card in cards],
        "Architecture": [card.architecture for card in cards],
        "Layers": [len(card.layers) for card in cards],
        "Rate (Hz)": [card.sample_rate for card in cards],
    }
).style.hide(axis="index")

# %% [markdown]
# Extraction streams the sounds through a model in batches, averages over time, and stores the
# result under a key made of everything that it depends on: weights, code version, layers, and the
# bytes of every sound. A second run finds it; a run that was killed goes on where it stopped.

# %%
features = {
    name: extraction.features(name, heard, pooling=pooling, device=device) for name in models
}

# %% [markdown]
# ## The zoo
#
# The comparison of {cite:t}`pepino2025better` stands on 36 models. Ten are one recipe, EnCodecMAE
# {cite}`pepino2023encodecmae`, trained on other audio, at other sizes or with other inputs: they
# tell apart what a model is from what it has heard. BEATs {cite}`chen2023beats` and Dasheng
# {cite}`dinkel2024dasheng` are two more families that learn from unlabelled audio. The CochDNNs
# {cite}`tuckute2023many` come in two architectures times four training tasks. The others recognise
# speech, tag, caption, separate or enhance sounds, and one has no learned weights at all. Each has
# a card here, a loader for its published file and tested layers; where the file is not on this
# machine, the card says where to get it, and `untrained=True` gives the same network before it
# learned anything.
#
# The sizes span almost three orders of magnitude, and size is no proxy for depth: the separator of speech
# with its 33 layers is smaller than the nine-stage CochCNN9, most of whose weights are in one
# fully connected layer.

# %% tags=["figure"] mystnb={"figure": {"caption": "The 36 models of the comparison: number of parameters that the scored layers depend on, and beside each dot the number of layers. Families of fewer than three models share a colour.", "name": "fig-zoo"}, "image": {"alt": "Dots on a logarithmic axis of parameters, a row per model, coloured by family."}}
published_names = published.table("pepino_models")["model"]
ax = figures.plot_zoo([zoo.card(name) for name in published_names])
# %% [markdown]
# What a model costs is measured on the way. For the models of this chapter: how many numbers
# describe one sound, in the narrowest and the widest layer, and how long one second of audio took
# on the machine that computed the features first. Reading the sounds is not counted.

# %%
rows = []
for name, layers in features.items():
    sizes = [layers.n_units(layer) for layer in layers]
    speed = layers.provenance.get("audio_seconds_per_second", float("nan"))
    model = figures.label(name)
    rows.append((model, len(sizes), min(sizes), max(sizes), 1000 / speed))
columns = ["Model", "Layers", "Narrowest", "Widest", "ms per second of audio"]
costs = pd.DataFrame(rows, columns=columns)
costs.style.hide(axis="index").format(precision=1, thousands=",")

# %% [markdown]
# ## What the features look like
#
# One row per sound, sorted by category; one column per unit, standardised over sounds. Blocks that
# line up with the categories mean that the representation already carries the distinction.

# %% tags=["figure"] mystnb={"figure": {"caption": "Time-averaged activations of the last layer of up to four models. Rows are sounds sorted by category, columns are units; colour is the deviation from the unit's mean in standard deviations, from -2.5 (blue) to 2.5 (red).", "name": "fig-activations"}, "image": {"alt": "Four heat maps of activations, sounds by units, with horizontal lines between categories."}}
shown = models[:4]
fig, axes = plt.subplots(2, 2, figsize=(9, 8.5), squeeze=False)
for ax, name in zip(axes.flat, shown, strict=False):
    last = features[name].layers[-1]
    figures.plot_activations(features[name][last], ax)
    ax.set_title(f"{figures.label(name)}: {last}")
for ax in axes.flat[len(shown) :]:
    ax.remove()

# %% [markdown]
# ## How many dimensions do they use?
#
# Twenty thousand units need not mean twenty thousand dimensions. With $\lambda_i$ the eigenvalues
# of the covariance between sounds, the *effective dimensionality*
#
# $$\mathrm{ED} = \frac{\left(\sum_i \lambda_i\right)^2}{\sum_i \lambda_i^2}$$
#
# counts how many of them carry the variance: 1 if all units rise and fall together, the number of
# sounds less one if every sound is unlike every other. It matters for what follows, because a linear
# map from few dimensions cannot follow many voxels {cite}`tuckute2023many`.

# %%
rows = []
for name, layers in features.items():
    for i, layer in enumerate(layers):
        depth = i / (len(layers) - 1) if len(layers) > 1 else 1.0
        ed = stats.effective_dimensionality(layers[layer].data)
        rows.append((name, layer, depth, ed))
columns = ["model", "layer", "depth", "dimensionality"]
dimensionality = pd.DataFrame(rows, columns=columns)

# %% tags=["figure"] mystnb={"figure": {"caption": "Effective dimensionality of each layer. Models with a single layer are drawn at depth 1.", "name": "fig-dimensionality"}, "image": {"alt": "Effective dimensionality against relative depth, a line or point per model."}}
ax = figures.plot_dimensionality(dimensionality)
# %% [markdown]
# ## What we found, what the papers report
#
# The feature counts are properties of the definitions and must agree exactly; the rest of this
# chapter has no published counterpart, because the papers start from activations that they do not
# publish.

# %%
published_units = {"spectrotemporal": 23_421, "cochleagram": 211}
pd.DataFrame(
    [
        {
            "Quantity": f"Units of {figures.label(name)}",
            "Published": published_units[name],
            "Ours": sum(layers.n_units(layer) for layer in layers),
        }
        for name, layers in features.items()
        if name in published_units
    ]
    + [{"Quantity": "Sounds", "Published": 165, "Ours": len(heard)}]
).style.hide(axis="index")

# %% [markdown]
# The next chapter asks how much of the brain's response a linear map from these vectors can predict.
