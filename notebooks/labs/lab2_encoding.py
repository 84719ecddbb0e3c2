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
# # Lab 2. Build an encoding model, and find its ceiling
#
# If a representation hears as the brain does, the brain's responses should be readable from it. An
# *encoding model* tests that: fit a linear map from features to responses on some sounds, predict
# the responses to others. You build one from NumPy, with every step that keeps it honest, and end
# with the same numbers as the book.
#
# **You will be able to** divide sounds into training and test; write ridge regression in closed
# form; score predictions; choose a penalty without looking at the test sounds; estimate from
# repetitions how well any model could do.
#
# **You need** matrix products, and that least squares has a closed form. Lab 1 helps, but is not
# required.
#
# **Time** 60 minutes: seven exercises, 17 points.
#
# *How it works.* Write your code in the cells that say so, and run the cell below each: it calls
# your function with new random inputs and says what is wrong. Hints are folded.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

from analysis_lib import data, encoding, extraction, figures, labs

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo or natsound
dataset: str = "simulated-components"  # the responses to predict
voxels: str = "simulated"  # repeated measurements, whose ceiling is known
model: str = "log-mel"  # the representation to predict from
seed: int = 0  # for the shuffles

# %% [markdown]
# ## The data
#
# Rows are sounds. `x` holds the features, a column per unit, `y` the responses, a column per
# *target*: the six components of auditory cortex in the profile `natsound`, three simulated ones in
# the demo. `folds` divides the sounds into five groups. Features are brought into the order of the
# responses by name (lab 1 says why).

# %%
responses = data.responses(dataset)
heard = data.sounds(dataset)
layers = extraction.features(model, heard, device="cpu")
x = layers[layers.layers[-1]].sel(sound=responses["sound"]).data.astype(float)
y = responses.data
folds = data.folds("auto", heard).sel(sound=responses["sound"]).data
print(f"{x.shape[0]} sounds, {x.shape[1]} units, {y.shape[1]} targets, {len(set(folds))} folds")

# %% [markdown]
# ## 1. Hold out
#
# A model that is tested on the sounds it was fitted to is tested on its memory. So each fold in
# turn is kept away from the fit and predicted by a model that has never seen it.
#
# **Exercise 1 (1 point).** Row numbers of the training sounds, and of the test sounds, when `fold`
# is held out.
#
# <details><summary>Hint</summary>
#
# `folds == fold` is a mask of True and False; `np.flatnonzero` gives the row numbers of the Trues.
#
# </details>

# %% exercise="split"
def split(folds, fold):
    """Row numbers to train on, and to test on."""
    ### BEGIN SOLUTION
    return np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    ### END SOLUTION


# %% check="split"
labs.check_split(split)

# %% [markdown]
# ## 2. Ridge regression
#
# We look for weights $W$ that make $X W$ close to $Y$. With more units than sounds there are
# infinitely many perfect ones, most of them absurd. Ridge regression prefers small weights:
#
# $$\hat W = \arg\min_W \lVert Y - X W \rVert^2 + \alpha \lVert W \rVert^2
#          = (X^\top X + \alpha I)^{-1} X^\top Y.$$
#
# The means are not to be penalised. Therefore centre first: subtract from $X$ and $Y$ their means
# **over the training sounds**. A test sound is centred with the same training means, and the mean
# of the training responses is added to the prediction. If the test sounds entered a mean, they
# would have entered the model.
#
# **Exercise 2 (4 points).** Fit on the training sounds, predict the test sounds.
#
# <details><summary>Hint 1</summary>
#
# Four steps: means of `x_train` and `y_train` (axis 0); centre; solve; predict. `np.eye(n)` is the
# identity, `np.linalg.solve(a, b)` solves `a @ w = b` better than an inverse does.
#
# </details>
# <details><summary>Hint 2: faster</summary>
#
# With many units, $X^\top (X X^\top + \alpha I)^{-1} Y$ gives the same weights from a system as
# small as the number of sounds. This is what the book does.
#
# </details>

# %% exercise="ridge"
def ridge(x_train, y_train, x_test, alpha):
    """Predicted responses to the test sounds, (n_test, n_targets)."""
    ### BEGIN SOLUTION
    x_mean, y_mean = x_train.mean(axis=0), y_train.mean(axis=0)
    x_train, y_train = x_train - x_mean, y_train - y_mean
    gram = x_train @ x_train.T
    weights = x_train.T @ np.linalg.solve(gram + alpha * np.eye(len(gram)), y_train)
    return (x_test - x_mean) @ weights + y_mean
    ### END SOLUTION


# %% check="ridge"
labs.check_ridge(ridge)

# %% [markdown]
# ## 3. Score
#
# The book's score is the squared correlation of measured and predicted responses over sounds, one
# number per target. A prediction that goes the wrong way has a negative correlation, and must not be
# rewarded by the square: negative correlations count as 0.
#
# **Exercise 3 (2 points).**
#
# <details><summary>Hint</summary>
#
# Centre both over sounds. The correlation is the sum of products over the root of the product of
# the sums of squares. `.clip(min=0)` removes what is negative.
#
# </details>

# %% exercise="score"
def score(measured, predicted):
    """Squared correlation over sounds, 0 where negative, (n_targets,)."""
    ### BEGIN SOLUTION
    a, b = measured - measured.mean(axis=0), predicted - predicted.mean(axis=0)
    r = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return r.clip(min=0) ** 2
    ### END SOLUTION


# %% check="score"
labs.check_score(score)

# %% [markdown]
# ## 4. Cross-validate
#
# **Exercise 4 (3 points).** Predict every sound by a model that was fitted without its fold. Row k
# of the result is the prediction for sound k.
#
# <details><summary>Hint</summary>
#
# Make an empty array like `y`, loop over `np.unique(folds)`, and use `split` and `ridge`. Write
# each fold's predictions to the rows of its test sounds.
#
# </details>

# %% exercise="cross_validated"
def cross_validated(x, y, folds, alpha):
    """Prediction for every sound from the other folds, (n_sounds, n_targets)."""
    ### BEGIN SOLUTION
    predicted = np.empty_like(y)
    for fold in np.unique(folds):
        train, test = split(folds, fold)
        predicted[test] = ridge(x[train], y[train], x[test], alpha)
    return predicted
    ### END SOLUTION


# %% check="cross_validated"
labs.check_cross_validated(cross_validated)

# %% [markdown]
# Does the book agree? Its function chooses layers and penalties; with one of each there is nothing
# to choose, and the scores must be equal.

# %%
mine = score(y, cross_validated(x, y, folds, 10.0))
book = encoding.nested_cv_ridge(
    {"layer": x}, y, folds, alphas=[10.0], extend="none", device="cpu"
)
print("mine", mine.round(4), "book", book["score"].data.round(4))

# %% [markdown]
# What would have happened without holding out? Here the same model, once predicting the sounds it
# was fitted to, once others, for the real responses and for responses shuffled over sounds, which
# nothing can predict.

# %%
shuffled = np.random.default_rng(seed).permutation(y)
bars = {}
for name, target in (("measured", y), ("shuffled", shuffled)):
    bars[f"{name}, fitted sounds"] = score(target, ridge(x, target, x, 0.01)).mean()
    bars[f"{name}, held-out sounds"] = score(target, cross_validated(x, target, folds, 0.01)).mean()
ax = plt.subplots(figsize=(7, 2.6))[1]
ax.barh(list(bars), bars.values())
text = ax.set(xlabel="R² (mean over targets)", xlim=(0, 1))

# %% [markdown]
# **Exercise 5 (1 point).** The model "explains" shuffled responses to the fitted sounds. Why?
#
# * a: the penalty helps the fit
# * b: it has about as many weights as sounds, or more, and can copy any numbers
# * c: shuffling adds noise, which raises the score
# * d: the score is computed on other sounds

# %% exercise="inflated"
### BEGIN SOLUTION
why_inflated = "b"
### END SOLUTION

# %% check="inflated"
labs.check_inflated(why_inflated)

# %% [markdown]
# ## 5. Choose the penalty, honestly
#
# Which $\alpha$? The one with the best score on the test fold would be chosen *by* the test fold,
# which is then no test any more. So the choice has to be made within the training sounds: leave out
# one of **their** folds after the other. This is *nested* cross-validation.
#
# **Exercise 6 (3 points).** The penalty from the list `alphas` with the highest mean score (over
# targets) in a cross-validation among the training sounds of `fold`.
#
# <details><summary>Hint</summary>
#
# `train, _ = split(folds, fold)`. Then `cross_validated(x[train], y[train], folds[train], alpha)`
# is everything you need, once per penalty.
#
# </details>

# %% exercise="alpha"
def best_alpha(x, y, folds, fold, alphas):
    """Penalty that predicts best within the training sounds of a fold."""
    ### BEGIN SOLUTION
    train, _ = split(folds, fold)
    x, y, folds = x[train], y[train], folds[train]
    scores = [score(y, cross_validated(x, y, folds, alpha)).mean() for alpha in alphas]
    return alphas[int(np.argmax(scores))]
    ### END SOLUTION


# %% check="alpha"
labs.check_alpha(best_alpha)

# %% [markdown]
# The book chooses for each target separately. Give your function one target at a time, and the
# choices should be the same in every fold.

# %%
alphas = list(encoding.PAPER_ALPHAS)
book = encoding.nested_cv_ridge({"layer": x}, y, folds, extend="none", device="cpu")
mine = [
    [best_alpha(x, y[:, [target]], folds, fold, alphas) for target in range(y.shape[1])]
    for fold in np.unique(folds)
]
print(f"the same penalty in {np.mean(book['alpha'].data == mine):.0%} of folds and targets")
print("scores with nested choice:", book["score"].data.round(3))

# %% [markdown]
# ## 6. How well could any model do?
#
# A measured voxel is signal plus noise, and noise cannot be predicted. If a sound was presented
# several times, the agreement of the repetitions says how much of the response is signal. With $r$
# the median correlation between two repetitions (over pairs of them), the reliability of the mean of
# $n$ repetitions is, after Spearman and Brown,
#
# $$c = \frac{n r}{1 + (n - 1) r}.$$
#
# It is also the highest squared correlation that a perfect model can reach with that mean: the
# *noise ceiling*.
#
# **Exercise 7 (3 points).** The ceiling of each target, from responses of shape
# `(n_sounds, n_targets, n_repetitions)`. Negative $r$ count as 0.
#
# <details><summary>Hint</summary>
#
# `itertools.combinations(range(n), 2)` lists the pairs. The correlation of two tables column by
# column is in your function `score`, before the square.
#
# </details>

# %% exercise="ceiling"
def ceiling(values):
    """Highest squared correlation that a model can reach with the mean repetition, (n_targets,)."""
    ### BEGIN SOLUTION
    n = values.shape[2]
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    pairs = [(z[..., i] * z[..., j]).mean(axis=0) for i in range(n) for j in range(i)]
    r = np.median(pairs, axis=0).clip(min=0)
    return n * r / (1 + (n - 1) * r)
    ### END SOLUTION


# %% check="ceiling"
labs.check_ceiling(ceiling)

# %% [markdown]
# Is the estimate right? With measured voxels nobody knows. Simulated ones tell: noise was added to
# a known signal, so the true ceiling is known for every voxel. Your estimate should scatter around
# it, and agree with the book's exactly.

# %%
repeated = data.responses(voxels)
mine = ceiling(repeated.data)
book = encoding.explainable(repeated).data
driven = repeated["ceiling"].data > 0
print(f"largest difference from the book {np.abs(mine - book).max():.1e}")
print(f"median {np.median(mine[driven]):.3f}, truth {repeated['ceiling'].data[driven][0]:.3f}")

# %% [markdown]
# A score only means something beside its ceiling. The picture sets the two against each other,
# voxel by voxel: on the line a voxel would be predicted as well as its noise allows. Voxels with a
# low ceiling say nothing about a model, whatever their score.

# %%
layers = extraction.features(model, data.sounds(voxels), device="cpu")
fold_of = data.folds("auto", data.sounds(voxels))
predicted = encoding.nested_cv_ridge(layers, repeated, fold_of, device="cpu")
ax = plt.subplots(figsize=(4.6, 4.2))[1]
for area in np.unique(repeated["roi"]):
    inside = repeated["roi"].data == area
    ax.scatter(mine[inside], predicted["score"].data[inside], s=10, label=area or "not driven")
ax.plot([0, 1], [0, 1], color="0.5", linewidth=1)
ax.set(xlabel="Noise ceiling", ylabel=f"R² of {figures.label(model)}")
legend = ax.legend(loc="upper left")

# %% [markdown]
# ## What to take away
#
# Every step that looked like a detail (whose mean, which fold, chosen on what) can turn noise into
# a result. And an R² without a ceiling says as much about the scanner as about the model. Chapter 2
# does the same with several models, layers and thousands of voxels.
