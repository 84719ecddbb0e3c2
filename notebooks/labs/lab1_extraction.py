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
# # Lab 1. Hear, see, extract
#
# A model of hearing takes a waveform and gives numbers. In this lab you compute such numbers
# yourself, from the samples of a sound to one row of a table, and then see that the book's own code
# gives the same.
#
# **You will be able to** say what the level of a sound is; compute a spectrogram and the features
# of a log-mel filter bank; bring two tables into one order by name; standardise features; find out
# what a representation finds alike.
#
# **You need** NumPy indexing and averaging over an axis. You need no signal processing: the
# formulas are given.
#
# **Time** 50 minutes: seven exercises, 15 points.
#
# *How it works.* Write your code in the cells that say so, and run the cell below each: it calls
# your function with new random inputs and says what is wrong. Nothing is lost by trying. Hints are
# folded; open them when you are stuck.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Audio, display

from analysis_lib import data, extraction, figures, labs, rsa
from analysis_lib import models as zoo

figures.use_style()

# %% tags=["parameters"]
profile: str = "demo"  # how real: demo or natsound
sounds: str = "simulated"  # which sounds: simulated or natsound165
dataset: str = "simulated-components"  # responses to these sounds, listed in their own order

# %% [markdown]
# ## 1. Hear
#
# Sounds come by name, each with a category. A waveform is a row of numbers between -1 and 1, so
# many per second; the number per second is the sampling rate. Listen to the first sound of three
# categories before you look at any of them.

# %%
rate = 16_000
heard = data.sounds(sounds)
kinds = list(dict.fromkeys(heard.categories))[:3]
examples = [heard.names[heard.categories.index(kind)] for kind in kinds]
waves = {name: heard.waveform(name, rate) for name in examples}
for name, wave in waves.items():
    print(f"{name}: {len(wave)} samples, from {wave.min():.2f} to {wave.max():.2f}")
    display(Audio(wave, rate=rate))

# %% [markdown]
# How loud is a sound? Its highest sample says little: a click can reach 1 and be over at once. The
# usual measure is the *root mean square* (RMS) of the $n$ samples,
#
# $$\mathrm{rms}(w) = \sqrt{\tfrac1n \sum_t w_t^2}.$$
#
# In the scanner all sounds were presented at the same level, so that loudness could not explain the
# brain's responses.
#
# **Exercise 1 (2 points).** Scale a wave so that its RMS is `level`. Change nothing else.
#
# <details><summary>Hint</summary>
#
# Dividing by the RMS gives a wave with RMS 1. The order of the three words, read backwards, is the
# order of the three operations: square, mean, root.
#
# </details>

# %% exercise="level"
def at_level(wave, level):
    """The wave (n_samples,), scaled to a root mean square of level."""
    ### BEGIN SOLUTION
    return level * wave / np.sqrt(np.mean(wave**2))
    ### END SOLUTION


# %% check="level"
labs.check_level(at_level)

# %% [markdown]
# ## 2. See
#
# The ear does not hear samples, it hears how much energy there is at each frequency, and how that
# changes. A spectrogram says so: cut the sound into short overlapping windows, fade each in and
# out, and take its Fourier transform. Here windows last 25 ms (400 samples) and start every 10 ms
# (160 samples). The fade is the periodic Hann window,
#
# $$h_n = 0.5 - 0.5 \cos(2 \pi n / N), \qquad n = 0, \dots, N - 1.$$
#
# **Exercise 2 (3 points).** The power spectrogram: a row per window, a column per frequency. Only
# windows that lie within the sound count. `np.fft.rfft(piece, n_fft)` pads a piece with zeros to
# `n_fft` samples and transforms it; power is the absolute value squared.
#
# <details><summary>Hint 1</summary>
#
# The windows start at `range(0, len(wave) - window + 1, hop)`. A list of pieces becomes a table
# with `np.array`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `rfft` transforms each row of a table at once, and a Hann window of shape `(window,)` multiplies
# each row.
#
# </details>

# %% exercise="power_spectrogram"
def power_spectrogram(wave, window, hop, n_fft):
    """Power of each window (row) at each frequency (column), (n_windows, n_fft // 2 + 1)."""
    ### BEGIN SOLUTION
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(wave) - window + 1, hop)
    pieces = np.array([wave[start : start + window] for start in starts])
    return np.abs(np.fft.rfft(pieces * hann, n_fft)) ** 2
    ### END SOLUTION


# %% check="power_spectrogram"
labs.check_power_spectrogram(power_spectrogram)

# %% [markdown]
# Now look at the sounds that you heard. Where are the harmonics of a voice, where the beats of a
# machine? Can you tell from the picture which is which?

# %%
fig, axes = plt.subplots(1, len(waves), figsize=(10, 3.2), sharey=True)
for ax, (name, wave) in zip(axes, waves.items(), strict=True):
    power = power_spectrogram(wave, 400, 160, 1024)
    figures.plot_spectrogram(np.log10(power[:, :256] + 1e-8), len(wave) / rate, name, ax)
    ax.label_outer()
label = axes[0].set_ylabel("Frequency (15.6 Hz steps)")

# %% [markdown]
# ## 3. Extract
#
# 513 frequencies are more than the ear tells apart, and at high frequencies it is coarser than at
# low ones. The mel scale models this: overlapping triangles, narrow at low frequencies and wide at
# high ones, add up the power within a band. The triangles of the book's `log-mel` model are in
# `filters`, a column per band.
#
# fMRI is slow. It gives one response per sound, so the model also has to give one row per sound:
# the mean over time. And since hearing follows ratios, not differences, each band's power goes
# through a logarithm **before** that.
#
# **Exercise 3 (3 points).** From a power spectrogram to one number per band: sum the power within
# bands (`power @ filters`), let nothing fall below `1e-10`, take the natural logarithm, average
# over time.
#
# <details><summary>Hint</summary>
#
# `np.maximum(a, 1e-10)` raises what is below. Time runs along the rows, so it is axis 0.
#
# </details>

# %%
filters = zoo.load("log-mel", device="cpu").network.log_mel.filters.numpy().astype(float)
ax = plt.subplots(figsize=(7, 2.6))[1]
ax.plot(np.arange(len(filters)) * rate / 1024, filters[:, ::8])
text = ax.set(xlabel="Frequency (Hz)", ylabel="Weight", title="Every eighth mel band")

# %% exercise="band_features"
def band_features(power, filters):
    """Mean log energy in each band, (n_bands,)."""
    ### BEGIN SOLUTION
    return np.log(np.maximum(power @ filters, 1e-10)).mean(axis=0)
    ### END SOLUTION


# %% check="band_features"
labs.check_band_features(band_features)

# %% [markdown]
# That is a complete feature extractor. Run it over all sounds and hold it against the book's: the
# two tables should agree but for rounding. The book computes with half as many digits, which shows
# where a band holds almost nothing and the logarithm looks closely.

# %%
mine = np.array(
    [
        band_features(power_spectrogram(heard.waveform(name, rate), 400, 160, 1024), filters)
        for name in heard.names
    ]
)
book = extraction.features("log-mel", heard, device="cpu")["log_mel"]
print(f"{mine.shape}, largest difference {np.abs(mine - book.data).max():.1e}")

# %% [markdown]
# **Exercise 4 (1 point).** What does the mean over time lose? Choose the letter.
#
# * a: the level of the sound
# * b: the balance between low and high frequencies
# * c: the order in time: a word and the same word played backwards get the same features
# * d: nothing that matters

# %% exercise="pooling"
### BEGIN SOLUTION
pooling_loses = "c"
### END SOLUTION

# %% check="pooling"
labs.check_pooling(pooling_loses)

# %% [markdown]
# ## 4. Which row is which sound?
#
# The public data sets of this field list the same 165 sounds in different orders. If row 7 of the
# features is a dog and row 7 of the responses a violin, every result is wrong and no program
# complains. The rule of the book: match by name, never by position.
#
# **Exercise 5 (2 points).** The rows of `x` belong to the sounds in the list `names`. Return them
# in the order of the list `wanted`.
#
# <details><summary>Hint</summary>
#
# For each name that is wanted, where does it stand in `names`? `names.index(name)` knows. NumPy
# takes a list of row numbers: `x[[2, 0, 1]]`.
#
# </details>

# %% exercise="in_order"
def in_order(x, names, wanted):
    """Rows of x (one for each of names) in the order of wanted."""
    ### BEGIN SOLUTION
    return x[[names.index(name) for name in wanted]]
    ### END SOLUTION


# %% check="in_order"
labs.check_in_order(in_order)

# %% [markdown]
# In the book tables carry their names with them, and `.sel(sound=...)` does what you just wrote.
# Here are the features in the order of a table of brain responses, your way and the book's.

# %%
wanted = list(data.responses(dataset)["sound"].data)
by_hand = in_order(book.data, list(heard.names), wanted)
print("the same:", np.array_equal(by_hand, book.sel(sound=wanted).data))

# %% [markdown]
# ## 5. One unit, one vote
#
# Units differ in scale: a band that is loud in all sounds has large numbers, and would dominate
# any distance between sounds. Standardising (the *z-score*) gives each unit mean 0 and standard
# deviation 1 **over sounds**. A unit that never changes has deviation 0; it carries nothing, and
# should become 0.
#
# **Exercise 6 (2 points).**
#
# <details><summary>Hint</summary>
#
# Sounds are rows, so both the mean and the deviation are taken along axis 0. For the constant
# units: `np.where(spread > 0, spread, 1)`.
#
# </details>

# %% exercise="zscore"
def zscore(x):
    """Each unit (column) with mean 0 and standard deviation 1 over sounds; constant units 0."""
    ### BEGIN SOLUTION
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)
    ### END SOLUTION


# %% check="zscore"
labs.check_zscore(zscore)

# %% [markdown]
# The picture shows your standardised table, a row per sound, sorted by category. Blocks mean that
# the log-mel features already tell categories apart. And a test against the book: dissimilarities
# that the book standardises itself must equal those of your standardised features.

# %%
z = book.copy(data=zscore(book.data.astype(float)))
ax = figures.plot_activations(z)
alike = np.allclose(rsa.rdm(z, standardize=False), rsa.rdm(book), atol=1e-6)
print("the same dissimilarities:", alike)

# %% [markdown]
# ## 6. What does a representation find alike?
#
# Two sounds are alike, for a representation, if their rows are close. The distance between rows
# $i$ and $j$ is $\sqrt{\sum_u (x_{iu} - x_{ju})^2}$.
#
# **Exercise 7 (2 points).** For each sound, the row number of the sound nearest to it, other than
# itself.
#
# <details><summary>Hint</summary>
#
# `x[:, None] - x` has shape (n, n, units): all differences at once. `np.fill_diagonal` changes a
# matrix where it stands.
#
# </details>

# %% exercise="nearest"
def nearest(x):
    """Row number of each row's nearest other row, (n_sounds,)."""
    ### BEGIN SOLUTION
    distance = np.sqrt(((x[:, None] - x) ** 2).sum(axis=2))
    np.fill_diagonal(distance, np.inf)
    return distance.argmin(axis=1)
    ### END SOLUTION


# %% check="nearest"
labs.check_nearest(nearest)

# %% [markdown]
# Listen to a sound and to its nearest neighbour. Would you have chosen the same? Then the numbers:
# how often does the neighbour share the category, in three representations, and how often would it
# by chance? The last is a network that has never been trained.

# %%
closest = nearest(z.data)
for row in (0, len(heard) // 2):
    print(heard.names[row], "and", heard.names[closest[row]])
    for k in (row, closest[row]):
        display(Audio(heard.waveform(heard.names[k], rate), rate=rate))

# %%
category = np.array(heard.categories)
same = category[:, None] == category
shares = {"chance": (same.sum() - len(same)) / (same.size - len(same))}
for model in ("log-mel", "mfcc", "small-cnn"):
    layers = extraction.features(model, heard, device="cpu")
    x = zscore(layers[layers.layers[-1]].data.astype(float))
    shares[figures.label(model)] = float((category[nearest(x)] == category).mean())
ax = plt.subplots(figsize=(6, 2.4))[1]
ax.barh(list(shares), shares.values())
text = ax.set(xlabel="Nearest neighbour in the same category", xlim=(0, 1))

# %% [markdown]
# ## What to take away
#
# A hand-made filter bank and even a random network put sounds of a category near each other: the
# categories differ in their acoustics. When a trained model predicts the brain, the first question
# is therefore what it adds to *this*. Lab 2 asks how well such rows predict responses.
