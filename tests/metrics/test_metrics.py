"""The metrics against plain transcriptions of their formulas, and what they say of wrong arguments."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from kxai import metrics
from kxai.errors import ArgumentError, UnknownNameError
from kxai.explanation import Explanation

# The transcriptions sum in another order; all numbers are of the order of 1.
EXACT = {"rtol": 1e-13, "atol": 1e-14}
RANDOM = np.random.default_rng(0)
RELEVANCE = RANDOM.normal(size=(5, 4, 3, 2))
MASKS = RANDOM.random((5, 4, 3)) < 0.4


def explained(relevance, score=None, base=0.0):
    count = len(next(iter(relevance.values())) if isinstance(relevance, dict) else relevance)
    score = np.ones(count) if score is None else np.asarray(score, float)
    return Explanation(relevance, np.zeros((count, 1)), "sum", score, base=np.full(count, base))


# Transcriptions: one sample at a time, loops


def naive_entropy(values):
    total = sum(abs(v) for v in values)
    return -sum(abs(v) / total * math.log(abs(v) / total) for v in values if v)


def naive_ranks(values):
    """1 + how many are smaller + half of how many others are equal."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def naive_spearman(first, second):
    r, s = naive_ranks(first), naive_ranks(second)
    mean = (len(r) + 1) / 2
    top = sum((a - mean) * (b - mean) for a, b in zip(r, s, strict=True))
    return top / math.sqrt(sum((a - mean) ** 2 for a in r) * sum((b - mean) ** 2 for b in s))


def naive_pooled(channels, pooling):
    return {
        "sum_pos": max(sum(channels), 0.0),
        "sum_abs": abs(sum(channels)),
        "max_abs": max(abs(c) for c in channels),
        "l1": sum(abs(c) for c in channels),
        "l2": math.sqrt(sum(c * c for c in channels)),
        "l2_squared": sum(c * c for c in channels),
    }[pooling]


def naive_accuracies(relevance, mask, pooling):
    pooled = {index: naive_pooled(list(relevance[index]), pooling) for index in np.ndindex(mask.shape)}
    inside = {index for index in pooled if mask[index]}
    order = sorted(pooled, key=lambda index: (-pooled[index], index))
    mass = sum(pooled[index] for index in inside) / sum(pooled.values())
    return mass, len(inside & set(order[: len(inside)])) / len(inside)


# Conservation


def test_residual_is_the_share_of_the_difference():
    explanation = explained(RELEVANCE, score=[1.0, -2.0, 3.0, 4.0, 0.5], base=0.25)
    expected = []
    for one, score in zip(RELEVANCE, explanation.score, strict=True):
        difference = score - 0.25
        expected.append(abs(difference - math.fsum(one.ravel())) / abs(difference))
    np.testing.assert_allclose(metrics.Residual()(explanation).values, expected, **EXACT)


def test_residual_of_a_score_of_zero_is_finite():
    measured = metrics.Residual(epsilon=0.5)(explained(np.array([[1.0, 1.0], [1.0, -1.0]]), score=[0.0, 0.0]))
    assert measured.values.tolist() == [4.0, 0.0]


def test_sums_of_float32_relevance_are_exact():
    # 1 + 2^-24 is 1 in float32, hence a sum in float32 would miss the small values altogether.
    relevance = np.array([[1.0, *[2.0**-24] * 1024]], np.float32)
    assert metrics.Residual()(explained(relevance, score=[1 + 2.0**-14])).values.tolist() == [0.0]


# Complexity


def test_entropy():
    found = metrics.Entropy()(explained(RELEVANCE)).values
    np.testing.assert_allclose(found, [naive_entropy(one.ravel()) for one in RELEVANCE], **EXACT)


def test_entropy_of_known_cases():
    found = metrics.entropy(np.array([[2.0, 2.0, -2.0, 2.0], [0.0, -7.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found, [math.log(4), 0.0, 0.5623351446188083], **EXACT)
    assert math.copysign(1, found[1]) == 1


def test_entropy_does_not_depend_on_scale_or_order():
    # Scaling by powers of two is exact, however far.
    expected = metrics.entropy(RELEVANCE)
    for scale in (2.0**-1000, 2.0**1000, -1.0):
        assert (metrics.entropy(scale * RELEVANCE) == expected).all()
    np.testing.assert_allclose(metrics.entropy(RELEVANCE[:, ::-1, :, ::-1]), expected, **EXACT)


def test_entropy_without_relevance_is_undefined():
    measured = metrics.Entropy()(explained(np.array([[0.0, 0.0], [1.0, 1.0]])))
    assert np.isnan(measured.values).tolist() == [True, False]
    assert (measured.undefined, measured.mean) == (1, math.log(2))


def test_entropy_is_over_all_inputs():
    one = metrics.entropy({"a": RELEVANCE[:, :2], "b": RELEVANCE[:, 2:]})
    np.testing.assert_allclose(one, metrics.entropy(RELEVANCE), **EXACT)


# Correlation


@pytest.mark.parametrize("absolute", [False, True])
def test_spearman_with_ties(absolute):
    first, second = (np.round(2 * RANDOM.normal(size=(6, 5, 4))) for _ in range(2))  # whole numbers: many are equal
    expected = [
        naive_spearman(*(list(abs(v)) if absolute else list(v) for v in (a.ravel(), b.ravel())))
        for a, b in zip(first, second, strict=True)
    ]
    measured = metrics.RankCorrelation(absolute)(explained(first), other=explained(second))
    np.testing.assert_allclose(measured.values, expected, **EXACT)


def test_spearman_of_known_cases():
    rows = np.array([[1.0, 2.0, 3.0, 4.0]] * 3)
    found = metrics.spearman(rows, np.array([[0.0, 0.1, 5.0, 9.0], [4.0, 3.0, 2.0, 1.0], [2.0, 1.0, 4.0, 3.0]]))
    np.testing.assert_allclose(found, [1, -1, 1 - 6 * 4 / (4 * 15)], **EXACT)


def test_spearman_is_of_ranks_alone():
    first, second = RANDOM.normal(size=(2, 4, 10))
    assert (metrics.spearman(np.exp(first), second**3) == metrics.spearman(first, second)).all()


def test_spearman_matrix_is_of_every_two():
    parts = [RANDOM.normal(size=(3, 4, 2)) for _ in range(3)]
    found = metrics.spearman_matrix(parts)
    for i, first in enumerate(parts):
        for j, second in enumerate(parts):
            np.testing.assert_array_equal(found[:, i, j], metrics.spearman(first, second))


def test_spearman_of_constants_is_undefined():
    found = metrics.spearman(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(found, [np.nan, 1.0])


# Localisation


@pytest.mark.parametrize("pooling", metrics.POOLINGS)
def test_mass_and_rank(pooling):
    expected = [naive_accuracies(*pair, pooling) for pair in zip(RELEVANCE, MASKS, strict=True)]
    given = {"masks": MASKS.astype(np.uint8)}
    mass = metrics.RelevanceMass(pooling)(explained(RELEVANCE), **given)
    rank = metrics.RelevanceRank(pooling)(explained(RELEVANCE), **given)
    np.testing.assert_allclose(np.stack([mass.values, rank.values], 1), expected, **EXACT)
    np.testing.assert_allclose(mass.chance, MASKS.reshape(5, -1).mean(axis=1), **EXACT)


def test_relevance_that_is_the_mask_is_accurate():
    relevance = MASKS[..., None].astype(float)
    assert (metrics.mass_accuracy(relevance, MASKS) == 1).all()
    assert (metrics.rank_accuracy(relevance, MASKS) == 1).all()


def test_constant_relevance_is_at_chance():
    found = metrics.mass_accuracy(np.ones((5, 4, 3, 1)), MASKS)
    np.testing.assert_allclose(found, metrics.chance(MASKS), **EXACT)


def test_rank_of_random_relevance_is_at_chance():
    masks = np.zeros((4000, 10), bool)
    masks[:, :4] = True
    found = metrics.rank_accuracy(RANDOM.random((4000, 10)), masks)
    # Five standard errors.
    assert abs(found.mean() - 0.4) < 5 * found.std() / math.sqrt(4000)


def test_equal_positions_rank_by_their_index():
    assert metrics.rank_accuracy(np.ones((2, 4)), np.array([[1, 1, 0, 0], [0, 0, 1, 1]])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("metric", [metrics.RelevanceMass(), metrics.RelevanceRank()])
def test_empty_masks_are_left_out_and_counted(metric):
    relevance = np.array([[3.0, 1.0], [3.0, 1.0], [-1.0, -1.0]])
    measured = metric(explained(relevance), masks=np.array([[1, 0], [0, 0], [1, 0]]))
    assert np.isnan(measured.values).tolist() == [False, True, True]  # no mask; no positive relevance
    assert (measured.undefined, measured.mean) == (2, measured.values[0])
    np.testing.assert_array_equal(measured.chance, [0.5, np.nan, 0.5])


def test_masks_of_one_of_several_inputs():
    relevance = {"image": RELEVANCE, "table": np.ones((5, 2))}
    measured = metrics.RelevanceMass(input="image")(explained(relevance), masks=MASKS)
    assert (measured.values == metrics.mass_accuracy(RELEVANCE, MASKS)).all()
    with pytest.raises(UnknownNameError, match="Unknown input 'text'"):
        metrics.RelevanceMass(input="text")(explained(relevance), masks=MASKS)
    with pytest.raises(ArgumentError, match="several inputs, and none was chosen"):
        metrics.RelevanceRank()(explained(relevance), masks=MASKS)


# All metrics


ALL = {
    metrics.Residual(): {},
    metrics.Entropy(): {},
    metrics.RankCorrelation(): {"other": explained(RELEVANCE**2)},
    metrics.RelevanceMass(): {"masks": MASKS},
    metrics.RelevanceRank(): {"masks": MASKS},
}
each = pytest.mark.parametrize(("metric", "given"), ALL.items(), ids=[metric.name for metric in ALL])


@each
def test_a_batch_is_its_samples_one_by_one(metric, given):
    explanation = explained(RELEVANCE, score=[1.0, -2.0, 3.0, 4.0, 0.5])
    alone = [
        metric(explanation[i], **{name: value[i : i + 1] for name, value in given.items()}).values[0] for i in range(5)
    ]
    measured = metric(explanation, **given)
    assert measured.values.dtype == np.float64
    assert measured.values.tolist() == alone
    assert measured.name == metric.name
    assert measured.config == vars(metric)


@each
def test_what_is_given_must_be_what_is_needed(metric, given):
    with pytest.raises(ArgumentError, match=f"The metric {metric.name} does not take seed"):
        metric(explained(RELEVANCE), **given, seed=0)
    if given:
        (name,) = given
        with pytest.raises(ArgumentError, match=f"The metric {metric.name} needs {name}"):
            metric(explained(RELEVANCE), **{name: None})


def test_metrics_are_frozen_values():
    assert metrics.RankCorrelation(True) == metrics.RankCorrelation(absolute=True) != metrics.RankCorrelation()
    with pytest.raises(AttributeError):
        metrics.Residual().epsilon = 1.0


def test_standard_error():
    measured = metrics.Measurement("m", np.array([1.0, 2.0, np.nan, 6.0]))
    assert measured.mean == 3.0
    assert measured.standard_error == pytest.approx(math.sqrt(7 / 3), rel=1e-14)
    assert repr(measured) == "Measurement('m', samples=4, mean=3, undefined=1)"
    alone = metrics.Measurement("m", np.array([1.0]))
    assert math.isnan(alone.standard_error)
    assert math.isnan(metrics.Measurement("m", np.array([np.nan])).mean)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: metrics.Residual(epsilon=0), r"epsilon is out of range.*\n.*a finite number > 0\n.*0"),
        (lambda: metrics.Residual(epsilon=True), "epsilon is out of range"),
        (lambda: metrics.relative_residual(np.ones(2), np.ones(3)), r"do not fit(.|\n)*\(2,\) and \(3,\)"),
        (lambda: metrics.relative_residual(np.array([np.nan]), np.ones(1)), "not all finite"),
        (lambda: metrics.entropy(np.array([[np.inf]])), "Relevance is not finite"),
        (lambda: metrics.entropy([]), "no relevance of a batch"),
        (lambda: metrics.entropy([np.ones((2, 1)), np.ones((3, 1))]), "no relevance of a batch"),
        (lambda: metrics.spearman_matrix([]), r"do not fit(.|\n)*none"),
        (lambda: metrics.spearman(np.ones((2, 3)), np.ones((2, 4))), r"do not fit(.|\n)*\(2, 3\) and \(2, 4\)"),
        (lambda: metrics.RankCorrelation(absolute="no"), "absolute is a switch"),
        (lambda: metrics.RelevanceMass(pooling="mean"), r"pooling is out of range(.|\n)*'sum_pos'(.|\n)*'mean'"),
        (lambda: metrics.mass_accuracy(RELEVANCE, MASKS[:, :2]), r"do not fit(.|\n)*masks \(5, 2, 3\)"),
        (lambda: metrics.rank_accuracy(RELEVANCE, 2.0 * MASKS), r"Masks say which(.|\n)*with other numbers"),
        (lambda: metrics.chance(np.array(["a"])), "Masks say which positions are meant"),
        (lambda: metrics.Measurement("m", np.ones((2, 2))), r"one number per sample(.|\n)*\(2, 2\)"),
        (lambda: metrics.Measurement("m", np.array([np.inf])), "some infinite"),
        (lambda: metrics.Measurement("m", np.ones(2), chance=np.ones(3)), "chance of a measurement"),
    ],
)
def test_wrong_arguments(wrong, text):
    with pytest.raises(ArgumentError, match=text):
        wrong()


# Odd numbers and odd arguments


@pytest.mark.parametrize("pooling", metrics.POOLINGS)
@pytest.mark.parametrize("power", [-1000, 1000])
def test_accuracies_do_not_depend_on_the_scale(pooling, power):
    # Powers of two are exact, and their squares lie beyond float64.
    for accuracy in (metrics.mass_accuracy, metrics.rank_accuracy):
        expected = accuracy(RELEVANCE, MASKS, pooling)
        np.testing.assert_array_equal(accuracy(np.ldexp(RELEVANCE, power), MASKS, pooling), expected)


def test_correlation_goes_by_the_names_of_inputs():
    one, other = RANDOM.normal(size=(2, 3)), RANDOM.normal(size=(2, 5))
    assert metrics.spearman({"a": one, "b": other}, {"b": other, "a": one}).tolist() == [1.0, 1.0]
    # As many values, yet others.
    for first, second in ((np.ones((1, 2, 3)), np.ones((1, 3, 2))), ({"a": one}, {"b": one}), ([one, other], one)):
        with pytest.raises(ArgumentError, match=r"do not fit|different structure"):
            metrics.spearman(first, second)


def test_no_samples_have_no_numbers():
    none = np.zeros((0, 3))
    assert metrics.entropy(none).shape == metrics.spearman(none, none).shape == (0,)


@pytest.mark.parametrize("relevance", [[["a"]], np.array([[1 + 2j]]), None])
def test_what_is_no_relevance(relevance):
    with pytest.raises(ArgumentError, match=r"This is no relevance of a batch(.|\n)*real numbers"):
        metrics.entropy(relevance)


def test_ragged_masks():
    with pytest.raises(ArgumentError, match="Masks have rows of different lengths"):
        metrics.chance([[1], [1, 0]])


def test_metrics_measure_explanations_alone():
    with pytest.raises(ArgumentError, match=r"measures explanations(.|\n)*ndarray(.|\n)*kxai\.metrics\.entropy"):
        metrics.Entropy()(RELEVANCE)
    with pytest.raises(ArgumentError, match="rank_correlation measures explanations"):
        metrics.RankCorrelation()(explained(RELEVANCE), other=RELEVANCE)


def test_measurements_are_pickled_and_copied():
    measured = metrics.RelevanceMass()(explained(RELEVANCE), masks=MASKS)
    for other in (pickle.loads(pickle.dumps(measured)), copy.deepcopy(measured)):
        np.testing.assert_array_equal(other.values, measured.values)
        np.testing.assert_array_equal(other.chance, measured.chance)
        assert (other.name, other.config) == (measured.name, measured.config)
        assert not other.values.flags.writeable
