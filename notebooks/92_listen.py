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
# # Listen and look
#
# Numbers about sounds are easier to believe when one has heard them. Choose a sound below: its
# cochleagram is what the ear would pass on, and the drawing shows how strongly a part of auditory
# cortex responded to it (up) and how strongly an encoding model said it would (across). The model
# had not seen the sound when it said so. Which sounds lie far from the dashed line, and what do
# they have in common? A sound above the line drives this part of cortex more than its acoustics, as
# the model knows them, would let one expect; a sound below it, less. Listening to the outliers one
# after the other is the quickest way to an idea of what a model is missing, and a good way to find
# a mistake in the data.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
from IPython.display import HTML

from analysis_lib import data, encoding, extraction, figures, results
from analysis_lib import models as zoo

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo, natsound or paper
dataset: str = "simulated-components"  # responses: see data.responses
model: str = "small-cnn"  # which model predicts
n_sounds: int = 24  # how many can be seen and heard, spread over the categories
public: bool = False  # leave out sounds that may not be passed on
device: str = "auto"  # where to compute: auto, cpu, cuda or mps

# %% [markdown]
# The predictions are those of [Chapter 2](02_encoding.ipynb): five folds, layer and penalty chosen
# inside. A handful of sounds of each kind can be seen and heard, to keep the page small; all of
# them are points of the drawing. A copy of the book that is made to be passed on
# (`make book PUBLIC=1`) keeps the pictures and leaves out sounds that come without a licence, as
# the 165 natural sounds do.

# %%
heard = data.sounds(dataset)
responses = data.responses(dataset)
predicted = results.cached(
    "encoding",
    encoding.nested_cv_ridge,
    {"dataset": dataset, "model": model},
    features=extraction.features(model, heard, device=device),
    responses=responses,
    folds=data.folds("auto", heard),
    extend="greedy",
    device=device,
)
shown = heard.spread(n_sounds)
ear = zoo.load("cochleagram", device=device)
waves = {name: heard.waveform(name, ear.sample_rate) for name in shown}
pictures = {
    name: ear.embed(wave[None])["cochleagram"][0].cpu().numpy() for name, wave in waves.items()
}

# %% tags=["figure"] mystnb={"figure": {"caption": "The sounds that can be heard on this page: cochleagrams of six of them, low frequencies below.", "name": "fig-listen"}, "image": {"alt": "Six small time-frequency pictures."}}
fig, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True)
for ax, name in zip(axes.flat, shown[:: max(1, len(shown) // 6)], strict=False):
    seconds = len(waves[name]) / ear.sample_rate
    figures.plot_spectrogram(pictures[name], seconds, name.removesuffix(".wav"), ax)
    ax.label_outer()

# %%
may_be_heard = not public or data.may_be_passed_on(dataset)
HTML(
    figures.listening_html(
        pictures,
        responses,
        predicted["prediction"],
        waves if may_be_heard else {},
        ear.sample_rate,
        seconds,
    )
)

# %% [markdown]
# Another model, or another part of the brain:
# `brainbook run listen -p model=spectrotemporal -p dataset=nh2015-components`.
