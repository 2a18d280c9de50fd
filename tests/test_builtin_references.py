"""References that kxai makes: blurred, random, shuffled, mean."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

import kxai
from kxai.errors import ArgumentError
from kxai.references import Background, Blur, DinucleotideShuffle, Inputs, Uniform, mean
from kxai.shuffles import dinucleotide_shuffle
from kxai.testing import models


def naive_blur(image, sigma):
    """Pixel by pixel, mirrored at the border."""
    radius = int(np.ceil(4 * sigma))
    for axis in range(image.ndim - 1):
        size = image.shape[axis]
        mirrored = [*range(size), *reversed(range(size))]
        result = np.zeros_like(image)
        total = sum(np.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1))
        for i in range(size):
            for d in range(-radius, radius + 1):
                source = np.take(image, mirrored[(i + d) % (2 * size)], axis)
                np.moveaxis(result, axis, 0)[i] += np.exp(-(d**2) / (2 * sigma**2)) / total * source
        image = result
    return image


@pytest.mark.parametrize("shape", [(7, 6, 2), (9, 3), (3, 4, 5, 1)])
@pytest.mark.parametrize("sigma", [0.3, 1, 2.5])  # the last reaches beyond the mirrored image
def test_blur(shape, sigma):
    images = np.random.default_rng(0).normal(size=(2, *shape))
    found = Blur(sigma)(images)
    for image, blurred in zip(images, found, strict=True):
        np.testing.assert_allclose(blurred, naive_blur(image, sigma), rtol=1e-12, atol=1e-14)
    assert Blur(sigma)(images.astype("float32")).dtype == np.float32
    # A mirrored border neither adds nor takes light.
    np.testing.assert_allclose(
        found.sum(axis=tuple(range(1, len(shape)))), images.sum(axis=tuple(range(1, len(shape))))
    )


def test_uniform_noise_depends_on_seed_and_sample_alone():
    x = np.random.default_rng(0).normal(size=(4, 50)).astype("float32")
    noise = Uniform(-1.0, 3.0, count=40)(x)
    assert noise.shape == (4, 40, 50)
    assert noise.dtype == np.float32
    assert (noise.min(), noise.max()) == pytest.approx((-1, 3), abs=0.02)
    assert abs(noise.mean() - 1) < 4 * 4 / 12**0.5 / 8000**0.5
    np.testing.assert_array_equal(Uniform(-1.0, 3.0, count=40)(x[2:3])[0], noise[2])
    assert not np.array_equal(Uniform(-1.0, 3.0, count=40, seed=1)(x), noise)
    pair = Uniform(0, 1)({"a": x, "b": x})
    assert not np.array_equal(pair["a"], pair["b"])


def pairs(sequence):
    return Counter(zip(map(int, sequence), map(int, sequence[1:]), strict=False))


def test_shuffles_keep_every_pair():
    random = np.random.default_rng(0)
    for length in (0, 1, 2, 3, 30, 500):
        sequence = random.integers(0, 4, length)
        for _ in range(5):
            shuffled = dinucleotide_shuffle(sequence, random)
            assert pairs(shuffled) == pairs(sequence)
            assert Counter(map(int, shuffled)) == Counter(map(int, sequence))
            np.testing.assert_array_equal(shuffled[[0, -1]] if length else [], sequence[[0, -1]] if length else [])
    assert not np.array_equal(shuffled, sequence)


@pytest.mark.parametrize("text", ["ABACABCB", "AABABBA", "ABCABDABC"])
def test_all_shuffles_are_equally_likely(text):
    sequence = np.array([ord(letter) - ord("A") for letter in text])
    every = {
        middle
        for middle in itertools.permutations(map(int, sequence[1:-1]))
        if pairs((sequence[0], *middle, sequence[-1])) == pairs(sequence)
    }
    count, random = 6000, np.random.default_rng(1)
    found = Counter(tuple(map(int, dinucleotide_shuffle(sequence, random)[1:-1])) for _ in range(count))
    assert set(found) == every
    assert len(every) > 1
    share = 1 / len(every)
    for times in found.values():
        assert abs(times / count - share) < 5 * (share * (1 - share) / count) ** 0.5


def test_one_hot_sequences():
    random = np.random.default_rng(2)
    x = np.eye(4, dtype="float32")[random.integers(0, 4, (3, 25))]
    x[0, 5:8] = 0  # any base
    found = DinucleotideShuffle(count=6, seed=3)(x)
    assert found.shape == (3, 6, 25, 4)
    assert found.dtype == np.float32

    def read(one_hot):
        return np.where(one_hot.any(-1), one_hot.argmax(-1), 4)

    for row in range(3):
        assert all(pairs(read(one)) == pairs(read(x[row])) for one in found[row])
    np.testing.assert_array_equal(DinucleotideShuffle(6, 3)(x[1:2])[0], found[1])
    assert not np.array_equal(DinucleotideShuffle(6, 4)(x), found)


def test_mean():
    import tensorflow as tf

    data = {"a": np.random.default_rng(0).normal(size=(7, 3, 2)), "b": np.arange(7.0)[:, None]}
    expected = {name: array.mean(axis=0) for name, array in data.items()}
    for found in (mean(data), mean(tf.data.Dataset.from_tensor_slices((data, np.zeros(7))).batch(3))):
        for name in data:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-14)
    assert mean(np.full((3, 2), 250, "uint8")).tolist() == [250, 250]


def test_as_baselines():
    case = models.sequence()
    one_hot = np.eye(3, dtype="float32")[np.random.default_rng(0).integers(0, 3, (4, 30))]
    for baseline, inputs in (
        (Blur(1.0), case.inputs),
        (Uniform(-1, 1, count=2), case.inputs),
        (mean(case.inputs), case.inputs),
        (DinucleotideShuffle(3), one_hot),
    ):
        ig = kxai.IntegratedGradients(case.model, baseline, 5)
        whole, parts = ig.explain(inputs, 1), ig.explain(inputs, 1, batch_size=3)
        np.testing.assert_allclose(whole.relevance, parts.relevance, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(whole.base, parts.base, rtol=1e-5, atol=1e-6)
        assert type(baseline).__name__ in str(whole.config["hyperparameters"]) or isinstance(baseline, np.ndarray)
    tokens = models.tokens()
    mixed = kxai.IntegratedGradients(tokens.model, Inputs(lambda ids: ids[:, ::-1]), 5, layer="embedding*")
    other = kxai.IntegratedGradients(tokens.model, Inputs(tokens.inputs[:, ::-1]), 5, layer="embedding*")
    np.testing.assert_array_equal(mixed.explain(tokens.inputs).relevance, other.explain(tokens.inputs).relevance)
    assert repr(Background(case.inputs)) == "Background(4 samples)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(0), r"sigma is out of range(.|\n)*a finite number > 0"),
        (lambda: Blur("1"), "sigma is out of range"),
        (lambda: Blur(1.0)(np.zeros((2, 5))), r"There is nothing to blur(.|\n)*\(2, 5\)"),
        (lambda: Uniform(1, 1), r"The range is empty(.|\n)*low < high"),
        (lambda: Uniform(0, 1, count=0), "count is out of range"),
        (lambda: Uniform(0, 1, seed=-1), "seed is out of range"),
        (lambda: DinucleotideShuffle(count=1.5), "count is out of range"),
        (lambda: DinucleotideShuffle()(np.full((1, 5, 4), 0.25)), r"Only one-hot sequences(.|\n)*0\.25"),
        (lambda: DinucleotideShuffle()(np.ones((1, 5, 4))), "Only one-hot sequences"),
        (lambda: DinucleotideShuffle()(np.ones((5, 4))), "Only one-hot sequences"),
        (lambda: mean(np.zeros((0, 3))), "There is no sample"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
