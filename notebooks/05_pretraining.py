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
# # 5. Does a network become brain-like while it learns to fill gaps?
#
# So far every model was finished. The last result of {cite:t}`pepino2025better` looks at one while
# it learns: in the pretraining of EnCodecMAE {cite}`pepino2023encodecmae`, which hides parts of a
# sound and asks for what was there, the similarity with auditory cortex rises early and by much.
# Nothing asks for it. The paper calls the likeness *emergent*.
#
# Here the reader can watch it happen, and test the word. *Emergent from natural audio* says three
# things. The likeness was not there from the start: a network with random weights already turns
# sounds into features, and brains agree with those to some degree, so that only what lies **above
# step 0** was gained. It comes from **natural audio**: the same network, trained as long on noise
# with the same average spectrum, or on audio cut into pieces of 20 ms in random order, should gain
# less. And it comes without **labels**: a network taught by labels is the rival, not the baseline.
# The paper tests the first of the three by eye, and the others not at all.

# %%
# %matplotlib inline
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from analysis_lib import claims, data, dynamics, figures, paths, pretraining, published

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo, natsound or paper
recipe: str = "demo"  # what is trained here, a recipe of analysis_lib.pretraining
n_steps: int = 50  # updates of each training run
n_checkpoints: int = 4  # kept of each run, besides the untrained network
audio: str = "demo"  # what is heard in training: demo, natsound or a folder of recordings
controls: list[str] = ["noise"]  # runs to compare with: noise, shuffled, labels
series: str = ""  # checkpoints made elsewhere, a public series or a folder; empty: train here
voxels: list[str] = ["nh2015-twin"]  # brains whose distances between sounds are compared
components: str = "simulated-components"  # a few targets that are predicted
window: int = 5  # checkpoints that the smoothed curves smooth over
n_boot: int = 100  # bootstrap draws of the sounds
seed: int = 0  # for training and draws
device: str = "auto"  # where to compute: auto, cpu, cuda or mps

# %% [markdown]
# ## Learning to fill gaps
#
# The network is that of the paper at a smaller size. A sound becomes mel frames, 75 a second. Gaps
# of 15 frames, half of all, are hidden; a transformer encoder sees the others and nothing else, and
# a decoder has to name, for every frame, the codes that a quantiser gave it. The published network
# learned the codes of EnCodec, and needs 500,000 steps. Ours learns those of a residual k-means
# quantiser, fitted to the audio it is trained on, in a few hundred steps, from a few minutes of
# audio: environmental sounds and spoken digits in the profile `natsound`, generated sounds in the
# demo. None of the sounds that the brains heard is among them; the package refuses to train on them.
#
# All runs start from the same random weights. The profile `paper` trains nothing: it goes over the
# hundred public checkpoints of the first 100,000 steps, one at a time.

# %%
runs, histories = {}, {}
names = {"none": "Natural audio", "noise": "Noise", "shuffled": "Shuffled", "labels": "Labels"}
if series:
    public = series in dynamics.PUBLIC_SERIES
    of = dynamics.CheckpointSeries.public if public else dynamics.CheckpointSeries.of_folder
    runs["Natural audio"] = of(series)
else:
    corpus = pretraining.corpus(audio)
    for control in ["none", *controls]:
        folder = f"{recipe}-{Path(audio).name}-{n_steps}-{n_checkpoints}-{control}-seed{seed}"
        trained = pretraining.pretrain(
            recipe, corpus, paths.cache_dir("pretraining", folder), seed=seed, control=control,
            n_steps=n_steps, n_checkpoints=n_checkpoints, device=device, progress=False,
        )  # fmt: skip
        runs[names[control]] = dynamics.CheckpointSeries.of_folder(trained.folder)
        by_frequency = np.log(len(corpus.labels))
        if control != "labels":
            by_frequency = pretraining.baselines(trained.folder)["unigram_loss"]
        loss = "loss" if control == "labels" else "masked_loss"
        relative = trained.history[[loss, f"validation_{loss}"]] / by_frequency
        relative.columns = ["loss", "held_out"]
        histories[names[control]] = relative.assign(step=trained.history["step"])
for name, run in runs.items():
    print(f"{name}: checkpoints at steps {', '.join(map(str, run.steps[:12]))}")

# %% [markdown]
# Each run has targets of its own: codebooks learned on noise are codes of noise. So losses are drawn
# as a share of what guessing by frequency would give, on recordings that were held out. Below 1,
# something about the gaps was learned. That is possible in noise too: its level is that of the sound
# it stands for, and can be heard beside the gap.

# %% tags=["figure"] mystnb={"figure": {"caption": "Loss on hidden frames, divided by the loss of guessing every code by its frequency (for labels: their loss, by that of guessing evenly): on held-out recordings (lines with dots) and on each training batch (faint). Step 0 stands left of the break in the axis. Checkpoints that were published without a record have no curve.", "name": "fig-training"}, "image": {"alt": "Loss against training steps, a line per run, and a dashed line at one."}}
ylabel = "Loss / loss by frequency"
ax = figures.plot_loss(histories, {"guessing by frequency": 1.0}, ylabel)

# %% [markdown]
# ## Alignment at every checkpoint
#
# Two of the book's measures are taken at every checkpoint. *Similarity* compares the distances
# between sounds in a layer with those in the voxels, without fitting and without choosing a layer.
# *R²* is the cross-validated prediction of the components, with a layer chosen for each component
# inside the training folds. Every step is stored when it is done, so that a run that was killed goes
# on there; of a public series, no more than one checkpoint is on disk.
#
# Intervals come from drawing the **sounds** with replacement, 165 or 60 of them. The components are
# no sample of anything, and six are too few to draw from; listeners are unknown in two of our brains
# of three. At every step and in every run the same draws are used, so that differences are taken
# within each draw. What such an interval leaves out is the luck of a training run: another seed
# would give another curve, and here every curve is of one seed. How large that luck is, chance has
# shown: in two builds of the profile `natsound`, alike but for the order in which the front end
# adds its numbers, natural audio ended .04 below and .04 above its shuffled control in the R² of
# the components.

# %%
sounds = data.sounds(components)
brains = {name: data.responses(name) for name in [components, *voxels]}
found = {
    name: dynamics.over_steps(
        run,
        sounds,
        brains,
        {components: data.folds("auto", sounds)},
        n_boot=n_boot,
        seed=seed,
        device=device,
    )
    for name, run in runs.items()
}
first = voxels[0]
natural = found["Natural audio"]
similar = {name: dynamics.curves(each[first], "rsa") for name, each in found.items()}
predicted = {
    name: dynamics.curves(each[components], "encoding_joint") for name, each in found.items()
}

# %% [markdown]
# ### Layer by layer
#
# The untrained network is the point on the left, apart from the others: on a logarithmic axis step 0
# has no place, and the dotted line says only that it comes first.

# %% tags=["figure"] mystnb={"figure": {"caption": "Similarity of each layer with the brain over training on natural audio, from the first layer (dark) to the last (bright); 95 % intervals over draws of sounds.", "name": "fig-dynamics-layers"}, "image": {"alt": "Similarity against training steps on a logarithmic axis with a break after step 0, a line per layer."}}
fig, axes = plt.subplots(
    1, len(voxels), figsize=(6 * len(voxels) + 1.5, 4.8), squeeze=False, sharey=True
)
for ax, brain in zip(axes.flat, voxels, strict=True):
    curve = dynamics.curves(natural[brain], "rsa")
    shown = curve["layer"].values[1::2] if len(curve["layer"]) > 6 else None
    figures.plot_dynamics(curve, shown=shown, title=brain, ax=ax)
lines = axes.flat[0].get_legend_handles_labels()
legend = fig.legend(*lines, loc="outside lower center", ncols=6)

# %% [markdown]
# ### Natural audio against the controls
#
# If the likeness comes from natural audio, the controls must stay behind. Left: similarity of the
# last layer, the one furthest from the input. Right: R² of the components.

# %% tags=["figure"] mystnb={"figure": {"caption": "Alignment over training on natural audio and on the controls: similarity of the last layer with the voxels (left), and R² of the components, mean over components, layer chosen for each (right). 95 % intervals over draws of sounds.", "name": "fig-dynamics-runs"}, "image": {"alt": "Two panels of alignment against training steps, a line per training run."}}
fig, axes = plt.subplots(1, 2, figsize=(10, 4.8))
last = {name: curve.isel(layer=-1, drop=True) for name, curve in similar.items()}
figures.plot_dynamics(last, "run", title=f"Last layer, {first}", ax=axes[0])
figures.plot_dynamics(predicted, "run", title=components, ax=axes[1])
legend = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

# %% [markdown]
# What was gained, and how far natural audio ends above each control, with intervals. A difference is
# told from none where its interval stays clear of the line. Similarity is shown for every layer:
# choosing the best one here would be choosing the answer. The two measures may part. A linear map
# picks out of a layer the few directions that it needs; distances weigh every direction by its
# variance. A network that learns can have more to read off, and spend most of its variance on
# something that brains do not care about.

# %%
compared = {
    f"Similarity, {layer}": {name: curve.sel(layer=layer) for name, curve in similar.items()}
    for layer in similar["Natural audio"]["layer"].values
}
compared["R², components"] = predicted
rows = []
for what, curve in compared.items():
    differences = {"gained since step 0": dynamics.gain(curve["Natural audio"])}
    for name in list(runs)[1:]:
        differences[f"above {name.lower()}"] = dynamics.contrast(
            curve["Natural audio"], curve[name]
        )
    for kind, difference in differences.items():
        rows.append((kind, what, *(float(difference[v]) for v in ("score", "low", "high"))))
tested = pd.DataFrame(rows, columns=["kind", "label", "score", "low", "high"])

# %% tags=["figure"] mystnb={"figure": {"caption": "Gain of the network trained on natural audio since step 0, and its distance from each control at the end, for similarity layer by layer and for R² of the components. 95 % intervals over draws of sounds, differences taken within each draw.", "name": "fig-dynamics-contrasts"}, "image": {"alt": "Points with horizontal intervals around a vertical line at zero, a group per layer and one for the components."}}
ax = figures.plot_contrasts(tested, "Difference (natural audio above step 0, or above the control)")

# %% [markdown]
# ## When does it happen?
#
# The paper's curves rise within the first ten thousand steps in the deeper layers, later in the
# early ones. As numbers: the step at which a layer has risen by nine tenths of what it rises in all,
# on the line between checkpoints; and the onset, the checkpoint from which on its difference from
# step 0 stays above zero. A layer that does not rise has neither. An arrow says that in some draws
# there was no rise, so that the interval has no end. R² is here that of each layer alone.

# %% tags=["figure"] mystnb={"figure": {"caption": "Steps after which the similarity of each layer with the voxels, and its R² for the components, have risen by 90 % (dots, 95 % intervals over draws of sounds), and from which on they stay above step 0 (strokes), while training on natural audio.", "name": "fig-emergence"}, "image": {"alt": "Dots with intervals on a logarithmic axis of steps, a row per layer."}}
when = {
    f"Similarity, {brain}": dynamics.emergence(dynamics.curves(natural[brain], "rsa"))
    for brain in voxels
}
when["R² of components"] = dynamics.emergence(dynamics.curves(natural[components], "encoding"))
ax = figures.plot_emergence(when)

# %% [markdown]
# ## Does a lower loss mean more alignment?
#
# Every run's path from its first checkpoint to its last, loss against R² of the components. If the
# task itself drove the likeness, the paths would rise to the right, and on one line.

# %% tags=["figure"] mystnb={"figure": {"caption": "R² of the components against the relative loss on held-out recordings, a path per run; points grow with the steps, the last is numbered.", "name": "fig-loss-alignment"}, "image": {"alt": "Paths of points, a colour per run, loss falling to the right."}}
losses = {
    name: history.set_index("step")["held_out"].dropna() for name, history in histories.items()
}
at_checkpoints = {
    name: pd.Series(np.interp(runs[name].steps, loss.index, loss), runs[name].steps)
    for name, loss in losses.items()
}
ax = figures.plot_loss_alignment(at_checkpoints, predicted, ylabel)

# %% [markdown]
# ## Primary and non-primary cortex
#
# In the paper the deep layers first agree with primary auditory cortex and then leave it, while the
# areas around it stay. That needs voxels with areas: measured ones, or the demo's simulated twin, in
# which each area listens to a planted layer. The profile `natsound` has components only. There the
# nearest thing is to set the four acoustic components (low and high frequencies, broadband, pitch),
# which were found in and near primary cortex, against speech and music, which were found around it.
# It is not the same: a component is not a place.
#
# Lines are smoothed as in the paper, by a polynomial of third order over a few checkpoints; dots are
# the values as measured.

# %% tags=["figure"] mystnb={"figure": {"caption": "Training on natural audio, by area or component. With areas: similarity of each layer with primary and with posterior cortex. Without: R² of each component. Lines smoothed, dots as measured, 95 % intervals over draws of sounds.", "name": "fig-areas"}, "image": {"alt": "Two panels of alignment against training steps."}}
fig, axes = plt.subplots(1, 2, figsize=(10, 4.8), sharey=True)
if "rsa_roi" in natural[first]:
    along, curve = "layer", dynamics.curves(natural[first], "rsa_roi")
    panels = {area: curve.sel(roi=area) for area in ("Primary", "Posterior")}
else:
    along = "target"
    curve = dynamics.curves(natural[components], "encoding_joint", each_target=True)
    kinds = {"Acoustic": slice(0, -2), "Speech and music": slice(-2, None)}
    panels = {kind: curve.isel(target=part) for kind, part in kinds.items()}
for ax, (title, panel) in zip(axes, panels.items(), strict=True):
    smoothed = dynamics.smooth(panel["score"], window)
    shown = panel[along].values[::2] if len(panel[along]) > 6 else None
    figures.plot_dynamics(panel, along, shown, smoothed, title, ax)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)

# %% [markdown]
# ## The published curves beside ours
#
# The curves themselves were not published as numbers. What can be read off the figure is the range
# that each layer's similarity with the voxels of {cite:t}`normanhaignere2015distinct` covers over
# training, and those ranges are drawn. Layers are placed by relative depth, since the networks differ
# in depth. The brains differ too, except in the profile `paper`.

# %%
digitised = published.table("pepino_dynamics_approx").dropna(subset=["low", "high"])
theirs = digitised[digitised["roi"] == "all"]
theirs = theirs.assign(depth=(theirs["layer"] - 1) / 9, label=theirs["layer"].astype(str))
score = similar["Natural audio"]["score"]
n_layers = score.sizes["layer"]
ours = pd.DataFrame(
    {
        "depth": np.linspace(0, 1, n_layers),
        "low": score.min("step"),
        "high": score.max("step"),
        "label": [str(number) for number in range(1, n_layers + 1)],
    }
)

# %% tags=["figure"] mystnb={"figure": {"caption": "Lowest to highest similarity of each layer over training: published, for the first 100,000 steps of EnCodecMAE on measured voxels (grey, read off a figure), and here (blue). Numbers are layers, counted from 1.", "name": "fig-published-dynamics"}, "image": {"alt": "Vertical bars by relative depth, grey for published and blue for ours."}}
ax = figures.plot_published_ranges(theirs, ours)

# %% [markdown]
# ## The whole recipe, on one GPU
#
# The published network was trained on AudioSet, FMA-large and 6,000 hours of Libri-Light: batches of
# 128 crops of 4 s, AdamW with a learning rate of 10⁻⁴ and weight decay 0.05, 500,000 steps. With
# folders of audio at any rate, and the weights of EnCodec where models are kept, this is it; more
# than one GPU share the batch when the script is started with `torchrun`:
#
# ```python
# from analysis_lib import pretraining
#
# folders = pretraining.AudioFolder("audioset", "fma_large", "librilight")
# pretraining.pretrain("paper", folders, "runs/base", save_every=1000, accumulate=4)
# pretraining.pretrain("paper-self-training", folders, "runs/base-st",
#                      targets="runs/base/step-00500000.safetensors")
# ```
#
# A run that is killed goes on when started again. Its checkpoints go through this chapter with
# `brainbook run pretraining --profile paper -p series=runs/base`.

# %% [markdown]
# ## What we found, what the paper reports

# %%
middle = n_layers // 2
at_first, highest, at_last = (
    float(value)
    for value in (
        score.isel(step=0, layer=middle),
        score.isel(layer=middle).max(),
        score.isel(step=-1, layer=middle),
    )
)
rise = tested[tested["kind"] == "gained since step 0"].iloc[:-1]
half = dynamics.emergence(similar["Natural audio"], share=0.5)["reached"]
half = half.where((rise["low"] > 0).to_numpy()).isel(layer=slice(middle, None))
half_way = float(half.median() / score["step"][-1])
rows = [
    ("A middle layer, untrained", ".20 (layer 6)", f"{at_first:.2f} (layer {middle + 1})"),
    ("The same layer, highest", ".51", f"{highest:.2f}"),
    ("The same layer, at the end", "–", f"{at_last:.2f}"),
    ("Layers that rose (interval above 0)", "all (by eye)", f"{(rise['low'] > 0).sum()} of {n_layers}"),
    ("Layers of the deeper half that rose: half of it is done", "within 10 % of the steps shown",
     "none rose" if np.isnan(half_way) else f"at {100 * half_way:.0f} % of the steps"),
]  # fmt: skip
for row in tested[tested["label"] == "R², components"].itertuples():
    ours = f"{row.score:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
    rows.append((f"R² of components, {row.kind}", "not tested", ours))
pd.DataFrame(rows, columns=["Quantity", "Published", "Here"]).style.hide(axis="index")

# %%
rose = bool((rise["low"].iloc[middle:] > 0).all() and half_way < 0.1)
seen = {"P1-15": (rose, f"layer {middle + 1}: {at_first:.2f} to {at_last:.2f}")}
if "rsa_roi" in natural[first]:
    deep = curve["score"].isel(layer=-2)
    fall = (deep.max("step") - deep.isel(step=-1)).to_series()
    said = f"fall from the peak: primary {fall['Primary']:.2f}, posterior {fall['Posterior']:.2f}"
    seen["P1-16"] = (bool(fall["Primary"] > 2 * fall["Posterior"]), said)
claims.observe(seen, f"pretraining {series or recipe}, {first}", real=bool(series))

# %% [markdown]
# The claims are about the published network; only checkpoints of a network like it decide them, and
# for what is trained in the chapter the number stands without a verdict.
#
# Read the table for what it is. A network this small, trained for minutes, can show that the test
# works and which way the answer points; it cannot say how brain-like half a million steps make a
# large one. Where natural audio does not end above its controls, what rose did not come from what is
# special about natural audio, and *emergent* would be too large a word for it.
