"""Weighted figures agree with the plain ones and with the reference, and intervals are over clusters."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, f1_score, precision_score, roc_auc_score, roc_curve

from training.bootstrap import Answers, estimate, figures_of, fold_figures, rounded
from training.figures import Figurer
from training.metrics import (
    accuracy,
    cluster_interval,
    expected_calibration_error,
    negative_log_likelihood,
    recalls,
)

COUNT = 600


def drawn_answers(seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return probabilities that know a little, with many ties."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, COUNT)
    scores = random.normal(0, 1, (COUNT, 3))
    scores[np.arange(COUNT), labels] += 1.5
    weights = np.exp(scores.round(1))
    return weights / weights.sum(axis=1, keepdims=True), labels


def answers(seed: int = 1, folds: int = 3, copies: int = 10) -> Answers:
    probabilities, labels = drawn_answers(seed)
    groups = np.arange(COUNT) // copies
    return Answers(probabilities, labels, groups, groups % folds)


def test_unweighted_figures_are_the_plain_ones() -> None:
    """The same definitions as everywhere else."""
    probabilities, labels = drawn_answers()
    figures = Figurer(probabilities, labels).figures(np.ones(COUNT))
    predicted = probabilities.argmax(axis=1)
    assert figures["accuracy"] == pytest.approx(accuracy(probabilities, labels))
    assert figures["lowest_recall"] == pytest.approx(min(recalls(probabilities, labels)))
    assert figures["ece"] == pytest.approx(expected_calibration_error(probabilities, labels))
    assert figures["nll"] == pytest.approx(negative_log_likelihood(probabilities, labels))
    assert figures["precision_lung_aca"] == pytest.approx(
        precision_score(labels, predicted, labels=[1], average="macro")
    )
    assert figures["f1_lung_scc"] == pytest.approx(f1_score(labels, predicted, labels=[2], average="macro"))
    assert figures["macro_auroc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))


def test_the_brier_score_is_the_squared_distance_to_the_truth() -> None:
    """Summed over the classes."""
    probabilities, labels = drawn_answers()
    figures = Figurer(probabilities, labels).figures(np.ones(COUNT))
    by_class = [brier_score_loss(labels == index, probabilities[:, index]) for index in range(3)]
    assert figures["brier"] == pytest.approx(sum(by_class))


def test_the_two_carcinomas_are_compared_among_themselves() -> None:
    """Benign tiles and the benign probability have no say."""
    probabilities, labels = drawn_answers()
    rows = labels > 0
    share = probabilities[rows, 2] / probabilities[rows, 1:].sum(axis=1)
    figures = Figurer(probabilities, labels).figures(np.ones(COUNT))
    assert figures["auroc_aca_against_scc"] == pytest.approx(roc_auc_score(labels[rows] == 2, share))


@pytest.mark.parametrize("percent", [95, 99])
def test_sensitivity_is_read_off_the_curve(percent: int) -> None:
    """The most positives with at most so many false alarms."""
    probabilities, labels = drawn_answers()
    false_alarms, found, _ = roc_curve(labels > 0, 1 - probabilities[:, 0], drop_intermediate=False)
    expected = found[false_alarms <= 1 - percent / 100 + 1e-12].max()
    figures = Figurer(probabilities, labels).figures(np.ones(COUNT))
    assert figures[f"sensitivity_at_{percent}_specificity"] == pytest.approx(expected)


def test_a_weight_is_a_repetition() -> None:
    """Twice the weight is the tile twice, in every figure."""
    probabilities, labels = drawn_answers()
    weights = np.random.default_rng(3).integers(0, 4, COUNT)
    repeated = np.repeat(np.arange(COUNT), weights)
    received = Figurer(probabilities, labels).figures(weights.astype(np.float64))
    expected = Figurer(probabilities[repeated], labels[repeated]).figures(np.ones(len(repeated)))
    for name, value in expected.items():
        assert received[name] == pytest.approx(value), name


def test_coverage_is_what_can_be_answered_with_99_in_100_right() -> None:
    """The surest 100 are right, the others wrong: 101 answers still have 99 in 100."""
    labels = np.zeros(400, np.int64)
    confidence = np.linspace(0.99, 0.6, 400)
    probabilities = np.stack([confidence, 1 - confidence, np.zeros(400)], axis=1)
    probabilities[100:] = probabilities[100:, [1, 0, 2]]
    figures = Figurer(probabilities, labels).figures(np.ones(400))
    assert figures["coverage_at_99_accuracy"] == pytest.approx(101 / 400)


def test_equally_sure_answers_are_given_together_or_not_at_all() -> None:
    """Who always says the same is right about the tiles that come first, but cannot leave the others out."""
    labels = np.repeat([1, 0, 2], 100)
    probabilities = np.tile([0.2, 0.6, 0.2], (300, 1))
    assert Figurer(probabilities, labels).figures(np.ones(300))["coverage_at_99_accuracy"] == 0.0


def test_coverage_counts_in_parts_of_a_cluster_as_in_tiles() -> None:
    """Of 100 clusters of six, 99 are right: all can be answered, though sixths add up to a little less."""
    labels = np.repeat(np.arange(100) == 99, 6).astype(np.int64)
    confidence = np.linspace(0.99, 0.6, 600)
    probabilities = np.stack([confidence, 1 - confidence, np.zeros(600)], axis=1)
    figures = Figurer(probabilities, labels).figures(np.full(600, 1 / 6))
    assert figures["coverage_at_99_accuracy"] == pytest.approx(1.0)


def test_an_estimate_is_the_mean_of_its_folds_and_lies_in_its_interval() -> None:
    """For every figure that has one."""
    estimates, folds = estimate(answers(), draws=100), fold_figures(answers())
    assert len(folds) == 3
    for name, item in estimates.items():
        assert item.value == pytest.approx(np.mean([fold[name] for fold in folds])), name
    accuracy_ = estimates["accuracy"]
    assert accuracy_.low < accuracy_.value < accuracy_.high


def test_copies_make_an_interval_no_narrower() -> None:
    """Ten copies of one answer say as little as one."""
    single = answers(folds=1, copies=1)
    rows = np.repeat(np.arange(COUNT), 10)
    copied = single.only(rows)
    one, ten = (estimate(item, draws=300)["accuracy"] for item in (single, copied))
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.2)


def test_one_cluster_alone_has_no_interval() -> None:
    """All images of one patient say nothing of the next one."""
    one = answers(folds=1, copies=COUNT)
    item = estimate(one, draws=20)["accuracy"]
    assert item.value == pytest.approx(figures_of(one)["accuracy"])
    assert np.isnan([item.low, item.high]).all()
    assert np.isnan(cluster_interval(np.ones(5, bool), np.zeros(5, np.int64))).all()


def test_one_image_per_cluster_counts_each_cluster_once() -> None:
    """A cluster of many right copies outweighs nothing."""
    probabilities = np.tile([0.8, 0.1, 0.1], (11, 1))
    labels = np.array([0] * 10 + [1])
    groups = np.array([0] * 10 + [1])
    both = Answers(probabilities, labels, groups, np.zeros(11, np.int64))
    assert estimate(both, draws=10)["accuracy"].value == pytest.approx(10 / 11)
    assert estimate(both, draws=10, each_group_once=True)["accuracy"].value == pytest.approx(0.5)


def test_a_seed_decides_the_draws() -> None:
    """A card made twice says the same."""
    assert rounded(estimate(answers(), draws=50)) == rounded(estimate(answers(), draws=50))


def test_a_class_without_tiles_is_not_a_number() -> None:
    """And not a zero, nor an error."""
    probabilities, labels = drawn_answers()
    rows = labels < 2
    part = Answers(probabilities[rows], labels[rows], np.arange(rows.sum()), np.zeros(rows.sum(), np.int64))
    assert np.isnan(figures_of(part)["recall_lung_scc"])
    assert np.isfinite(figures_of(part)["accuracy"])
