"""Transformers as people build them: every architecture of KerasHub opens, and its relevance can be accounted for.

The networks are tiny and random (scripts/kerashub_models.py); ids end in padding in all samples but the first.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

import kxai
from kxai.graph.graph import Kind
from scripts import kerashub_models, tape

pytestmark = [
    pytest.mark.skipif(not kerashub_models.installed(), reason="KerasHub is not installed"),
    pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning"),  # of T5's own making
]

QUICK = ("Bert", "GPT2", "Gemma", "Llama", "T5", "ViT")
OTHERS = [name for name in kerashub_models.names() if name not in QUICK]
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
# The norms of these compute in float32, whatever the model's precision.
SINGLE = (
    "Gemma",
    "Gemma2",
    "Gemma3",
    "Llama",
    "Llama3",
    "LlamaCausalLM",
    "Mistral",
    "Mixtral",
    "Phi3",
    "Qwen",
    "Qwen3",
)
DECODERS = ("GPT2", "Gemma", "Llama")
COUNT = 3
POSITION = 2  # that kerashub_models.strongest is taken at


@functools.cache  # a network of a few thousand weights, and what several tests ask of it
def built(name, shifts=True):
    model = kerashub_models.build(name, shifts=shifts)
    return model, kerashub_models.sample(model, COUNT, seed=1)


@functools.cache
def explained(composite, name):
    model, x = built(name)
    return kxai.LRP(model, composite).explain(x, target=kerashub_models.strongest, audit=True)


def total(explanation):
    return sum(np.reshape(r, (COUNT, -1)).sum(axis=1) for r in keras.tree.flatten(explanation.relevance))


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_opens_and_the_gradient_is_tensorflows(name):
    model, x = built(name)
    graph = kxai.plan(model, "gradient", x).graph
    closed = [node for node in graph.nodes if node.kind is Kind.OPAQUE and graph.active.intersection(node.outputs)]
    assert not [f"{node.path}: {node.reason}" for node in closed]
    found, expected = tape.both(model, x, tape.weighted_sum)
    assert min(np.abs(slope).max() for slope in expected) > 1e-3, "a vanishing gradient tests nothing"
    # Measured: 6e-7 and 3e-14 at most.
    assert tape.error(found, expected) <= (1e-5 if name in SINGLE else 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_conserving_rules_lose_nothing_without_shifts(name):
    model, x = built(name, shifts=False)
    explanation = kxai.LRP(model, "cp").explain(x, target=kerashub_models.strongest, audit=True)
    assert np.all(np.abs(explanation.score) > 1e-3)
    # Stabilisers take 1e-6 of a denominator at most, and float32 as much: measured 2e-7 at most.
    np.testing.assert_allclose(total(explanation), explanation.score, rtol=1e-5)
    most = max(np.abs(share).max() for share in explanation.absorbed.values())
    assert most <= 1e-5 * np.abs(explanation.score).max()


@pytest.mark.parametrize(
    ("composite", "name"),
    [
        *((composite, name) for composite in ("attn", "cp") for name in QUICK),
        *(pytest.param("attn", name, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_what_is_lost_is_accounted_for(composite, name):
    explanation = explained(composite, name)
    assert all(np.isfinite(r).all() for r in keras.tree.flatten(explanation.relevance))
    assert np.any(total(explanation))
    lost = sum(explanation.absorbed.values())
    # float32 in some networks: measured 1e-7 at most.
    np.testing.assert_allclose(total(explanation) + lost, explanation.score, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in QUICK if name != "ViT"])
@pytest.mark.parametrize("composite", ["attn", "cp"])
def test_padding_and_the_future_have_no_relevance(composite, name):
    (_, x), relevance = built(name), explained(composite, name).relevance
    masks = {key: value for key, value in x.items() if "padding_mask" in key}
    assert all(np.any(mask == 0) for mask in masks.values())
    for key, mask in masks.items():
        assert not np.any(relevance[key.replace("padding_mask", "token_ids")][mask == 0])
    if name in DECODERS:
        assert not np.any(relevance["token_ids"][:, POSITION + 1 :])
        assert np.all(relevance["token_ids"][:, : POSITION + 1])


def test_networks_of_all_kinds_are_there():
    assert set(QUICK) < set(kerashub_models.names())
    assert set(SINGLE) < set(kerashub_models.names())
    assert len(kerashub_models.names()) >= 41


def test_without_shifts_all_that_is_added_is_zero():
    model = kerashub_models.build("GPT2", shifts=False)
    added = [v for v in model.weights if v.name in ("bias", "beta") or "position_embedding" in v.path]
    assert len(added) > 10
    assert not any(np.any(v) for v in added)
