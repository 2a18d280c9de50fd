"""Sentences with their classes, and two small networks that learn to tell them: a transformer and a BiLSTM."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

PADDING, UNKNOWN, START = 0, 1, 2
"""Ids that are no words. Padding is masked, so writing it over a word deletes the word."""

LENGTH = 48
NEUTRAL = 0.5
"""Sentences with a smaller absolute score are left out: their readers did not agree on a sign."""

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*|[0-9]+|[^\sa-z0-9]", re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """A set of sentences.

    Attributes:
        words: per sentence, with a start token before them, cut to LENGTH.
        ids: (sentences, LENGTH), int32.
        labels: (sentences,), 1 for a positive score, else 0.
    """

    words: list[list[str]]
    ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Sentences and scores of a file of two columns, score and text, with a line of names; ``.gz`` is unpacked."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8")), delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or {"score", "text"} - set(rows[0]):
        raise SystemExit(f"{path}: expected lines of score, tab, text, under a line with these two names")
    return [row["text"] for row in rows], np.array([float(row["score"]) for row in rows])


def split(sentences: Sequence[str], scores: np.ndarray, seed: int) -> tuple[list[str], dict[str, Text]]:
    """The vocabulary of the training set, and the sets "train" (75 %), "validation" (10 %) and "test" (15 %)."""
    clear = np.flatnonzero(np.abs(scores) >= NEUTRAL)
    order = np.random.default_rng(seed).permutation(clear)
    stops = int(0.75 * len(order)), int(0.85 * len(order))
    parts = dict(zip(("train", "validation", "test"), np.split(order, stops), strict=True))
    words = [["[start]", *_WORD.findall(sentence)][:LENGTH] for sentence in sentences]
    counts = Counter(word.lower() for index in parts["train"] for word in words[index][1:])
    vocabulary = ["[padding]", "[unknown]", "[start]", *sorted(word for word, count in counts.items() if count > 1)]
    number = {word: i for i, word in enumerate(vocabulary)}
    sets = {}
    for name, chosen in parts.items():
        ids = np.full((len(chosen), LENGTH), PADDING, "int32")
        for row, index in zip(ids, chosen, strict=True):
            row[: len(words[index])] = [number.get(word.lower(), UNKNOWN) for word in words[index]]
        sets[name] = Text([words[index] for index in chosen], ids, (scores[chosen] > 0).astype("int32"))
    return vocabulary, sets


@keras.saving.register_keras_serializable("text_study")
class Positions(layers.Layer):
    """Adds a learned vector per position."""

    def build(self, shape: Any) -> None:
        """Makes the vectors."""
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x: Any) -> Any:
        """The sum."""
        return x + self.table


def transformer(vocabulary: int, width: int = 64, heads: int = 4, depth: int = 2) -> keras.Model:
    """A transformer encoder that is read at the start token; two logits."""
    ids = keras.Input((LENGTH,), dtype="int32")
    # Keras' own mask ends behind the first attention; given as an argument, it reaches all of them.
    present = ops.expand_dims(ops.not_equal(ids, PADDING), 1)
    x = layers.Dropout(0.2)(Positions()(layers.Embedding(vocabulary, width)(ids)))
    for _ in range(depth):
        attended = layers.MultiHeadAttention(heads, width // heads, dropout=0.1)(x, x, attention_mask=present)
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(0.2)(attended)]))
        hidden = layers.Dense(width)(layers.Dense(2 * width, "gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(0.2)(hidden)]))
    return keras.Model(ids, layers.Dense(2)(layers.Dropout(0.2)(x[:, 0])), name="transformer")


def bilstm(vocabulary: int, width: int = 64, units: int = 32) -> keras.Model:
    """A bidirectional LSTM, read at both its ends; two logits."""
    ids = keras.Input((LENGTH,), dtype="int32")
    x = layers.Dropout(0.3)(layers.Embedding(vocabulary, width, mask_zero=True)(ids))
    x = layers.Dropout(0.3)(layers.Bidirectional(layers.LSTM(units))(x))
    return keras.Model(ids, layers.Dense(2)(x), name="bilstm")


def train(model: keras.Model, sets: dict[str, Text], epochs: int, seed: int) -> float:
    """Train, keep the weights of the best epoch on the validation set, return the accuracy on the test set.

    In training every tenth word is deleted at random, so that sentences with gaps are nothing new to the network.
    """
    random = np.random.default_rng(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    text, held = sets["train"], sets["validation"]
    best, weights = -1.0, model.get_weights()
    for _ in range(epochs):
        gaps = (random.random(text.ids.shape) < 0.1) & (text.ids != START)
        order = random.permutation(len(text))
        model.fit(np.where(gaps, PADDING, text.ids)[order], text.labels[order], batch_size=64, verbose=0)
        accuracy = model.evaluate(held.ids, held.labels, batch_size=256, verbose=0)[1]
        if accuracy > best:
            best, weights = accuracy, model.get_weights()
    model.set_weights(weights)
    return float(model.evaluate(sets["test"].ids, sets["test"].labels, batch_size=256, verbose=0)[1])
