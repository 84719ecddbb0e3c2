import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from analysis_lib.errors import DataError, ParameterError, UnknownNameError
from analysis_lib.probes import metrics


@pytest.fixture
def scored():
    """Scores of three probes with many ties, and targets with a never-true class."""
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 12, size=(3, 60, 5)).astype(np.float32))
    targets = torch.from_numpy((rng.random((60, 5)) < 0.3).astype(np.float32))
    targets[:, 4] = 0
    return scores, targets


def test_average_precision_equals_scikit_learn_with_ties(scored):
    scores, targets = scored
    ours = metrics.average_precision(scores, targets)
    for probe in range(3):
        for label in range(4):
            expected = average_precision_score(targets[:, label], scores[probe, :, label])
            assert ours[probe, label] == pytest.approx(expected, abs=1e-12)
    assert torch.isnan(ours[:, 4]).all()
    np.testing.assert_allclose(
        metrics.mean_average_precision(scores, targets), ours[:, :4].mean(dim=1)
    )


def test_auroc_and_d_prime_equal_scikit_learn_with_ties(scored):
    scores, targets = scored
    ours, sensitivity = metrics.auroc(scores, targets), metrics.d_prime(scores, targets)
    for probe in range(3):
        for label in range(4):
            expected = roc_auc_score(targets[:, label], scores[probe, :, label])
            assert ours[probe, label] == pytest.approx(expected, abs=1e-12)
            assert sensitivity[probe, label] == pytest.approx(np.sqrt(2) * norm.ppf(expected))
    assert torch.isnan(ours[:, 4]).all()


def test_d_prime_recovers_the_separation_of_two_gaussians():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40_000, 1, generator=generator)
    targets = (torch.arange(40_000) % 2).float()[:, None]
    assert metrics.d_prime(noise + 1.5 * targets, targets).item() == pytest.approx(1.5, abs=0.04)


def test_top1_and_chroma_accuracy():
    targets = torch.eye(4)
    scores = torch.eye(4)[[0, 1, 3, 2]].repeat(2, 1, 1)
    scores[1] = torch.eye(4)
    assert metrics.top1_accuracy(scores, targets).tolist() == [0.5, 1.0]
    vocabulary = ["48", "49", "50", "62"]  # 50 and 62 are an octave apart
    assert metrics.scene_score("chroma_acc", scores, targets, vocabulary).tolist() == [1.0, 1.0]
    assert metrics.scene_score("pitch_acc", scores, targets, vocabulary).tolist() == [0.5, 1.0]


def test_chroma_needs_pitches_and_metrics_are_found_by_name():
    with pytest.raises(ParameterError, match="MIDI"):
        metrics.scene_score("chroma_acc", torch.eye(2), torch.eye(2), ["dog", "rain"])
    with pytest.raises(UnknownNameError, match="top1_acc"):
        metrics.scene_score("top1", torch.eye(2), torch.eye(2), ["a", "b"])
    with pytest.raises(DataError, match="no clips"):
        metrics.top1_accuracy(torch.zeros(0, 2), torch.zeros(0, 2))


def best_matching(true, guessed, tolerance):
    """Largest matching by exhaustion."""
    if not true:
        return 0
    rest = best_matching(true[1:], guessed, tolerance)
    for k, onset in enumerate(guessed):
        if abs(onset - true[0]) <= tolerance:
            found = 1 + best_matching(true[1:], guessed[:k] + guessed[k + 1 :], tolerance)
            rest = max(rest, found)
    return rest


def test_onset_f_matches_as_many_events_as_possible():
    rng = np.random.default_rng(1)
    for _ in range(30):
        true = sorted(rng.uniform(0, 2, 5).round(2))
        guessed = sorted(rng.uniform(0, 2, 6).round(2))
        hits = best_matching(true, guessed, 0.2 + 1e-9)
        ours = metrics.onset_f(
            {"clip": [("a", t, t + 1) for t in true]},
            {"clip": [("a", t, t + 1) for t in guessed]},
            0.2,
        )
        assert ours == pytest.approx(2 * hits / 11)


def test_onset_f_counts_over_clips_and_classes():
    reference = {"one": [("a", 0.0, 1.0), ("b", 1.0, 2.0)], "two": [("a", 0.5, 1.0)]}
    estimated = {"one": [("a", 0.1, 0.2), ("a", 1.0, 2.0)]}
    assert metrics.onset_f(reference, estimated, 0.2) == pytest.approx(2 * 1 / (3 + 2))
    with pytest.raises(DataError, match="three"):
        metrics.onset_f(reference, {"three": []}, 0.2)


def test_events_are_smoothed_and_short_ones_dropped():
    times = torch.arange(100) * 0.05 + 0.025
    probabilities = torch.zeros(100, 2)
    probabilities[20:40, 0] = 0.9
    probabilities[30, 0] = 0.1  # a hole that the median filter closes
    probabilities[60:62, 1] = 0.9  # shorter than the filter
    events = metrics.events_from_probabilities(probabilities, times, ["a", "b"])
    assert [event[0] for event in events] == ["a"]
    assert events[0][1:] == pytest.approx((1.025, 2.025))
    unsmoothed = metrics.events_from_probabilities(
        probabilities, times, ["a", "b"], median_filter_s=0, min_duration_s=0.2
    )
    assert [event[0] for event in unsmoothed] == ["a", "a"]
