"""Attention methods against plain float64 definitions, and what they refuse."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.errors import ArgumentError, RuleError
from kxai.testing.models import encoder, numbers, seeded, vision_transformer

# --- a transformer in float64: two layers, two heads, all sizes small ----------------------------------------------

TOKENS, WIDTH, HEADS, CLASSES = 5, 6, 2, 3


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def naive_forward(x, weights, pool, attention=None):
    """Logits and attention (layers, heads, q, k) of one sample (tokens, width); given attention replaces its own."""
    *blocks, head = weights
    own = []
    for index, (wq, wk, wv, wo) in enumerate(blocks):
        q, k, v = (np.einsum("td,dnh->nth", x, w) for w in (wq, wk, wv))
        own.append(softmax(np.einsum("nth,nsh->nts", q, k) / np.sqrt(q.shape[-1])))
        a = own[-1] if attention is None else attention[index]
        x = x + np.einsum("nts,nsh,nhd->td", a, v, wo)
    return pool(x) @ head, np.array(own)


def naive_gradient(x, weights, pool, attention, target, step=1e-5):
    """Central differences of the logit with respect to every attention weight, later attention following.

    Attention of a layer is a value that later layers compute from: only one layer is held, those above are computed.
    """
    found = np.zeros_like(attention)
    for place in np.ndindex(*attention.shape):
        values = []
        for sign in (1, -1):
            changed = attention.copy()
            changed[place] += sign * step
            values.append(held(x, weights, pool, changed, place[0])[target])
        found[place] = (values[0] - values[1]) / (2 * step)
    return found


def held(x, weights, pool, attention, layer):
    """Logits with the attention of one layer held, and that of the layers above computed."""
    *blocks, head = weights
    for index, (wq, wk, wv, wo) in enumerate(blocks):
        q, k, v = (np.einsum("td,dnh->nth", x, w) for w in (wq, wk, wv))
        a = attention[index] if index == layer else softmax(np.einsum("nth,nsh->nts", q, k) / np.sqrt(q.shape[-1]))
        x = x + np.einsum("nts,nsh,nhd->td", a, v, wo)
    return pool(x) @ head


def naive_rollout(attention, residual, fuse):
    result = np.eye(attention.shape[-1])
    for a in attention:
        mixed = residual * np.eye(len(result)) + (1 - residual) * fuse(a, axis=0)
        result = (mixed / mixed.sum(axis=-1, keepdims=True)) @ result
    return result


def naive_relevance(attention, gradients):
    result = np.eye(attention.shape[-1])
    for a, g in zip(attention, gradients, strict=True):
        result = result + np.maximum(a * g, 0).mean(axis=0) @ result
    return result


POOLS = {
    "first": (lambda x: x[:, 0], lambda x: x[0], np.eye(TOKENS)[0]),
    "fourth": (lambda x: x[:, 3], lambda x: x[3], np.eye(TOKENS)[3]),
    "some": (lambda x: ops.mean(x[:, 1:3], axis=1), lambda x: x[1:3].mean(0), np.array([0, 0.5, 0.5, 0, 0])),
    "mean": (lambda x: ops.mean(x, axis=1), lambda x: x.mean(0), np.full(TOKENS, 1 / TOKENS)),
}


def transformer(pool, written):
    """The same network with Keras' attention layer, or with operations; its kernels per layer: q, k, v, output."""
    x = inputs = keras.Input((TOKENS, WIDTH), dtype="float64")
    blocks = []
    for index in range(2):
        if written == "layer":
            attend = layers.MultiHeadAttention(HEADS, 3, use_bias=False, dtype="float64", name=f"layer_{index}")
            x = x + attend(x, x)
            blocks.append(attend.weights)
        else:
            projections = [layers.EinsumDense("btd,dnh->bnth", (HEADS, TOKENS, 3), dtype="float64") for _ in range(3)]
            q, k, v = (project(x) for project in projections)
            a = ops.softmax(ops.matmul(q, ops.swapaxes(k, 2, 3)) / np.sqrt(3.0), axis=-1)
            o = layers.EinsumDense("bnth,nhd->btd", (TOKENS, WIDTH), dtype="float64")
            x = x + o(ops.matmul(a, v))
            blocks.append([layer.kernel for layer in (*projections, o)])
    head = layers.Dense(CLASSES, "softmax", use_bias=False, dtype="float64")
    model = keras.Model(inputs, head(POOLS[pool][0](x)))
    random = np.random.default_rng(3)
    for kernel in (*blocks[0], *blocks[1], head.kernel):
        kernel.assign(0.5 * random.normal(size=kernel.shape))
    return model, [*([np.asarray(w) for w in block] for block in blocks), np.asarray(head.kernel)]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(4).normal(size=(3, TOKENS, WIDTH))


@pytest.mark.parametrize("written", ["layer", "operations"])
@pytest.mark.parametrize("pool", POOLS)
def test_both_methods_are_their_definitions(pool, written, x):
    model, weights = transformer(pool, written)
    _, naive_pool, rows = POOLS[pool]
    rolled = kxai.AttentionRollout(model).explain(x, 1)
    found = kxai.AttentionRelevance(model).explain(x, 1)
    for sample in range(len(x)):
        logits, attention = naive_forward(x[sample], weights, naive_pool)
        np.testing.assert_allclose(softmax(logits), rolled.outputs[sample], rtol=1e-6)
        expected = rows @ naive_rollout(attention, 0.5, np.mean)
        # Of TensorFlow's float32 program nothing but rounding may differ.
        np.testing.assert_allclose(rolled.heatmap()[sample], expected, atol=1e-6)
        gradients = naive_gradient(x[sample], weights, naive_pool, attention, 1)
        expected = rows @ naive_relevance(attention, gradients)
        np.testing.assert_allclose(found.heatmap()[sample], expected, rtol=1e-5)
        assert np.ptp(found.relevance[sample], axis=-1).max() == 0  # a token's values share its relevance equally


@pytest.mark.parametrize(("residual", "heads"), [(0.0, "mean"), (0.5, "min"), (0.9, "max")])
def test_rollout_fuses_heads(heads, residual, x):
    model, weights = transformer("mean", "layer")
    analyzer = kxai.AttentionRollout(model, residual, heads, per="token")
    relevance = analyzer.explain(x).relevance
    assert relevance.shape == (len(x), TOKENS)
    for sample in range(len(x)):
        _, attention = naive_forward(x[sample], weights, POOLS["mean"][1])
        expected = naive_rollout(attention, residual, {"mean": np.mean, "min": np.min, "max": np.max}[heads]).mean(0)
        np.testing.assert_allclose(relevance[sample], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "rows"),
    [("first", np.eye(TOKENS)[0]), ("last", np.eye(TOKENS)[-1]), (2, np.eye(TOKENS)[2]), (-2, np.eye(TOKENS)[3]),
     ("mean", np.full(TOKENS, 1 / TOKENS))],
)  # fmt: skip
def test_a_row_can_be_chosen(row, rows, x):
    model, weights = transformer("first", "layer")
    relevance = kxai.AttentionRollout(model, row=row, per="token").explain(x).relevance
    for sample in range(len(x)):
        _, attention = naive_forward(x[sample], weights, POOLS["first"][1])
        np.testing.assert_allclose(relevance[sample], rows @ naive_rollout(attention, 0.5, np.mean), atol=1e-6)


def test_rollout_does_not_depend_on_the_target_and_relevance_does(x):
    model, _ = transformer("mean", "layer")
    analyzers = kxai.AttentionRollout(model), kxai.AttentionRelevance(model)
    same, other = (np.abs(a.explain(x, 0).relevance - a.explain(x, 2).relevance).max() for a in analyzers)
    assert same == 0
    assert other > 0.01


def test_the_row_of_a_decoder_is_the_explained_position():
    ids = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(9, 4)(ids)
    x = embedded + layers.MultiHeadAttention(2, 3, name="causal")(embedded, embedded, use_causal_mask=True)
    x = x + layers.MultiHeadAttention(2, 3, name="causal_2")(x, x, use_causal_mask=True)
    model = seeded(keras.Model(ids, layers.Dense(9)(x)))
    tokens = np.array([[1, 5, 2, 8, 3, 4]])
    explanation = kxai.AttentionRollout(model).explain(tokens, (3, 7))
    chosen = kxai.AttentionRollout(model, row=3).explain(tokens, (3, 7))
    np.testing.assert_array_equal(explanation.relevance, chosen.relevance)
    assert (explanation.relevance[0, :4] > 0).all()
    assert (explanation.relevance[0, 4:] == 0).all()  # the future


def test_padding_is_not_read():
    ids = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(ids)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 3)(x, x)])
    model = seeded(keras.Model(ids, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))))
    for method in ("attention_rollout", "attention_relevance"):
        relevance = kxai.explain(model, np.array([[3, 5, 8, 0, 0, 0]]), method, target=0).relevance[0]
        assert (relevance[:3] > 0).all()
        assert (relevance[3:] == 0).all(), method


def test_patches_of_an_image_keep_their_sum():
    case = vision_transformer()
    for analyzer in (kxai.AttentionRollout, kxai.AttentionRelevance):
        whole = analyzer(case.model).explain(case.inputs, 1).relevance
        tokens = analyzer(case.model, per="token").explain(case.inputs, 1).relevance
        assert tokens.shape == (4, 7)  # the class token first
        pixels = whole.reshape(4, 2, 2, 3, 2, 3).sum(axis=(2, 4, 5)).reshape(4, 6)
        np.testing.assert_allclose(pixels, tokens[:, 1:], rtol=1e-5, atol=1e-9)


def test_of_several_token_inputs_the_vocabulary_gets_the_relevance():
    ids = {name: keras.Input((5,), dtype="int32", name=name) for name in ("segments", "words")}
    x = layers.Embedding(2, 4)(ids["segments"]) + layers.Embedding(30, 4)(ids["words"])
    x = x + layers.MultiHeadAttention(2, 3)(x, x)
    model = seeded(keras.Model(ids, layers.Dense(2)(x[:, 0])))
    given = {"segments": np.array([[0, 0, 1, 1, 1]]), "words": np.array([[1, 7, 29, 3, 2]])}
    for per in ("input", "token"):
        relevance = kxai.AttentionRollout(model, per=per).explain(given).relevance
        np.testing.assert_allclose(relevance["words"].sum(), 1, rtol=1e-6)
        assert (relevance["segments"] == 0).all()
        assert relevance["segments"].shape == (1, 5)


def test_only_attention_that_the_target_depends_on_counts():
    x = keras.Input((5, 4), name="x")
    first = x + layers.MultiHeadAttention(1, 3, name="first")(x, x)
    second = first + layers.MultiHeadAttention(1, 3, name="second")(first, first)
    heads = {name: layers.Dense(2, name=name)(h[:, 0]) for name, h in (("low", first), ("high", second))}
    both = seeded(keras.Model(x, heads))
    low = keras.Model(x, both.outputs[list(both.output_names).index("low")])
    inputs = numbers(5, 4)
    alone = kxai.AttentionRollout(low).explain(inputs, 0).relevance
    np.testing.assert_allclose(kxai.AttentionRollout(both).explain(inputs, {"low": 0}).relevance, alone, atol=1e-7)
    assert np.abs(kxai.AttentionRollout(both).explain(inputs, {"high": 0}).relevance - alone).max() > 1e-3


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(model, *parts, inputs=None):
    with pytest.raises(RuleError) as caught:
        kxai.plan(model, "attention_rollout") if inputs is None else kxai.AttentionRollout(model).explain(inputs)
    for part in parts:
        assert re.search(part, str(caught.value)), f"{part!r} is not in {caught.value}"


def test_no_attention():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    refused(model, "no attention that could be read", "gradient method")


def test_cross_attention():
    source, query = keras.Input((5, 4), name="source"), keras.Input((5, 4), name="query")
    attended = layers.MultiHeadAttention(2, 3, name="cross")(query, source)
    model = keras.Model([source, query], layers.Dense(2)(attended))
    refused(model, "'cross/dot_product_attention/softmax'", "cross-attention", "query; source; source")


def test_fewer_queries_than_keys():
    x = keras.Input((5, 4))
    attended = layers.MultiHeadAttention(2, 3, name="pool")(x[:, :1], x)
    model = keras.Model(x, layers.Dense(2)(attended[:, 0]))
    refused(model, "'pool/dot_product_attention/softmax'", "not the same tokens", r"\(None, 2, 1, 5\)")


def test_other_tokens_in_the_next_layer():
    x = keras.Input((6, 4))
    first = layers.AveragePooling1D(2)(layers.MultiHeadAttention(2, 3, name="fine")(x, x))
    model = keras.Model(x, layers.Dense(2)(layers.MultiHeadAttention(2, 3, name="coarse")(first, first)[:, 0]))
    refused(model, r"fine.* \(6, 6\); coarse.* \(3, 3\)", inputs=numbers(6, 4))


def test_windows():
    x = keras.Input((8, 4))
    windows = ops.reshape(x, (-1, 4, 4))
    attended = layers.MultiHeadAttention(2, 3, name="window")(windows, windows)
    model = keras.Model(x, layers.Dense(2)(ops.reshape(attended, (-1, 8, 4))[:, 0]))
    refused(model, "within windows", "2 windows per sample")


@pytest.mark.parametrize("axes", [(2,), (1, 2)])
def test_positions_in_a_plane(axes):
    x = keras.Input((4, 4, 3))
    attended = layers.MultiHeadAttention(2, 3, attention_axes=axes, name="axial")(x, x)
    refused(
        keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(attended))), "axial", "along one of several axes"
    )


def test_grouped_heads():
    """Two heads of queries share one head of keys and values: the same as keys and values that are repeated."""
    x = keras.Input((5, 4))
    models = []
    for layer in (layers.GroupQueryAttention(3, 2, 1), layers.MultiHeadAttention(2, 3)):
        models.append(keras.Model(x, layers.Dense(2)(layer(x, x)[:, 0])))
    seeded(models[0])
    weights = [w.numpy() for w in models[0].weights]
    repeat = (w if i not in (2, 3, 4, 5) else np.repeat(w, 2, axis=-2) for i, w in enumerate(weights))
    models[1].set_weights(list(repeat))
    inputs = numbers(5, 4)
    for method in ("attention_rollout", "attention_relevance"):
        one, two = (kxai.explain(model, inputs, method, target=1).relevance for model in models)
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_softmax_over_the_queries():
    x = keras.Input((5, 4))
    q, k, v = (layers.Dense(3)(x) for _ in range(3))
    a = layers.Softmax(axis=1, name="slots")(ops.matmul(q, ops.transpose(k, (0, 2, 1))))
    model = keras.Model(x, layers.Dense(2)(ops.matmul(a, v)[:, 0]))
    refused(model, "'slots'", "does not run over the keys")


def test_tokens_without_a_place():
    x = keras.Input((7, 4))
    mixed = layers.Permute((2, 1))(layers.Dense(40)(layers.Permute((2, 1))(x)))  # 40 tokens from 7 steps
    model = seeded(keras.Model(x, layers.Dense(2)(layers.MultiHeadAttention(2, 3)(mixed, mixed)[:, 0])))
    refused(model, "The 40 tokens of attention cannot be assigned", 'per="token"', inputs=numbers(7, 4))
    assert kxai.AttentionRollout(model, per="token").explain(numbers(7, 4)).relevance.shape == (4, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row": "cls"}, "row is no row of attention"),
        ({"row": True}, "row is no row of attention"),
        ({"per": "patch"}, "per is out of range"),
        ({"residual": 1.0}, "residual is out of range"),
        ({"residual": "half"}, "residual is out of range"),
        ({"heads": "sum"}, "heads is out of range"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        kxai.AttentionRollout(encoder().model, **arguments)


def test_a_row_must_exist():
    case = encoder()
    with pytest.raises(ArgumentError, match=r"row is not a token's position(.|\n)*-7 to 6(.|\n)*7"):
        kxai.AttentionRollout(case.model, row=7).explain(case.inputs)
