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
# # Lab 4. Does training make a model brain-like?
#
# Trained networks predict auditory cortex well. Is it the training? A network that has learned
# nothing is already a large bank of non-linear filters, and may predict just as well. You train a
# small network yourself, hold it against the same network before training, and decide with a test
# made for few listeners.
#
# **You will be able to** write the forward and backward pass of a small network; name the control
# that isolates training; compare networks listener by listener; test a gain exactly, without
# assuming a distribution; express scores as a share of what can be explained.
#
# **You need** the chain rule, and labs 2 and 3 or an idea of encoding models.
#
# **Time** 60 minutes: seven exercises, 16 points.
#
# *How it works.* Write your code in the cells that say so, and run the cell below each: it calls
# your function with new random inputs and says what is wrong. Hints are folded.

# %%
# %matplotlib inline
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import stats as scipy_stats

from analysis_lib import data, encoding, extraction, figures, labs, light_zoo
from analysis_lib import models as zoo

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo or natsound
dataset: str = "simulated"  # the responses to predict
trained: str = "light-notes"  # a network of the book that was trained
n_networks: int = 3  # networks to train, each from its own start
n_steps: int = 300  # of training
n_hidden: int = 64  # units

# %% [markdown]
# ## 1. A network that names sounds
#
# The task: which of six kinds is a sound? The input is one row of log-mel features per sound (lab
# 1); `w1` leads to hidden units, which are silent below 0, and `w2` to one number per class:
#
# $$h = \max(0, x W_1), \qquad z = h W_2, \qquad p_{c} = \frac{e^{z_c}}{\sum_k e^{z_k}}.$$
#
# The last step, the *softmax*, turns numbers into probabilities. It does not change when the same
# number is subtracted from all $z$ of a sound; subtract the largest, and no exponential overflows.
#
# **Exercise 1 (2 points).** The softmax of each row.
#
# <details><summary>Hint</summary>
#
# `axis=1, keepdims=True` in both the maximum and the sum, so that rows stay rows.
#
# </details>

# %% exercise="softmax"
def softmax(logits):
    """Probabilities of classes, (n_sounds, n_classes); each row sums to 1."""
    ### BEGIN SOLUTION
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %% check="softmax"
labs.check_softmax(softmax)

# %% [markdown]
# How wrong is the network? The *cross-entropy* is the mean, over sounds, of minus the logarithm of
# the probability that it gave to the true class. It is 0 when the network is certain and right.
#
# **Exercise 2 (2 points).**
#
# <details><summary>Hint</summary>
#
# One entry per row: `p[np.arange(len(p)), classes]`.
#
# </details>

# %% exercise="cross_entropy"
def cross_entropy(p, classes):
    """Mean of -log of the true class's probability, a number."""
    ### BEGIN SOLUTION
    return -np.log(p[np.arange(len(p)), classes]).mean()
    ### END SOLUTION


# %% check="cross_entropy"
labs.check_cross_entropy(cross_entropy)

# %% [markdown]
# Training follows the slope of that loss downhill. For a softmax with cross-entropy the error at
# the output is simply $e = (p - t) / n$, where $t$ is 1 for the true class and 0 elsewhere. Then
#
# $$\frac{\partial L}{\partial W_2} = h^\top e, \qquad
#   \frac{\partial L}{\partial W_1} = x^\top \left[ (e\, W_2^\top) \odot (h > 0) \right].$$
#
# **Exercise 3 (4 points).** Both gradients, `w1` first, from weights, inputs and classes.
#
# <details><summary>Hint</summary>
#
# Forward first: `hidden = np.maximum(x @ w1, 0)`, then `softmax`. Subtract 1 at the true classes
# and divide by the number of sounds. A silent unit passes no error back.
#
# </details>

# %% exercise="gradients"
def gradients(w1, w2, x, classes):
    """Gradients of the cross-entropy with respect to w1 and w2, each of its weights' shape."""
    ### BEGIN SOLUTION
    hidden = np.maximum(x @ w1, 0)
    error = softmax(hidden @ w2)
    error[np.arange(len(x)), classes] -= 1
    error /= len(x)
    return x.T @ ((error @ w2.T) * (hidden > 0)), hidden.T @ error
    ### END SOLUTION


# %% check="gradients"
labs.check_gradients(gradients)

# %% [markdown]
# torch finds gradients by itself. It should agree with what you derived.

# %%
rng = np.random.default_rng(0)
w1, w2, x = (rng.standard_normal(shape) for shape in ((5, 4), (4, 3), (10, 5)))
classes = rng.integers(0, 3, 10)
leaves = [torch.tensor(w, requires_grad=True) for w in (w1, w2)]
logits = (torch.tensor(x) @ leaves[0]).relu() @ leaves[1]
torch.nn.functional.cross_entropy(logits, torch.tensor(classes)).backward()
for mine, leaf in zip(gradients(w1, w2, x, classes), leaves, strict=True):
    print(f"largest difference {np.abs(mine - leaf.grad.numpy()).max():.1e}")

# %% [markdown]
# ## 2. Train it
#
# The training sounds are generated, and none of them is among the sounds that the brain heard. That
# matters: a network that has learned the test sounds by heart answers another question. Three
# networks start from other random weights; each is kept as it was before training, too.

# %%
lessons = data.simulated_sounds(n_per_category=20, seed=1)
kinds = sorted(set(lessons.categories))
classes = np.array([kinds.index(kind) for kind in lessons.categories])
heard = data.sounds(dataset)
table = extraction.features("log-mel", lessons, device="cpu")["log_mel"].data.astype(float)
mean, spread = table.mean(axis=0), table.std(axis=0)
x = (table - mean) / spread

# %%
before, after, losses = [], [], []
for number in range(n_networks):
    rng = np.random.default_rng(number)
    w1 = rng.standard_normal((x.shape[1], n_hidden)) * np.sqrt(2 / x.shape[1])
    w2 = rng.standard_normal((n_hidden, len(kinds))) * np.sqrt(1 / n_hidden)
    before.append(w1.copy())
    for _ in range(n_steps):
        losses.append((number, cross_entropy(softmax(np.maximum(x @ w1, 0) @ w2), classes)))
        slope1, slope2 = gradients(w1, w2, x, classes)
        w1, w2 = w1 - 0.1 * slope1, w2 - 0.1 * slope2
    after.append(w1)
ax = plt.subplots(figsize=(5, 3))[1]
for number in range(n_networks):
    ax.plot([loss for which, loss in losses if which == number], label=f"Network {number + 1}")
text = ax.set(xlabel="Step", ylabel="Cross-entropy", ylim=(0, None))
legend = ax.legend()

# %% [markdown]
# ## 3. The control
#
# **Exercise 4 (1 point).** The trained network predicts the brain with some R². Which comparison
# shows what *training* did?
#
# * a: with the log-mel features that go in
# * b: with a larger network from the literature
# * c: with shuffled responses
# * d: with the same network, from the same start, before training

# %% exercise="control"
### BEGIN SOLUTION
control = "d"
### END SOLUTION

# %% check="control"
labs.check_control(control)

# %% [markdown]
# Now the brain. Hidden units before and after training go through the encoding model of lab 2, as
# the book has it. A column of the tables below is one listener: the median R² over that listener's
# voxels. The components of `natsound` belong to no listener; there a column is one component.

# %%
responses = data.responses(dataset)
folds = data.folds("auto", heard)
own = extraction.features("log-mel", heard, device="cpu")["log_mel"].sel(sound=responses["sound"])
inputs = (own.data.astype(float) - mean) / spread
columns = responses["subject" if "subject" in responses.coords else "target"].data


def scores_of(layers):
    """R² of each voxel."""
    return encoding.nested_cv_ridge(layers, responses, folds, device="cpu")["score"].data


def per_column(scores):
    return np.array([np.median(scores[columns == column]) for column in np.unique(columns)])


found = {
    name: [scores_of({"hidden": np.maximum(inputs @ w1, 0)}) for w1 in networks]
    for name, networks in (("untrained", before), ("trained", after))
}
tables = {name: np.array([per_column(scores) for scores in each]) for name, each in found.items()}
print({name: table.round(3) for name, table in tables.items()})

# %% [markdown]
# ## 4. One difference per listener
#
# Listeners differ a lot in how well they can be predicted at all, and that has nothing to do with
# training. In the difference *within* a listener it drops out.
#
# **Exercise 5 (2 points).** Rows are networks, columns listeners. The mean difference trained minus
# untrained, over networks, for each listener.
#
# <details><summary>Hint</summary>
#
# Which axis has to go? Networks are rows.
#
# </details>

# %% exercise="paired"
def paired(trained, untrained):
    """Mean gain over networks for each listener, (n_listeners,)."""
    ### BEGIN SOLUTION
    return (trained - untrained).mean(axis=0)
    ### END SOLUTION


# %% check="paired"
labs.check_paired(paired)

# %% [markdown]
# If training did nothing, a gain would be as likely up as down, and every listener's difference
# could have had the other sign. With few listeners all assignments of signs can be listed: $2^n$ of
# them. The p-value is the share whose mean is at least the observed one. The observed assignment is
# among them, so p is never 0.
#
# **Exercise 6 (3 points).** The exact one-sided p-value of the mean difference.
#
# <details><summary>Hint</summary>
#
# `np.array(list(product([1, -1], repeat=n)))` lists all assignments. Means that should be equal may
# differ in the last digit: compare with `observed - 1e-12`.
#
# </details>

# %% exercise="sign_flips"
def sign_flips(differences):
    """Share of sign assignments with a mean of at least the observed one, a number."""
    ### BEGIN SOLUTION
    signs = np.array(list(product([1, -1], repeat=len(differences))))
    return np.mean(signs @ differences / len(differences) >= differences.mean() - 1e-12)
    ### END SOLUTION


# %% check="sign_flips"
labs.check_sign_flips(sign_flips)

# %% [markdown]
# scipy has this test too. With four listeners the smallest possible p is 1/16: a small sample
# cannot be very significant, however large the gain.

# %%
gain = paired(tables["trained"], tables["untrained"])
book = scipy_stats.permutation_test(
    (gain,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
)
print(f"gains {gain.round(4)}: p = {sign_flips(gain):.4f}, scipy {book.pvalue:.4f}")
ax = plt.subplots(figsize=(4.6, 3.4))[1]
ax.plot([0, 1], [tables["untrained"].mean(axis=0), tables["trained"].mean(axis=0)], "o-")
text = ax.set(ylabel="R² (mean over networks)", xlim=(-0.3, 1.3), ylim=(0, None))
ticks = ax.set_xticks([0, 1], ["Untrained", "Trained"])

# %% [markdown]
# ## 5. A share of what can be explained
#
# Is an R² of 0.3 much? Of a voxel whose ceiling is 0.35, yes. The share that is reached is score
# over ceiling, voxel by voxel; voxels whose ceiling is near 0 are left out, since dividing by almost
# nothing makes large numbers out of noise.
#
# **Exercise 7 (2 points).** The median share over the voxels whose ceiling is at least `least`.
#
# <details><summary>Hint</summary>
#
# First a mask of the voxels to keep, then one division, then the median.
#
# </details>

# %% exercise="explained_share"
def explained_share(score, ceiling, least):
    """Median of score / ceiling over voxels with a ceiling of at least least, a number."""
    ### BEGIN SOLUTION
    kept = ceiling >= least
    return np.median(score[kept] / ceiling[kept])
    ### END SOLUTION


# %% check="explained_share"
labs.check_explained_share(explained_share)

# %% [markdown]
# Last, a real network: five convolutional layers of the book's light zoo, which learned another
# task, against the same layers before training (the first run trains it, in less than a minute).
# Responses without repetitions have no known ceiling; for them it is taken as 1.

# %%
if zoo.card(trained).kind == "trained-here":
    light_zoo.train(trained, device="cpu")
ceilings = np.nan_to_num(encoding.explainable(responses).data, nan=1.0)
networks = {
    f"{figures.label(trained)}, untrained": zoo.load(trained, untrained=True, device="cpu"),
    figures.label(trained): zoo.load(trained, device="cpu"),
}
shares = {f"Yours, {name}": np.mean(each, axis=0) for name, each in found.items()}
for name, network in networks.items():
    shares[name] = scores_of(extraction.extract(network, heard))
shares = {name: explained_share(scores, ceilings, 0.1) for name, scores in shares.items()}
ax = plt.subplots(figsize=(6, 2.6))[1]
ax.barh(list(shares), shares.values())
text = ax.set(xlabel="Share of the explainable variance (median)", xlim=(0, 1))

# %% [markdown]
# ## What to take away
#
# Write down, before you read on: did training help *your* network, by how much, and for how many
# listeners? In the demo the cortex is simulated from fixed features that no network was trained
# for, so there is no reason why learning six categories should help much, and it may even hurt.
# With real cortex the answer is in Chapter 4. The point of this lab is the comparison: same
# network, same start, same sounds, one difference per listener, an exact test, and scores that
# know their ceiling.
