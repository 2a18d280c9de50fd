"""The study on text: its measure against hand-made cases, and a run from file to page."""

from __future__ import annotations

import gzip
import re
import sys

import numpy as np
import pytest

from scripts import deletion, text_models, text_study

EMPTY = 0


def bag(ids):
    """A network whose second score adds up its tokens' ids; the first is 0."""
    return np.stack([np.zeros(len(ids)), ids.sum(axis=1)], axis=1).astype(float)


IDS = np.array([[2, 5, 1, 3, 0], [2, 4, 4, 0, 0]])
COUNTS = [3, 2]
TARGET = np.array([[0, 1.0], [0, 1.0]])


def test_curves_of_a_sum_are_known():
    first, second = deletion.curves(bag, IDS, COUNTS, TARGET, IDS.astype(float), EMPTY, seed=0)
    assert first.most.tolist() == [11, 6, 3, 2]
    assert first.least.tolist() == [11, 10, 7, 2]
    # Trapezoids over shares 0, 1/3, 2/3, 1 of the difference 0, 4, 4, 0.
    assert first.area == pytest.approx(8 / 3)
    assert second.area == pytest.approx(0)  # equal words


def test_a_wrong_order_counts_negative_and_the_target_is_watched():
    (area, _), (turned, _) = (
        [found.area for found in deletion.curves(bag, IDS, COUNTS, target, -IDS.astype(float), EMPTY, seed=0)]
        for target in (TARGET, np.array([[1.0, -1.0]] * 2))
    )
    assert area == pytest.approx(-8 / 3)
    assert turned == pytest.approx(8 / 3)


def test_only_words_are_deleted():
    seen = []

    def score(ids):
        seen.append(ids)
        return bag(ids)

    deletion.curves(score, IDS, COUNTS, TARGET, np.ones(IDS.shape), EMPTY, seed=0)
    assert (np.concatenate(seen)[:, 0] == 2).all()
    assert len(seen[0]) == 2 * (4 + 3)


def test_words_of_equal_relevance_are_ordered_by_chance():
    ids = np.tile(np.array([[2, 1, 2, 3, 4, 5]]), (400, 1))
    found = deletion.curves(bag, ids, [5] * 400, np.tile(TARGET[:1], (400, 1)), np.zeros(ids.shape), EMPTY, seed=1)
    areas = [curve.area for curve in found]
    assert len(set(areas)) > 10
    assert abs(np.mean(areas)) < 4 * np.std(areas) / 20  # four standard errors around 0


def test_bootstrap_interval_of_a_mean():
    values = np.random.default_rng(2).normal(3, 2, 400)
    mean, low, high = deletion.interval(values, seed=0)
    assert mean == pytest.approx(values.mean())
    expected = 1.96 * values.std() / 20
    # Percentiles of 10,000 resampled means are known to a few percent.
    assert (high - mean, mean - low) == pytest.approx((expected, expected), rel=0.08)
    assert deletion.interval(values, seed=0) == (mean, low, high)


def test_mean_curve_joins_sentences_of_different_length():
    assert deletion.mean_curve([np.array([1.0, 0.0]), np.array([1.0, 1.0, 0.0])], points=3).tolist() == [1, 0.75, 0]


def sentences(count=160):
    random = np.random.default_rng(0)
    for _ in range(count):
        good = bool(random.integers(2))
        filler = list(random.choice(["the", "film", "plot", "is", "of", "<b>"], 5))
        filler.insert(int(random.integers(6)), "great" if good else "awful")
        yield (2.5 if good else -2.5), " ".join(filler)


@pytest.fixture
def file(tmp_path):
    rows = [f"{score}\t{text}" for score, text in [*sentences(), (0.1, "neither here nor there at all")]]
    path = tmp_path / "reviews.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(["score\ttext", *rows]).encode()))
    return path


def test_sentences_are_split_without_a_leak(file):
    texts, scores = text_models.read(file)
    vocabulary, sets = text_models.split(texts, scores, seed=0)
    assert [len(text) for text in sets.values()] == [120, 16, 24]  # the one without a clear sign is left out
    assert vocabulary[:3] == ["[padding]", "[unknown]", "[start]"]
    for text in sets.values():
        for words, ids, label in zip(text.words, text.ids, text.labels, strict=True):
            assert [vocabulary[i] for i in ids[: len(words)]] == [w.lower() for w in words]
            assert (ids[len(words) :] == text_models.PADDING).all()
            assert label == ("great" in words)


@pytest.mark.parametrize("build", [text_models.transformer, text_models.bilstm])
def test_networks_do_not_see_padding(build):
    model = build(20)
    ids = np.zeros((1, text_models.LENGTH), "int32")
    ids[0, :4] = [2, 5, 6, 7]
    before = model.predict(ids, verbose=0)
    weights = model.get_weights()
    weights[0][text_models.PADDING] = np.random.default_rng(0).normal(size=weights[0].shape[1])
    model.set_weights(weights)
    np.testing.assert_allclose(model.predict(ids, verbose=0), before, atol=1e-6)


@pytest.mark.slow
def test_a_run_writes_a_table_and_a_page(file, tmp_path, capsys, monkeypatch):
    arguments = ["text_study", str(file), "--output", str(tmp_path / "out"), "--epochs", "3", "--sentences", "20"]
    monkeypatch.setattr(sys, "argv", arguments)
    text_study.main()
    shown = capsys.readouterr().out
    page = (tmp_path / "out" / "text_study.html").read_text(encoding="utf-8")
    for name, methods in text_study.METHODS.items():
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
        for method in (*methods, text_study.RANDOM):
            # In the table: an area with its interval, for no method a reason to refuse.
            assert re.search(rf"{re.escape(method)}\s+│\s+-?\d+\.\d\d \[", shown), method
            assert f"<td>{method}</td>" in page
        assert f"<h2>{name}: accuracy" in page
    assert page.count("<caption>predicted ") == 2 * text_study.SHOWN
    assert "&lt;</span> <span" in page
    assert "<b>" not in page
    # Words that decide by construction: an order by relevance beats one by chance.
    assert re.search(r"lrp\.cp\s+│ [^│]+│ \+", shown)


def test_a_file_of_another_form_is_refused(tmp_path):
    path = tmp_path / "reviews.tsv"
    path.write_text("label\ttext\n1\tgood\n")
    with pytest.raises(SystemExit, match="score, tab, text"):
        text_models.read(path)


@pytest.mark.parametrize("arguments", [["nowhere.tsv"], ["--sentences", "0"]])
def test_arguments_are_checked(arguments, file, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["text_study", *([str(file)] if len(arguments) > 1 else []), *arguments])
    with pytest.raises(SystemExit, match="2"):
        text_study.parse()
    assert re.search("there is no file|expected at least 1", capsys.readouterr().err)


def test_what_a_method_refuses_is_a_row(file):
    _, sets = text_models.split(*text_models.read(file), seed=0)
    text = text_study.long_enough(sets["test"], 6)
    _, results, refused = text_study.study(text_models.bilstm(20), text, ("attention_rollout",), seed=0)
    assert list(results) == [text_study.RANDOM]
    assert refused == {"attention_rollout": "The model has no attention that could be read."}
