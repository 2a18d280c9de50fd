"""AttnLRP and CP-LRP on whole transformers: equal to their plain definitions, conserving where they should."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.testing.models import seeded
from tests import naive_transformer as naive
from tests.naive_transformer import Value

pytestmark = pytest.mark.usefixtures("double_policy")

SIZE, HEADS, HEAD, TOKENS, WORDS, CLASSES = 6, 4, 3, 5, 11, 3
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [5, 0, 0, 0, 0]])


class Positions(layers.Layer):
    """Adds a learned vector per position."""

    def build(self, shape):
        self.table = self.add_weight(shape=(9, shape[-1]), name="table")

    def call(self, x):
        return x + ops.broadcast_to(self.table[: x.shape[1]], ops.shape(x))


class ExplicitAttention(layers.Layer):
    """Multi-head attention written with operations."""

    def __init__(self, **options):
        super().__init__(**options)
        self.supports_masking = True

    def build(self, shape):
        size = shape[-1]
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_kernel", self.add_weight(shape=(size, HEADS, HEAD), name=f"{name}_kernel"))
        self.output_kernel = self.add_weight(shape=(HEADS, HEAD, size), name="output_kernel")

    def call(self, x, mask=None):
        q, k, v = (ops.einsum("btd,dnh->bnth", x, w) for w in (self.query_kernel, self.key_kernel, self.value_kernel))
        scores = ops.matmul(q, ops.swapaxes(k, -1, -2)) / np.sqrt(HEAD)
        allowed = ops.cast(mask, x.dtype)[:, None, None, :]
        weights = ops.softmax(scores + (1 - allowed) * -1e9)
        return ops.einsum("bnth,nhd->btd", ops.matmul(weights, v), self.output_kernel)


class Gated(layers.Layer):
    """The SwiGLU feed-forward block."""

    def build(self, shape):
        self.up, self.gate, self.down = (layers.Dense(n, use_bias=False) for n in (8, 8, shape[-1]))
        self.up.build(shape)
        self.gate.build(shape)
        self.down.build((*shape[:-1], 8))

    def call(self, x):
        return self.down(self.up(x) * ops.silu(self.gate(x)))


class WrittenRMSNorm(layers.Layer):
    """RMSNorm written with operations, as language models have it."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale


ATTENTION = {
    "fused": lambda: layers.MultiHeadAttention(HEADS, HEAD, name="attention"),
    "explicit": lambda: ExplicitAttention(name="attention"),
    "with scores": lambda: layers.MultiHeadAttention(HEADS, HEAD, dropout=0.1, name="attention"),
    "causal": lambda: layers.MultiHeadAttention(HEADS, HEAD, name="attention"),
    "grouped": lambda: layers.GroupQueryAttention(HEAD, HEADS, 2, name="attention"),
}
NORM = {
    "layer norm": lambda name: layers.LayerNormalization(name=name),
    "rms norm": lambda name: layers.RMSNormalization(name=name),
    "written rms norm": lambda name: WrittenRMSNorm(name=name),
}
MLP = {
    "gelu": lambda: keras.Sequential([layers.Dense(8, "gelu"), layers.Dense(SIZE)], name="mlp"),
    "gated": lambda: Gated(name="mlp"),
}


def transformer(attention="fused", norm="layer norm", mlp="gelu"):
    """One pre-norm block on token ids with padding, class scores from the mean over the tokens that are there."""
    ids = layers.Input((TOKENS,), dtype="int32")
    x = layers.Embedding(WORDS, SIZE, name="embedding")(ids)
    mask = layers.Lambda(lambda ids: ids != 0)(ids)
    x = Positions(name="positions")(x)
    normed = NORM[norm]("norm_1")(x)
    layer = ATTENTION[attention]()
    if attention == "explicit":
        attended = layer(normed, mask=mask)
    else:
        attended = layer(normed, normed, key_mask=mask, value_mask=mask, use_causal_mask=attention == "causal")
    x = layers.Add()([x, attended])
    x = layers.Add()([x, MLP[mlp]()(NORM[norm]("norm_2")(x))])
    pooled = layers.GlobalAveragePooling1D()(x, mask=mask)
    return seeded(keras.Model(ids, layers.Dense(CLASSES, name="head")(pooled)))


def naive_relevance(model, ids, target, method, attention, norm, mlp, gates=None):
    """(scores, relevance per token) by the definitions."""
    w = {weight.path: weight.numpy() for weight in model.weights}

    def get(*parts):
        (found,) = [value for path, value in w.items() if all(part in path for part in parts)]
        return found

    def normalised(x, name):
        if norm == "layer norm":
            return naive.layer_norm(x, get(name, "gamma"), get(name, "beta"), 1e-3)
        return naive.rms_norm(x, get(name, "scale"), 1e-6)

    embedded = Value(get("embedding")[ids])
    x = naive.shift(embedded, get("positions")[:TOKENS])
    h = normalised(x, "norm_1")
    bias = attention in ("fused", "with scores", "causal", "grouped")
    q, k, v = (
        naive.heads(h, get("attention", name, "kernel"), get("attention", name, "bias") if bias else 0.0)
        for name in ("query", "key", "value")
    )
    if attention == "grouped":
        k, v = naive.repeated(k, 2), naive.repeated(v, 2)
    keep = ids != 0
    mask = np.broadcast_to(keep[:, None, None, :], (len(ids), HEADS, TOKENS, TOKENS))
    if attention == "causal":
        mask = mask & np.tri(TOKENS, dtype=bool)
    o = naive.attention(q, k, v, mask, method)
    output = [get("attention/", "output", "kernel"), get("attention/", "output", "bias") if bias else 0.0]
    x = naive.add(x, naive.joined(o, *output))
    h = normalised(x, "norm_2")
    if mlp == "gelu":
        dense = [value for path, value in w.items() if "dense" in path]
        inner = naive.activation(naive.linear(h, *dense[:2]), naive.gelu)
        out = naive.linear(inner, *dense[2:])
    else:
        up, gate, down = (value for path, value in w.items() if path.startswith("mlp"))
        opened = naive.activation(naive.linear(h, gate), naive.silu)
        out = naive.linear(naive.product(naive.linear(h, up), opened, gates), down)
    x = naive.add(x, out)
    logits = naive.linear(naive.mean(x, keep), get("head", "kernel"), get("head", "bias"))
    naive.explain(logits, logits.array * np.eye(CLASSES)[target])
    return logits.array, embedded.relevance.sum(-1)


CASES = [(a, "layer norm", "gelu") for a in ATTENTION] + [
    ("fused", "rms norm", "gated"),
    ("explicit", "written rms norm", "gated"),
    ("grouped", "written rms norm", "gelu"),
]


@pytest.mark.parametrize("method", ["attn", "cp"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_transformer_equals_the_definition(case, method):
    model = transformer(*case)
    explanation = kxai.LRP(model, method).explain(IDS, target=1)
    gates = "signal" if method == "cp" else None
    outputs, relevance = naive_relevance(model, IDS, 1, method, *case, gates)
    # TensorFlow's gelu holds its constants in single precision.
    np.testing.assert_allclose(explanation.outputs, outputs, rtol=1e-7)
    np.testing.assert_allclose(explanation.relevance, relevance, rtol=1e-6, atol=1e-6 * np.abs(relevance).max())


def without_biases(model):
    """The same model; what absorbs relevance is 0."""
    for weight in model.weights:
        if any(part in weight.path for part in ("bias", "beta", "positions")):
            weight.assign(np.zeros(weight.shape))
    return model


@pytest.mark.parametrize("gates", ["signal", "uniform"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_cp_conserves(case, gates):
    explanation = kxai.LRP(without_biases(transformer(*case)), "cp", gates=gates).explain(IDS, target=2)
    # What is missing is what stabilizers of 1e-9 absorb.
    np.testing.assert_allclose(explanation.relevance.sum(1), explanation.score, rtol=1e-6)


def test_gates_of_cp():
    model = transformer("fused", "rms norm", "gated")
    _, signal = naive_relevance(model, IDS, 1, "cp", "fused", "rms norm", "gated", "signal")
    _, uniform = naive_relevance(model, IDS, 1, "cp", "fused", "rms norm", "gated", None)
    assert np.abs(signal - uniform).max() > 1e-3
    for gates, expected in (("signal", signal), ("uniform", uniform)):
        relevance = kxai.LRP(model, "cp", gates=gates).explain(IDS, target=1).relevance
        np.testing.assert_allclose(relevance, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    with pytest.raises(kxai.KxaiError, match="gates is out of range") as caught:
        kxai.LRP(model, "cp", gates="both")
    assert "'signal', 'uniform'" in str(caught.value)


def test_padding_gets_nothing():
    relevance = kxai.LRP(transformer(), "attn").explain(IDS, target=0).relevance
    np.testing.assert_array_equal(relevance[IDS == 0], 0.0)
    assert np.all(relevance[IDS != 0] != 0)


def test_gamma_is_for_affine_layers():
    rules = {rule for _, kind, rule in kxai.plan(transformer(), "lrp.attn", gamma=0.25).rows if kind == "affine"}
    assert rules == {"Gamma(gamma=0.25, epsilon=1e-09, bias=True)"}


def language_model():
    """Two causal blocks with tied embeddings, a distribution over words per position."""
    ids = layers.Input((TOKENS,), dtype="int32")
    table = layers.ReversibleEmbedding(WORDS, SIZE, name="embedding")
    x = table(ids)
    for _ in range(2):
        h = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, HEAD)(h, h, use_causal_mask=True)])
        x = layers.Add()([x, layers.Dense(SIZE)(layers.Dense(8, "gelu")(layers.LayerNormalization()(x)))])
    return seeded(keras.Model(ids, table(x, reverse=True)))


def test_a_generated_token():
    model = language_model()
    position, word = 2, 7
    for method in ("attn", "cp"):
        explanation = kxai.LRP(model, method).explain(IDS, target=(position, word))
        np.testing.assert_allclose(explanation.score, model(IDS)[:, position, word], rtol=1e-6)
        relevance = explanation.relevance
        assert relevance.shape == IDS.shape
        # A causal model cannot have used what comes later.
        np.testing.assert_array_equal(relevance[:, position + 1 :], 0.0)
        assert np.all(relevance[:, : position + 1] != 0)


def test_tied_embeddings_conserve():
    model = without_biases(language_model())
    explanation = kxai.LRP(model, "cp").explain(IDS, target=(4, 3))
    np.testing.assert_allclose(explanation.relevance.sum(1), explanation.score, rtol=1e-6)


def test_other_presets_name_the_ones_for_attention():
    with pytest.raises(kxai.KxaiError, match=r"lrp\.attn and lrp\.cp have one"):
        kxai.plan(transformer(), "lrp.epsilon_plus")
    with pytest.raises(kxai.KxaiError, match=r"lrp\.attn and lrp\.cp have one"):
        kxai.plan(transformer(), "deep_taylor")
