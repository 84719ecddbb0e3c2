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
# # Lab 3. RSA, and what cross-validation is for
#
# A model has thousands of units, a brain thousands of voxels, and none of them correspond. What can
# be compared are *distances*: are two sounds that are far apart in the model far apart in the brain?
# That is representational similarity analysis (RSA). You build it, give it a ceiling and a
# p-value, and then watch it go wrong when a layer is chosen on the data that it is scored with.
#
# **You will be able to** compute a dissimilarity matrix and compare two of them by ranks; estimate
# a noise ceiling over listeners; test a similarity by permutation; explain what choosing costs, and
# how holding sounds out avoids it.
#
# **You need** correlation and NumPy indexing. Labs 1 and 2 help, but are not required.
#
# **Time** 60 minutes: eight exercises, 17 points.
#
# *How it works.* Write your code in the cells that say so, and run the cell below each: it calls
# your function with new random inputs and says what is wrong. Hints are folded.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import rankdata

from analysis_lib import data, extraction, figures, labs, rsa

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo or natsound
dataset: str = "simulated"  # the voxels to compare with
listeners: str = "simulated"  # voxels of several listeners, for the ceiling
model: str = "small-cnn"  # a model with several layers
n_permutations: int = 200  # shuffles of the sounds
n_draws: int = 100  # of noise, in the experiment
seed: int = 0  # for all of them

# %% [markdown]
# ## The data
#
# `brain` has a row per sound and a column per voxel, `layers` a table per layer of the model with
# the same rows. All are standardised: every voxel and unit has mean 0 and standard deviation 1 over
# sounds, so that none dominates.

# %%
def zscore(x):
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread > 1e-10, spread, 1)


responses = data.responses(dataset)
if "repetition" in responses.dims:
    responses = responses.mean("repetition")
features = extraction.features(model, data.sounds(dataset), device="cpu")
brain = zscore(responses.data)
layers = {
    name: zscore(features[name].sel(sound=responses["sound"]).data.astype(float))
    for name in features.layers
}
print(f"brain {brain.shape}, layers {', '.join(layers)}")

# %% [markdown]
# ## 1. Dissimilarity
#
# The dissimilarity of two sounds is 1 minus the correlation of their patterns: 0 if the patterns
# rise and fall alike, 1 if they have nothing in common, 2 if they are opposite. All pairs make a
# square matrix, the RDM.
#
# **Exercise 1 (3 points).** A pattern is a row of `x`. Do not standardise; that has been done.
#
# <details><summary>Hint</summary>
#
# Subtract from each row its mean (`x.mean(axis=1, keepdims=True)`), divide each by its norm. The
# product of the table with its transpose then holds all correlations. `np.corrcoef` does the same.
#
# </details>

# %% exercise="rdm"
def rdm(x):
    """1 - correlation of every two rows of x (n_sounds, n_units), (n_sounds, n_sounds)."""
    ### BEGIN SOLUTION
    x = x - x.mean(axis=1, keepdims=True)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return 1 - x @ x.T
    ### END SOLUTION


# %% check="rdm"
labs.check_rdm(rdm)

# %% [markdown]
# Look at the brain and at the model's last layer; sounds are sorted by category. Dark squares along
# the diagonal are categories whose members are alike. Then the book's function: the same numbers.

# %%
last = list(layers)[-1]
fig, axes = plt.subplots(1, 2, figsize=(9, 4.4))
for ax, (name, x) in zip(axes, {"Brain": brain, last: layers[last]}.items(), strict=True):
    figures.plot_rdm(rdm(x), list(responses["category"].data), name, ax)
print("the same:", np.allclose(rdm(brain), rsa.rdm(brain, standardize=False), atol=1e-9))

# %% [markdown]
# ## 2. Compare two matrices
#
# An RDM is symmetric, and its diagonal is 0 by definition. What can be compared is above the
# diagonal.
#
# **Exercise 2 (1 point).** The entries above the diagonal, row by row, as one vector.
#
# <details><summary>Hint</summary>
#
# `np.triu_indices(n, 1)` gives their rows and columns.
#
# </details>

# %% exercise="pairs"
def pairs(matrix):
    """Entries above the diagonal, (n * (n - 1) / 2,)."""
    ### BEGIN SOLUTION
    return matrix[np.triu_indices(len(matrix), 1)]
    ### END SOLUTION


# %% check="pairs"
labs.check_pairs(pairs)

# %% [markdown]
# Model and brain have no common scale, and nothing says that their distances should relate by a
# straight line. We ask only whether they put pairs of sounds in the same *order*: Spearman's
# correlation, which is Pearson's correlation of the ranks.
#
# **Exercise 3 (2 points).** Equal values share the mean of their ranks. You may use `rankdata`.
#
# <details><summary>Hint</summary>
#
# `np.corrcoef(a, b)` is a 2 × 2 matrix; the number you want is off its diagonal.
#
# </details>

# %% exercise="spearman"
def spearman(a, b):
    """Correlation of the ranks of two vectors, a number."""
    ### BEGIN SOLUTION
    return np.corrcoef(rankdata(a), rankdata(b))[0, 1]
    ### END SOLUTION


# %% check="spearman"
labs.check_spearman(spearman)

# %% [markdown]
# One number per layer, by your functions and by the book's. This is RSA; the rest of the lab is
# about whether to believe it.

# %%
similarity = {name: spearman(pairs(rdm(x)), pairs(rdm(brain))) for name, x in layers.items()}
book = rsa.layerwise(layers, brain, device="cpu")["score"].sel(subject="all")
for name, value in similarity.items():
    print(f"{name}: mine {value:.4f}, book {float(book.sel(layer=name)):.4f}")

# %% [markdown]
# ## 3. Is it more than chance?
#
# If the model knew nothing about the brain, it would not matter which sound is which in it. So we
# exchange the sounds of one matrix at random, many times, and see what similarity comes of that.
# The pairs of a matrix are not independent (a sound that is far from one is often far from others
# too), which is why **sounds** are exchanged and not pairs.
#
# **Exercise 4 (2 points).** The matrix after its sounds have been put into the order `order`.
#
# <details><summary>Hint</summary>
#
# A sound has a row and a column. Index one axis, then the other.
#
# </details>

# %% exercise="shuffled"
def shuffled(matrix, order):
    """The matrix with row and column k those of sound order[k]."""
    ### BEGIN SOLUTION
    return matrix[order][:, order]
    ### END SOLUTION


# %% check="shuffled"
labs.check_shuffled(shuffled)

# %% [markdown]
# **Exercise 5 (2 points).** The p-value: how often is chance at least as high as what was observed?
# The order that was observed is itself one of the possible orders, so it counts as one more shuffle
# that is as high.
#
# <details><summary>Hint</summary>
#
# `null >= observed` is a mask; its sum is a count. With 99 shuffles that are all lower, p is 1/100.
#
# </details>

# %% exercise="p_value"
def p_value(observed, null):
    """One-sided p-value of a number, given values (n,) that chance produced."""
    ### BEGIN SOLUTION
    return (1 + np.sum(null >= observed)) / (1 + len(null))
    ### END SOLUTION


# %% check="p_value"
labs.check_p_value(p_value)

# %% [markdown]
# With the same random orders as the book, the null distribution is the same to the last shuffle.

# %%
rng = np.random.default_rng(seed)
orders = [rng.permutation(len(brain)) for _ in range(n_permutations)]
of_brain, of_model = rdm(brain), pairs(rdm(layers[last]))
null = np.array([spearman(pairs(shuffled(of_brain, order)), of_model) for order in orders])
test = rsa.permutation({last: layers[last]}, brain, n_permutations, seed=seed, device="cpu")
print(f"mine p = {p_value(similarity[last], null):.4f}, book p = {test['p_value'].item():.4f}")
print("same null:", np.allclose(null, test["null"].data[:, 0], atol=1e-6))
ax = plt.subplots(figsize=(6, 2.6))[1]
counts = ax.hist(null, 40, color="0.6", label="Shuffled sounds")
line = ax.axvline(similarity[last], label=last)
text = ax.set(xlabel="Similarity (Spearman ρ)", ylabel="Number of shuffles")
legend = ax.legend()

# %% [markdown]
# ## 4. How high could it be?
#
# Listeners differ, and every measurement is noisy. If the listeners' matrices do not agree with one
# another, no model can agree with all of them. The lower edge of the *noise ceiling* asks how well
# each listener is predicted by the others: rank the entries within each listener, average the ranks
# of all **other** listeners, correlate with the one left out, and average over listeners.
#
# **Exercise 6 (3 points).** `rdms` has a row per listener, a column per pair of sounds.
#
# <details><summary>Hint</summary>
#
# `np.delete(ranks, k, axis=0)` leaves listener k out.
#
# </details>

# %% exercise="lower_ceiling"
def lower_ceiling(rdms):
    """Mean similarity of each listener with the mean ranks of the others, a number."""
    ### BEGIN SOLUTION
    ranks = np.array([rankdata(row) for row in rdms])
    others = [np.delete(ranks, k, axis=0).mean(axis=0) for k in range(len(rdms))]
    return np.mean([spearman(row, other) for row, other in zip(rdms, others, strict=True)])
    ### END SOLUTION


# %% check="lower_ceiling"
labs.check_lower_ceiling(lower_ceiling)

# %% [markdown]
# Components and rebuilt voxels have no listeners, so in every profile this part uses the simulated
# ones. A model that reaches this edge is as good as the average of the other listeners.

# %%
several = data.responses(listeners)
by_listener = several.mean("repetition").groupby("subject")
rdms = np.array([pairs(rdm(zscore(part.data))) for _, part in by_listener])
book = rsa.noise_ceiling(several, device="cpu")
edge, upper = (float(book[name].mean()) for name in ("lower", "upper"))
print(f"mine {lower_ceiling(rdms):.4f}, book {edge:.4f} (upper edge {upper:.4f})")

# %% [markdown]
# ## 5. What choosing costs
#
# A deep model has many layers, and papers often report the best. Chosen on what? If the layer is
# chosen on the same sounds that it is scored with, the score is the *highest of several*, and the
# highest of several noisy numbers is high by itself. The remedy: choose on some sounds, score on
# others.
#
# **Exercise 7 (3 points).** `layers` is a list of tables, `chooses` a mask over sounds. Choose the
# layer with the highest similarity among the sounds where `chooses` is True; return its similarity
# among the sounds where it is False. Matrices are computed within each half.
#
# <details><summary>Hint</summary>
#
# `brain[chooses]` and `brain[~chooses]` are the two halves. Write a small function for the
# similarity of a layer in a half, and use it twice.
#
# </details>

# %% exercise="held_out"
def held_out(layers, brain, chooses):
    """Similarity, on the other half of the sounds, of the layer chosen on one half."""
    ### BEGIN SOLUTION
    def similar(x, rows):
        return spearman(pairs(rdm(x[rows])), pairs(rdm(brain[rows])))

    chosen = np.argmax([similar(x, chooses) for x in layers])
    return similar(layers[chosen], ~chooses)
    ### END SOLUTION


# %% check="held_out"
labs.check_held_out(held_out)

# %% [markdown]
# Against the book, on the real layers. Its scheme `halves` scales units by the sounds it chooses
# on, so we do the same before. A unit that is silent for all of these would be divided by nothing
# but rounding; it is left as it is.

# %%
rng = np.random.default_rng(seed)
chooses = rng.permutation(len(brain)) < len(brain) // 2


def scaled(x):
    spread = x[chooses].std(axis=0)
    return (x - x[chooses].mean(axis=0)) / np.where(spread > 1e-10, spread, 1)


mine = held_out([scaled(x) for x in layers.values()], scaled(brain), chooses)
book = rsa.cross_validated(layers, brain, chooses[None], "halves", device="cpu")
print(f"mine {mine:.4f}, book {book['score'].item():.4f}")

# %% [markdown]
# Now the experiment. The "layers" are pure noise, so every true similarity is 0. There are 1, 5, or
# 30 of them, and 20 sounds. Each draw reports the best layer twice: chosen and scored on all
# sounds, and held out.

# %%
rng = np.random.default_rng(seed)
noise_brain = brain[rng.permutation(len(brain))[:20]]
half = np.arange(20) < 10
target = pairs(rdm(noise_brain))
best, honest = {}, {}
for n_layers in (1, 5, 30):
    drawn = [list(rng.standard_normal((n_layers, 20, 50))) for _ in range(n_draws)]
    best[n_layers] = [max(spearman(pairs(rdm(x)), target) for x in draw) for draw in drawn]
    honest[n_layers] = [held_out(draw, noise_brain, half) for draw in drawn]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for ax, (title, values) in zip(axes, {"Best layer": best, "Held out": honest}.items(), strict=True):
    ax.boxplot(list(values.values()), tick_labels=list(values))
    ax.axhline(0, color="0.5", linewidth=1)
    ax.set(xlabel="Number of layers (noise)", title=title)
label = axes[0].set_ylabel("Similarity (Spearman ρ)")

# %% [markdown]
# **Exercise 8 (1 point).** Why is the left box higher with more layers?
#
# * a: the highest of many noisy numbers is high, though none of the true ones is
# * b: with more layers there is a better chance that one is truly like the brain
# * c: ranks of many layers have another scale
# * d: each layer alone is above 0, because noise and brain share something

# %% exercise="optimism"
### BEGIN SOLUTION
why_optimistic = "a"
### END SOLUTION

# %% check="optimism"
labs.check_optimism(why_optimistic)

# %% [markdown]
# Why do the held-out scores spread wider? They rest on half the sounds, and so on a quarter of the
# pairs. Holding out removes the bias and pays for it in noise; drawing many halves, or several
# folds, wins part of it back.
#
# ## What to take away
#
# A similarity needs a ceiling above it, a null below it, and a layer that was not chosen by the
# sounds it is scored on. Chapter 3 does this with every model, and compares the published way of
# choosing with one that is really held out.
