"""The last feature map of an input is found in models of every structure."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.errors import ArgumentError, RuleError, UnknownNameError
from kxai.graph.feature_maps import explained_part, feature_maps
from kxai.testing import models


def maps(model, layer=None, x=None):
    """(path, axes per input, sizes, channels) of what is found."""
    graph = kxai.GradCAM(model).plan(x).graph
    found = feature_maps(explained_part(graph, graph.explained), layer)
    return [(one.path, dict(one.inputs), one.sizes, one.channels) for one in found]


def image(*head, size=(8, 6, 3)):
    x = keras.Input(size)
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    for layer in head:
        y = layer(y)
    return keras.Model(x, y)


HEADS = {
    "global pooling": [layers.GlobalAveragePooling2D(), layers.Dense(2)],
    "flatten": [layers.Flatten(), layers.Dense(2)],
    "a mean": [lambda y: ops.mean(y, axis=(1, 2)), layers.Dense(2)],
    "a mean that keeps axes": [
        lambda y: ops.mean(y, axis=(1, 2), keepdims=True),
        layers.Conv2D(2, 1),
        layers.Flatten(),
    ],
    "reshape": [layers.Reshape((-1,)), layers.Dense(2)],
    "tokens": [layers.Reshape((48, 4)), layers.GlobalMaxPooling1D(), layers.Dense(2)],
    "a convolution over all positions": [
        layers.Conv2D(5, (8, 6), activation="relu"),
        layers.Flatten(),
        layers.Dense(2),
    ],
    "single positions": [lambda y: y[:, 3, 2], layers.Dense(2)],
    "dropout": [layers.Dropout(0.5), layers.GlobalMaxPooling2D(), layers.Dense(2)],
    "a decoder": [
        layers.Flatten(),
        layers.Dense(48),
        layers.Reshape((8, 6, 1)),
        layers.Conv2D(2, 3, activation="relu"),
        layers.Flatten(),
    ],
}


@pytest.mark.parametrize("name", HEADS)
def test_maps_end_where_positions_are_joined(name):
    assert maps(image(*HEADS[name])) == [("conv/relu", {0: (1, 2)}, (8, 6), 4)]


def squeeze_and_excitation(y):
    gate = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D()(y))
    return layers.Multiply(name="scaled")([y, layers.Reshape((1, 1, 4))(gate)])


def residual(y):
    branch = layers.Conv2D(4, 3, padding="same")(layers.BatchNormalization()(y))
    return layers.Add(name="sum")([y, branch])


def shuffled(y):
    y = ops.transpose(layers.Reshape((8, 6, 2, 2))(y), (0, 1, 2, 4, 3))
    return layers.Activation("tanh", name="shuffled")(layers.Reshape((8, 6, 4))(y))


def turned(y):
    return layers.Permute((3, 2, 1), name="turned")(y)


BODIES = {
    "squeeze and excitation": (squeeze_and_excitation, ("scaled", {0: (1, 2)}, (8, 6), 4)),
    "residual": (residual, ("sum", {0: (1, 2)}, (8, 6), 4)),
    "joined": (
        lambda y: layers.Concatenate(name="joined")([y, layers.Conv2D(2, 1)(y)]),
        ("joined", {0: (1, 2)}, (8, 6), 6),
    ),
    "pooled": (layers.MaxPooling2D(2, name="pool"), ("pool", {0: (1, 2)}, (4, 3), 4)),
    "shuffled channels": (shuffled, ("shuffled/tanh", {0: (1, 2)}, (8, 6), 4)),
    "axes turned": (turned, ("turned", {0: (1, 2)}, (8, 6), 4)),
}


@pytest.mark.parametrize("name", BODIES)
def test_branches_that_come_back_are_no_end(name):
    body, expected = BODIES[name]
    (found,) = maps(image(body, layers.Flatten(), layers.Dense(2)))
    assert (found[0].removesuffix("/tanh"), *found[1:]) == (expected[0].removesuffix("/tanh"), *expected[1:])


def test_axes_that_were_turned_are_turned_back():
    plain, other = (image(*body, layers.Flatten(), layers.Dense(2)) for body in ((), (turned,)))
    x = models.numbers(8, 6, 3)
    models.seeded(plain)
    kernel, bias, dense, last = plain.get_weights()
    dense = dense.reshape(8, 6, 4, 2).transpose(2, 1, 0, 3).reshape(-1, 2)
    other.set_weights([kernel, bias, dense, last])
    for method in (kxai.GradCAM, kxai.HiResCAM, kxai.ScoreCAM, kxai.AblationCAM, kxai.EigenCAM):
        one, two = (method(model).explain(x, 1) for model in (plain, other))
        np.testing.assert_allclose(one.relevance, two.relevance, rtol=1e-4, atol=1e-6)
        assert np.abs(one.relevance).max() > 0


def test_positions_of_size_one_are_no_map():
    small = image(layers.MaxPooling2D((8, 6), name="pool"), layers.Flatten(), layers.Dense(2))
    assert maps(small)[0][0] == "conv/relu"


def test_the_logits_of_dense_predictions_are_no_map():
    assert maps(models.transposed().model)[0][0].startswith("concatenate")
    head = [layers.Conv2D(3, 1, name="logits"), layers.UpSampling2D(2), layers.Softmax()]
    model = image(*head)
    assert maps(model)[0][0] == "conv/relu"
    assert maps(model, "logits")[0][0] == "logits"
    kept = kxai.GradCAM(model, strip_softmax=False).explain(models.numbers(8, 6, 3), (2, 3, 1))
    assert list(kept.layers) == ["conv/relu"]


def test_channels_first():
    def build(order):
        x = keras.Input((3, 8, 6) if order == "channels_first" else (8, 6, 3))
        y = layers.Conv2D(4, 3, strides=2, activation="relu", data_format=order, name="conv")(x)
        return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D(data_format=order)(y)))

    first, last = build("channels_first"), build("channels_last")
    first.set_weights(models.seeded(last).get_weights())
    x = models.numbers(8, 6, 3)
    assert maps(first) == [("conv/relu", {0: (2, 3)}, (3, 2), 4)]
    for name in ("cam", "grad_cam", "score_cam", "ablation_cam", "opti_cam", "guided_grad_cam"):
        expected = kxai.create_analyzer(name, last).explain(x, 1)
        found = kxai.create_analyzer(name, first).explain(x.transpose(0, 3, 1, 2), 1)
        relevance = found.relevance if name != "guided_grad_cam" else found.relevance.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(relevance, expected.relevance, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.layers["conv/relu"], expected.layers["conv/relu"], rtol=1e-4, atol=1e-6)
        assert np.abs(relevance).max() > 0


def test_images_without_a_channel_axis():
    x = keras.Input((8, 6))
    y = layers.Conv2D(4, 3, name="conv")(layers.Reshape((8, 6, 1))(x))
    model = models.seeded(keras.Model(x, layers.Dense(2)(layers.Flatten()(y))))
    assert maps(model) == [("conv", {0: (1, 2)}, (6, 4), 4)]
    for name in ("grad_cam", "score_cam", "opti_cam"):
        found = kxai.create_analyzer(name, model).explain(models.numbers(8, 6), 1)
        assert found.relevance.shape == (4, 8, 6, 1)
        assert found.heatmap().shape == (4, 8, 6)
    assert kxai.GuidedGradCAM(model).explain(models.numbers(8, 6), 1).relevance.shape == (4, 8, 6)


def test_sequences_tokens_and_states():
    assert maps(models.sequence().model, x=models.sequence().inputs)[0][1:] == ({0: (1,)}, (7,), 4)
    case = models.tokens()
    found = kxai.GradCAM(case.model).explain(case.inputs)
    assert found.relevance.shape == (4, 7, 1)
    assert found.relevance.max() > 0
    case = models.gru()
    (path,) = kxai.GradCAM(case.model).explain(case.inputs).layers
    assert path.startswith("gru")


def test_images_over_time():
    x = keras.Input((3, 8, 6, 2))
    y = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu", name="conv"))(x)
    y = layers.TimeDistributed(layers.GlobalAveragePooling2D())(y)
    model = models.seeded(keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y))))
    video = models.numbers(3, 8, 6, 2)
    ((path, inputs, sizes, channels),) = maps(model)
    assert (inputs, sizes, channels) == ({0: (1, 2, 3)}, (3, 6, 4), 4)
    conv = model.layers[1].layer
    a = np.maximum(np.asarray(conv(video.reshape(-1, 8, 6, 2))), 0).reshape(4, 3, 6, 4, 4)
    kernel = np.asarray(model.layers[-1].kernel)[:, 1]
    for name, factor in (("grad_cam", 1 / 72), ("hires_cam", 1 / 72)):
        found = kxai.create_analyzer(name, model, relu=False).explain(video, 1).layers[path]
        np.testing.assert_allclose(found[..., 0], a @ kernel * factor, rtol=1e-4, atol=1e-7)
    ablated = kxai.AblationCAM(model, relu=False).explain(video, 1)
    weights = a.mean(axis=(1, 2, 3)) * kernel / np.abs(ablated.score)[:, None]
    expected = np.einsum("btijk,bk->btij", a, weights)
    np.testing.assert_allclose(ablated.layers[path][..., 0], expected, rtol=1e-3, atol=1e-5)
    assert ablated.relevance.shape == (4, 3, 8, 6, 1)


def test_sizes_that_the_model_leaves_open():
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(4, 3, strides=2, name="conv")(x)
    model = models.seeded(keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y))))
    analyzer = kxai.GradCAM(model)
    for size in ((8, 6), (11, 9)):
        assert analyzer.explain(models.numbers(*size, 3), 1).relevance.shape == (4, *size, 1)


# Several inputs.


def encoder():
    stack = [layers.Conv2D(4, 3, activation="relu", name="conv"), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((8, 6, 3)), *stack], name="encoder")


def siamese(shared=True):
    one, two = keras.Input((8, 6, 3), name="one"), keras.Input((8, 6, 3), name="two")
    left = encoder()
    right = left if shared else keras.models.clone_model(left)
    distance = layers.Subtract()([left(one), right(two)])
    return models.seeded(keras.Model([one, two], layers.Dense(1)(distance)))


def test_a_shared_encoder_has_a_map_per_input():
    model = siamese()
    x = [models.numbers(8, 6, 3), models.numbers(8, 6, 3, seed=5)]
    found = kxai.GradCAM(model, relu=False).explain(x)
    assert list(found.layers) == ["encoder/conv/relu", "encoder#2/conv/relu"]
    a = [np.maximum(np.asarray(model.get_layer("encoder").layers[0](one)), 0) for one in x]
    kernel = np.asarray(model.layers[-1].kernel)[:, 0]
    for sign, one, path in zip((1, -1), a, found.layers, strict=True):
        np.testing.assert_allclose(found.layers[path][..., 0], sign * one @ kernel / 24, rtol=1e-4, atol=1e-6)
    conv = model.get_layer("encoder").get_layer("conv")
    for layer in (conv, "encoder*/conv/relu"):
        again = kxai.GradCAM(model, layer, relu=False).explain(x)
        for one, two in zip(found.relevance, again.relevance, strict=True):
            np.testing.assert_array_equal(one, two)
    half = kxai.GradCAM(model, "encoder/conv").explain(x)
    assert half.config["notes"][-1] == "no map lies on input 'two': its relevance is 0"
    assert half.relevance[1].shape == (4, 8, 6, 3)
    assert np.abs(half.relevance[0]).max() > 0
    assert not half.relevance[1].any()


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam", "opti_cam", "guided_grad_cam"])
def test_every_method_explains_pairs(name):
    x = [models.numbers(8, 6, 3), models.numbers(8, 6, 3, seed=5)]
    analyzer = kxai.create_analyzer(name, siamese(), **({"num_steps": 5} if name == "opti_cam" else {}))
    found = analyzer.explain(x)
    assert [r.shape for r in found.relevance] == [(4, 8, 6, 3 if name == "guided_grad_cam" else 1)] * 2
    assert len(found.layers) == 2


def test_tables_have_no_map():
    picture, table = keras.Input((8, 6, 3), name="picture"), keras.Input((5,), name="table")
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(picture))
    joined = layers.Concatenate()([y, layers.Dense(4)(table)])
    inputs = {"picture": picture, "table": table}
    model = models.seeded(keras.Model(inputs, layers.Dense(2)(joined)))
    x = {"picture": models.numbers(8, 6, 3), "table": models.numbers(5)}
    for name in ("grad_cam", "score_cam", "ablation_cam", "guided_grad_cam"):
        found = kxai.create_analyzer(name, model).explain(x)
        assert found.relevance["table"].shape == (4, 5)
        assert not found.relevance["table"].any()
        assert found.relevance["picture"].shape[:3] == (4, 8, 6)
        assert "no map lies on input 'table': its relevance is 0" in found.config["notes"]
    assert found.heatmap("picture").shape == (4, 8, 6)


@pytest.mark.parametrize("axis", [-1, 1], ids=["channels", "rows"])
def test_inputs_that_are_joined_share_the_map(axis):
    one, two = keras.Input((8, 6, 3), name="one"), keras.Input((8, 6, 2 if axis == -1 else 3), name="two")
    y = layers.Conv2D(4, 3, name="conv")(layers.Concatenate(axis=axis)([one, two]))
    model = keras.Model([one, two], layers.Dense(2)(layers.Flatten()(y)))
    if axis == -1:
        assert maps(model) == [("conv", {0: (1, 2), 1: (1, 2)}, (6, 4), 4)]
    else:  # the rows of the map are those of two images
        with pytest.raises(RuleError, match="no feature map"):
            maps(model)


def test_the_map_is_that_of_the_explained_output():
    x = keras.Input((8, 6, 3))
    y = layers.Conv2D(4, 3, activation="relu", name="trunk")(x)
    outputs = {
        name: layers.Dense(2, name=name)(layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1, name=f"{name}_conv")(y)))
        for name in ("one", "two")
    }
    model = models.seeded(keras.Model(x, outputs))
    x = models.numbers(8, 6, 3)
    for name in ("one", "two"):
        assert list(kxai.GradCAM(model).explain(x, {name: 1}).layers) == [f"{name}_conv"]
    both = {"one": 1, "two": 0}
    assert list(kxai.GradCAM(model).explain(x, both).layers) == ["trunk/relu"]
    assert list(kxai.GradCAM(model, "trunk").explain(x, both).layers) == ["trunk/relu"]
    with pytest.raises(ArgumentError, match="do not depend on this layer"):
        kxai.GradCAM(model, "two_conv").explain(x, "one")


def test_branches_that_end_apart():
    x = keras.Input((8, 6, 3))

    def columns(y):
        parts = [layers.GlobalMaxPooling2D()(layers.Conv2D(3, size, name=f"conv{size}")(y)) for size in (1, 3)]
        return keras.Model(x, layers.Dense(2)(layers.Concatenate()(parts)))

    assert maps(columns(layers.Conv2D(4, 3, activation="relu", name="trunk")(x)))[0][0] == "trunk/relu"
    with pytest.raises(ArgumentError, match=r"ends in 2 feature maps of input(.|\n)*conv3, conv1(.|\n)*layer="):
        maps(columns(x))


# What has none.


def test_models_without_maps_are_refused():
    for case in (models.mlp(), models.list_inputs()):
        with pytest.raises(RuleError, match=r"has no feature map(.|\n)*use lrp.epsilon_plus"):
            kxai.GradCAM(case.model).explain(case.inputs, case.target)


def test_patches_that_become_tokens_are_refused():
    case = models.vision_transformer()
    with pytest.raises(RuleError, match=r"embedding of patches(.|\n)*attention_relevance(.|\n)*layer="):
        kxai.GradCAM(case.model).explain(case.inputs)
    ((path, *_),) = maps(case.model, "conv2d*")
    assert list(kxai.GradCAM(case.model, path).explain(case.inputs).layers) == [path]


def test_layers_are_looked_for():
    model = image(layers.MaxPooling2D(2, name="pool"), layers.Flatten(name="flat"), layers.Dense(2, name="dense"))
    with pytest.raises(UnknownNameError, match="did you mean conv"):
        maps(model, "convv")
    with pytest.raises(
        ArgumentError, match=r"no feature map(.|\n)*one of pool, conv/relu, conv(.|\n)*flat \(None, 48\)"
    ):
        maps(model, "flat")
    with pytest.raises(ArgumentError, match=r"has 2 feature maps(.|\n)*conv, conv/relu"):
        maps(model, "conv*")
    assert maps(model, "conv") == maps(model, model.get_layer("conv")) == [("conv/relu", {0: (1, 2)}, (8, 6), 4)]


def test_nested_models_with_augmentation():
    base = models.seeded(image(layers.GlobalAveragePooling2D(), layers.Dense(3, "relu")))
    stack = [layers.RandomFlip(), layers.Rescaling(2.0, offset=-1), base, layers.Dense(2, "softmax")]
    model = models.seeded(keras.Sequential([keras.Input((8, 6, 3)), *stack]))
    x = models.numbers(8, 6, 3)
    found = kxai.GradCAM(model).explain(x, 1)
    (path,) = found.layers
    assert path == f"{base.name}/conv/relu"
    flat = models.seeded(keras.Sequential([keras.Input((8, 6, 3)), *stack[1:2], *base.layers[1:], stack[3]]))
    flat.set_weights(model.get_weights()[-len(flat.get_weights()) :])
    np.testing.assert_allclose(found.relevance, kxai.GradCAM(flat).explain(x, 1).relevance, rtol=1e-5, atol=1e-7)
