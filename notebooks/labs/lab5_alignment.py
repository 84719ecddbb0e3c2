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
# # Lab 5 (optional). Align a network with a brain
#
# So far the network stayed as it was and only a linear map was fitted. Freteault et al. (2025) go
# further: the responses of one person, listening for hours, train the network itself. You do that in
# small: a layer of a network, a head that knows the brain is slow, and a brain in which the truth is
# planted, so that you can see whether alignment finds it.
#
# **You will be able to** delay features so that a linear model follows the haemodynamic response;
# hold out time, not single volumes; derive the gradient that reaches a layer through such a head;
# stop early; build the controls that make a gain believable.
#
# **You need** lab 2 (ridge regression) and lab 4 (gradients).
#
# **Time** 50 minutes: six exercises, 14 points.
#
# *How it works.* Write your code in the cells that say so, and run the cell below each: it calls
# your function with new random inputs and says what is wrong. Hints are folded.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import torch

from analysis_lib import data, figures, labs
from analysis_lib import models as zoo
from analysis_lib.finetuning import TemporalHead

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo or natsound
sounds: str = "simulated"  # what is heard, one sound after another
n_taps: int = 6  # volumes of history that the head sees
n_steps: int = 300  # of alignment
seed: int = 0  # of the planted brain

# %% [markdown]
# ## The data
#
# Sounds are played one after the other while a volume is taken every 1.5 seconds. `x` has a row per
# volume: the mean log-mel features while it was taken, as their first 16 principal components, which
# are uncorrelated. The network has one layer, `start` (16 × 6). It reads the first eight components
# and is deaf to the others.
#
# The brain is planted. It also has six units. Three are those of the network, the other three read
# the components that the network does not. Each of 20 parcels mixes the six, answers with a delay of
# several seconds, and adds slow noise.

# %%
ear = zoo.load("log-mel", device="cpu")
simulated = sounds == "simulated"
heard = data.simulated_sounds(n_per_category=20) if simulated else data.sounds(sounds)
order = np.random.default_rng(seed).permutation(len(heard))
story = np.concatenate([heard.waveform(heard.names[k], 16_000) for k in order])
frames = ear.embed(story[None])["log_mel"][0].numpy()
n_volumes = len(frames) // 150
x = frames[: 150 * n_volumes].reshape(n_volumes, 150, -1).mean(axis=1)
x = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[0][:, :16] * np.sqrt(n_volumes)

# %%
rng = np.random.default_rng(seed)
start, planted = np.zeros((16, 6)), np.zeros((16, 6))
start[:8] = np.linalg.qr(rng.standard_normal((8, 6)))[0]
planted[:, :3] = start[:, :3]
planted[8:, 3:] = np.linalg.qr(rng.standard_normal((8, 3)))[0]
answer = np.exp(-0.5 * (np.arange(n_taps) - 3) ** 2)
signal = np.zeros((n_volumes, 20))
units = x @ planted @ rng.standard_normal((6, 20))
for lag in range(n_taps):
    signal[lag:] += answer[lag] * units[: n_volumes - lag]
slow = np.cumsum(rng.standard_normal((n_volumes, 20)), axis=0) * 0.1
y = signal / signal.std(axis=0) + 0.3 * rng.standard_normal(signal.shape)
y += slow - slow.mean(axis=0)
y = (y - y.mean(axis=0)) / y.std(axis=0)
print(f"{n_volumes} volumes, {x.shape[1]} features, {y.shape[1]} parcels")

# %% [markdown]
# ## 1. The brain is slow
#
# Blood answers neurons after about five seconds. A linear model can follow if it is given the past:
# copies of the features, delayed by 0, 1, 2, … volumes, a weight for each. This is a *finite
# impulse response* (FIR) model. It looks back only; a model that sees what is heard *later* predicts
# better and explains nothing.
#
# **Exercise 1 (3 points).** Copy `j` holds `x` delayed by `j` volumes: its row `t` is row `t - j` of
# `x`, and zero before the start.
#
# <details><summary>Hint</summary>
#
# `copies[j, j:] = x[: len(x) - j]` for each delay. `np.roll` would bring the end of the run to its
# beginning.
#
# </details>

# %% exercise="delayed"
def delayed(x, n_taps):
    """Delayed copies of x (n_volumes, n_features), (n_taps, n_volumes, n_features)."""
    ### BEGIN SOLUTION
    copies = np.zeros((n_taps, *x.shape))
    for lag in range(n_taps):
        copies[lag, lag:] = x[: len(x) - lag]
    return copies
    ### END SOLUTION


# %% check="delayed"
labs.check_delayed(delayed)

# %% [markdown]
# The book's head is a temporal convolution in torch. With the same weights it must predict what your
# copies predict.

# %%
head = TemporalHead(n_features=6, n_targets=20, n_taps=n_taps)
weights, bias = head.fir.detach().numpy(), head.convolution.bias.detach().numpy()
mine = np.einsum("jtu,jvu->tv", delayed(x @ start, n_taps), weights) + bias
with torch.no_grad():
    book = head(torch.tensor((x @ start).T[None], dtype=torch.float32), pad=True)[0].T.numpy()
print(f"largest difference {np.abs(mine - book).max():.1e}")

# %% [markdown]
# ## 2. Hold out time
#
# Neighbouring volumes share noise and the tail of the same response. If volumes were divided at
# random, every test volume would have its neighbours in the training set. Hold out a block, and leave
# a gap on both sides that belongs to neither.
#
# **Exercise 2 (2 points).** Row numbers to train on and to test on, out of `n`. The test block has
# `length` volumes from `start`; training keeps at least `gap` volumes away from it on both sides.
#
# <details><summary>Hint</summary>
#
# Volumes before `start - gap`, and from `start + length + gap` on, may train.
#
# </details>

# %% exercise="blocks"
def blocks(n, start, length, gap):
    """Row numbers to train on, and to test on."""
    ### BEGIN SOLUTION
    volumes = np.arange(n)
    train = (volumes < start - gap) | (volumes >= start + length + gap)
    return volumes[train], volumes[start : start + length]
    ### END SOLUTION


# %% check="blocks"
labs.check_blocks(blocks)

# %% [markdown]
# Two blocks are held out: one to decide when to stop (validation), one to score (test). The first
# score is that of the network as it is: only the head is fitted, by the ridge regression of lab 2.

# %%
fifth = n_volumes // 5
not_test, test = blocks(n_volumes, 4 * fifth, n_volumes - 4 * fifth, n_taps)
rest, validation = blocks(n_volumes, 3 * fifth - 2 * n_taps, fifth, n_taps)
train = np.intersect1d(rest, not_test)


def fit_head(layer, y, alpha=3.0):
    """Weights of the head (n_taps, n_units, n_targets) for a layer."""
    copies = delayed(x @ layer, n_taps)[:, train]
    wide = copies.transpose(1, 0, 2).reshape(len(train), -1)
    gram = wide.T @ wide + alpha * np.eye(wide.shape[1])
    return np.linalg.solve(gram, wide.T @ y[train]).reshape(n_taps, layer.shape[1], -1)


def predict(layer, head):
    return np.einsum("jtu,juv->tv", delayed(x @ layer, n_taps), head)


def score(predicted, measured, rows):
    a, b = (v[rows] - v[rows].mean(axis=0) for v in (predicted, measured))
    r = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return r.clip(min=0) ** 2


frozen = score(predict(start, fit_head(start, y)), y, test)
print(f"network as it is: median R² {np.median(frozen):.3f}")

# %% [markdown]
# ## 3. Through the head into the network
#
# With delayed copies $X_j$, layer $W$ and head $H_j$, the prediction is $\hat Y = \sum_j X_j W H_j$.
# The loss is the mean squared error over all $n$ volumes times $m$ targets. Its gradient with
# respect to the layer is
#
# $$\frac{\partial L}{\partial W} = \frac{2}{n m} \sum_j X_j^\top \, (\hat Y - Y) \, H_j^\top .$$
#
# **Exercise 3 (4 points).** `copies` are the delayed inputs, `head` has shape
# `(n_taps, n_units, n_targets)`.
#
# <details><summary>Hint</summary>
#
# A loop over the delays, twice: once for the prediction, once for the gradient.
#
# </details>

# %% exercise="layer_gradient"
def layer_gradient(layer, head, copies, y):
    """Gradient of the mean squared error with respect to the layer, of the layer's shape."""
    ### BEGIN SOLUTION
    error = sum(c @ layer @ h for c, h in zip(copies, head, strict=True)) - y
    return 2 * sum(c.T @ error @ h.T for c, h in zip(copies, head, strict=True)) / y.size
    ### END SOLUTION


# %% check="layer_gradient"
labs.check_layer_gradient(layer_gradient)

# %% [markdown]
# ## 4. Know when to stop
#
# The training loss falls for ever. The validation loss falls, wanders, and rises once the layer
# learns noise. *Early stopping* keeps the best step so far and ends training when there has been no
# new best for `patience` steps.
#
# **Exercise 4 (2 points).** The step that early stopping keeps.
#
# <details><summary>Hint</summary>
#
# Walk through the validation losses in order. Remember the best step; leave the loop when the
# present step is `patience` or more beyond it.
#
# </details>

# %% exercise="best_step"
def best_step(training, validation, patience):
    """Number of the step with the lowest validation loss before training stops."""
    ### BEGIN SOLUTION
    best = 0
    for step, loss in enumerate(validation):
        if loss < validation[best]:
            best = step
        if step - best >= patience:
            break
    return best
    ### END SOLUTION


# %% check="best_step"
labs.check_best_step(best_step)

# %% [markdown]
# Align: a step of the layer downhill, then the head fitted anew, and so on.

# %%
def align(y, rate=3.0, patience=20):
    """Layer after alignment to responses, with its losses."""
    copies, layer, layers, losses = delayed(x, n_taps), start.copy(), [], []
    for _ in range(n_steps):
        head = fit_head(layer, y)
        squares = (predict(layer, head) - y) ** 2
        losses.append((squares[train].mean(), squares[validation].mean()))
        layers.append(layer)
        layer = layer - rate * layer_gradient(layer, head, copies[:, train], y[train])
    losses = np.array(losses)
    return layers[best_step(*losses.T, patience)], losses


aligned, losses = align(y)
after = score(predict(aligned, fit_head(aligned, y)), y, test)
print(f"median R² on the test block: {np.median(frozen):.3f} frozen, {np.median(after):.3f} aligned")
ax = plt.subplots(figsize=(5, 3))[1]
ax.plot(losses, label=["Training", "Validation"])
ax.axvline(best_step(*losses.T, 20), color="0.5", linewidth=1)
text = ax.set(xlabel="Step", ylabel="Mean squared error")
legend = ax.legend()

# %% [markdown]
# ## 5. Believe it?
#
# More free weights can also fit noise better. What would alignment give with responses that have
# nothing to do with the sounds? Shuffled volumes would be too easy a control, since they lose the
# slowness of real responses. Moving the whole time course by many volumes, the end going to the
# beginning, keeps everything but the relation to what was heard.
#
# **Exercise 5 (2 points).**
#
# <details><summary>Hint</summary>
#
# `np.roll` is right this time; mind its `axis`.
#
# </details>

# %% exercise="shifted"
def shifted(y, by):
    """Responses moved in time: row t goes to row t + by, the end to the beginning."""
    ### BEGIN SOLUTION
    return np.roll(y, by, axis=0)
    ### END SOLUTION


# %% check="shifted"
labs.check_shifted(shifted)

# %% [markdown]
# The control has had the same steps, the same number of weights and responses with the same rhythm.
# Did alignment also move the layer towards the planted one? The share of the planted layer that lies
# in the span of the layer's units says so; for the control it should not grow.

# %%
control, _ = align(shifted(y, n_volumes // 3))
layers = {"As it is": start, "Aligned": aligned, "Aligned to shifted": control}
found, scores = {}, {}
for name, layer in layers.items():
    basis = np.linalg.qr(layer)[0]
    found[name] = np.square(basis.T @ planted).sum() / np.square(planted).sum()
    scores[name] = np.median(score(predict(layer, fit_head(layer, y)), y, test))
fig, axes = plt.subplots(1, 2, figsize=(9, 2.4), sharey=True)
for ax, values, text in zip(
    axes, (scores, found), ("R² on the test block", "Share of the planted layer"), strict=True
):
    ax.barh(list(values), values.values())
    label = ax.set(xlabel=text, xlim=(0, 1))

# %% [markdown]
# **Exercise 6 (1 point).** Freteault et al. (2025) find that networks aligned with a brain do better
# at listening tasks. Which control shows that it is *the brain* that helps?
#
# * a: the network before alignment
# * b: the same network, trained as long in the same way on responses that do not belong to the sounds
# * c: the aligned network's score on held-out brain responses
# * d: a larger network trained on more sounds

# %% exercise="transfer"
### BEGIN SOLUTION
transfer_control = "b"
### END SOLUTION

# %% check="transfer"
labs.check_transfer(transfer_control)

# %% [markdown]
# ## What to take away
#
# Alignment is ordinary training with a slow, causal head and a small, noisy, autocorrelated target.
# Everything that made an encoding model honest is still needed, and one control more: the same
# training on a brain that did not hear it. Chapter 6 does this with a deep network.
