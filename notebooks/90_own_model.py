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
# # Bring your own model
#
# Every analysis of this book takes a model by name, and the name may be that of a file of yours.
# This guide goes from ten lines of torch to a score beside a model of the book, says how to use
# any audio encoder of the transformers library or a module of the HEAR challenge, and what to do
# when something is refused.

# %% [markdown]
# The page is executed like the chapters. Run it with other values from the command line, for
# instance `brainbook run own_model -p dataset=nh2015-components`.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import pandas as pd

from analysis_lib import data, encoding, extraction, figures
from analysis_lib import models as zoo
from analysis_lib.errors import ParameterError

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo, natsound or paper
dataset: str = "simulated-components"  # which responses to predict
baseline: str = "log-mel"  # which model of the zoo to stand beside
folds: str = "auto"  # which cross-validation folds: auto, pepino or stratified
device: str = "auto"  # where to compute: auto, cpu, cuda or mps

# %% [markdown]
# ## Ten lines
#
# A model is a function without arguments that returns a torch module. The module is called with
# waveforms of shape (batch, time) and says at which rate it wants them: `sample_rate`, in Hz.
# `layers` names the submodules whose outputs are the features; without it every submodule that
# has no children is a layer. Nothing is inherited from this book, and the file need not import it.
#
# The one below has never been trained: 64 random filters of 25 ms, rectified, and a second stage
# that combines them. You would load your weights in the function before returning the module.
# Here the file is written to a temporary folder; yours may lie anywhere.

# %% tags=["show-code"]
folder = Path(tempfile.mkdtemp())
code = """
from torch import manual_seed, nn

def random_filters():
    manual_seed(0)
    filters, mix = nn.Conv1d(1, 64, 400, stride=160), nn.Conv1d(64, 128, 5, stride=2)
    model = nn.Sequential(nn.Unflatten(1, (1, -1)), filters, nn.ReLU(), mix, nn.ReLU())
    model.sample_rate = 16_000
    model.layers = {"filters": "2", "mixtures": "4"}
    return model
"""
written = (folder / "my_model.py").write_text(code)

# %% [markdown]
# The name of the model is the path of the file, a colon, and the function.

# %% tags=["show-code"]
mine = f"{folder / 'my_model.py'}:random_filters"
model = zoo.load(mine, device=device)
for layer in model.layers:
    print(f"{layer}: {model.frame_rate(layer):.0f} frames per second")

# %% [markdown]
# Two things were found out by running it. Which axis of a layer's output is time: the one that
# grows with the sound, tried with sounds of two lengths. And the frame rate: the lengths at which
# one more frame appears. That is also the test that the module can take sounds of any length and
# several at a time, as everything that follows will ask it to.
#
# Your module runs in evaluation mode and without gradients, sound by sound of equal length, so
# padding never enters it. Its features are stored under a key that covers every weight and the
# text of the file: change one and they are computed again.

# %% tags=["show-code"]
heard = data.sounds(dataset)
both = (mine, baseline)
features = {name: extraction.features(name, heard, device=device) for name in both}
for name, layers in features.items():
    sizes = ", ".join(f"{layer} {layers.n_units(layer):,}" for layer in layers)
    print(f"{figures.label(name)}: {sizes}")

# %% [markdown]
# ## A score beside a model of the book
#
# From here on your model is one among others: the same sounds, the same folds, the same regression
# as in the chapter on encoding. Wherever a chapter has a parameter `models`, your model's name can
# stand in the list.

# %% tags=["show-code"]
responses = data.responses(dataset)
fold_of = data.folds(folds, heard)
tables = {}
for name, layers in features.items():
    encoded = encoding.nested_cv_ridge(layers, responses, fold_of, device=device)
    tables[name] = encoded["score"].to_dataframe()
scores = pd.concat(tables, names=["model"]).reset_index()

# %% tags=["figure"] mystnb={"figure": {"caption": "Cross-validated R² of a model written on this page, random filters that were never trained, and of a model of the zoo.", "name": "fig-own-model"}, "image": {"alt": "Grouped bars of R² for each target, one bar per model."}}
ax = figures.plot_scores(scores)
# %% [markdown]
# ## Any audio encoder of the transformers library
#
# `hf:` and a repository, or a folder that `save_pretrained` wrote, opens a model of the
# transformers library:
#
# ```python
# model = zoo.load("hf:facebook/wav2vec2-base-960h")
# model = zoo.load("hf:facebook/wav2vec2-base-960h@main")  # a revision
# model = zoo.load("hf:/home/me/my_finetuned_hubert")
# ```
#
# The class is the one that the checkpoint was saved from, the weights are read in 32 bits, and a
# tensor that is missing, left over or of another shape is an error. Left to itself the library
# fills missing tensors with random numbers and mentions it in a log line. Layers are called
# `Embedding` (what enters the first block) and `Encoder_1`, `Encoder_2`, … Code that comes with a
# repository is not run. `untrained=True` gives the same network with fresh weights, the control
# that shows what the architecture does on its own; `permuted=True` shuffles the trained weights
# within each tensor {cite}`tuckute2023many`.
#
# ## Modules of the HEAR challenge
#
# A file that offers `load_model()` and `get_timestamp_embeddings(audio, model)` as the HEAR
# challenge {cite}`turian2022hear` asks for can be used as it is: `path/to/file.py:load_model`. Its
# one layer is called `timestamp`. Where there are weights to load, write a function without
# arguments named `load_model` that passes their path on.
#
# ## What to declare when it cannot be found out
#
# | Attribute of the module | Say it when |
# | --- | --- |
# | `sample_rate` | always |
# | `layers` | the layers should have names of their own, or some submodules are not of interest |
# | `frame_axis` | two axes grow with the sound (a map of attention), or none does: a mapping of layer to axis, `None` for a layer without time |
# | `frame_rate` | the first and the last frames are special, so that measuring misleads: frames per second, one number or a mapping |
# | `min_samples` | shorter sounds make the module fail |
#
# A layer has to be the output of a submodule that runs once. Give a submodule to what you want to
# look at, if need be an `nn.Identity()` that the tensor passes through, and name it in `layers`.
#
# ## What may be refused
#
# A message says what was wrong, with which layer or sound, and what to do. The one that everybody
# meets first is about the rate:

# %% tags=["show-code"]
forgetful = code.replace("    model.sample_rate = 16_000\n", "")
written = (folder / "forgetful.py").write_text(forgetful)
try:
    zoo.load(f"{folder / 'forgetful.py'}:random_filters")
except ParameterError as error:
    print(str(error).replace(f"{folder}/", ""))

# %% [markdown]
# | Message | What happened |
# | --- | --- |
# | which axis is time? | two axes of a layer change with the length of the sound: declare `frame_axis` |
# | did not give one tensor per run | the submodule was not used, used twice, or returns several things: name another |
# | needs at least … samples | a sound is shorter than the network can take: leave it out, or pad it yourself and say so |
# | is not finite for sound … | NaN or infinity came out for that sound: silence divided by its level, most of the time |
# | would not fit in memory | a long sound, weighed before it was run: cut it, or ask for fewer layers |
#
# Further messages are in the [guide on troubleshooting](../guides/troubleshooting.md). Weights of
# your own for a network that the book knows need no file at all:
# [bring your own checkpoints](../guides/checkpoints.md). When others should load your model by
# name, [contribute it](../guides/contribute_model.md).
#
# A score is only as good as what it is compared with. Beside your model, run its untrained twin
# and a hand-made representation such as log-mel: much of what a network explains, its architecture
# and its front end explain too.
