"""What ``kxai.export`` writes, over the network and back: the explanations are those of the live analyzer."""

from __future__ import annotations

import io
import os

import keras
import numpy as np
import pytest
from PIL import Image

import kxai
from kxai.errors import InputError, ServingError, TargetError
from kxai.exporting import Image as ImageOptions
from kxai.serving import Client
from kxai.serving.explainer import Explainer
from tests.serving import served

PARTS = ("relevance", "outputs", "target", "score", "residual", "base")


def connected(protocol, folder):
    """A test double and a client of it."""
    if protocol == "rest":
        double = served.rest_server(folder)
        return double, lambda server: Client(f"127.0.0.1:{server.server_port}", "digits")
    if not os.environ.get("CI"):
        for name in ("grpc", "tensorflow_serving"):
            pytest.importorskip(name, reason=f"{name} is not installed")
    double = served.grpc_server(folder)
    return double, lambda server: Client(f"127.0.0.1:{server.port}", "digits", protocol="grpc")


def compare(got, expected):
    for part in PARTS:
        pairs = getattr(got, part), getattr(expected, part)
        if isinstance(pairs[0], dict):
            assert pairs[0].keys() == pairs[1].keys()
            pairs = list(pairs[0].values()), [pairs[1][name] for name in pairs[0]]
        else:
            pairs = [pairs[0]], [pairs[1]]
        for one, other in zip(*pairs, strict=True):
            # float32: sums are taken in another order. Of base alone several roundings remain.
            np.testing.assert_allclose(
                one, other, atol=1e-6 * max(1, np.abs(other).max()) * (4 if part == "base" else 1)
            )


def two_inputs():
    keras.utils.set_random_seed(5)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    hidden = keras.layers.Dense(6, activation="relu")(keras.layers.Concatenate()([left, right]))
    outputs = {"first": keras.layers.Dense(3, name="first")(hidden)}
    return keras.Model({"left": left, "right": right}, outputs)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_methods(protocol, tmp_path):
    model = served.image_model()
    analyzers = [kxai.LRP(model, "epsilon"), kxai.Gradient(model), kxai.GradCAM(model)]
    kxai.export(analyzers, tmp_path)
    x = served.images(5)
    double, client = connected(protocol, tmp_path)
    with double as server, client(server) as connection:
        compare(connection.explain(x), analyzers[0].explain(x))
        for analyzer in analyzers:
            for target in (None, 1, [0, 1, 2, 3, 1]):
                compare(connection.explain(x, target, analyzer.name), analyzer.explain(x, target))
        with pytest.raises(ServingError, match="target"):
            connection.explain(x, served.CLASSES)  # the graph itself says that there is no such class


def test_what_the_graph_refuses_is_said_in_one_line(tmp_path):
    kxai.export(kxai.Gradient(served.image_model()), tmp_path)
    x = served.images(1)
    with pytest.raises(InputError, match=r"Received: assertion failed: \[target: from 0 to 3, or -1 [^\n]*$"):
        Explainer(tmp_path).explain({"instances": x.tolist(), "target": 4})
    with pytest.raises(InputError, match=r"Received: [\w ]+ is not finite[^\n]*$"):
        Explainer(tmp_path).explain({"instances": (np.sign(x) * 3e38).tolist()})


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_several_inputs(protocol, tmp_path):
    model = two_inputs()
    analyzer = kxai.Gradient(model)
    kxai.export(analyzer, tmp_path)
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(3, 4)).astype("float32"), "right": rng.normal(size=(3, 3)).astype("float32")}
    double, client = connected(protocol, tmp_path)
    with double as server, client(server) as connection:
        got, expected = connection.explain(x), analyzer.explain(x)
        for name in x:
            np.testing.assert_allclose(got.relevance[name], expected.relevance[name], atol=1e-6)
        np.testing.assert_allclose(got.residual, expected.residual, atol=1e-6)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_images_as_files(protocol, tmp_path):
    model = served.image_model()
    kxai.export(kxai.LRP(model, "epsilon"), tmp_path, image=ImageOptions("unit"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, served.SIDE, served.SIDE), np.uint8)
    files = []
    for one in pixels:
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "PNG")
        files.append(buffer.getvalue())
    double, client = connected(protocol, tmp_path)
    with double as server, client(server) as connection:
        got = connection.predict({"image_bytes": files, "target": [-1, 2]}, "explain_image")
        expected = connection.explain(pixels[..., None] / 255, [-1, 2])
    np.testing.assert_allclose(got["relevance"], expected.relevance, atol=1e-6)
    pictures = [Image.open(io.BytesIO(data)) for data in got["overlay_png_bytes"]]
    assert [(p.format, p.size) for p in pictures] == [("PNG", (served.SIDE, served.SIDE))] * 2


def test_a_target_that_the_export_fixes(tmp_path):
    model = served.image_model()
    analyzer = kxai.LRP(model, "epsilon")
    contrast = kxai.Contrast(1, 2)
    kxai.export(analyzer, tmp_path, target=contrast)
    x = served.images(3)
    expected = analyzer.explain(x, contrast)
    double, client = connected("rest", tmp_path)
    with double as server, client(server) as connection:
        got = connection.explain(x)
        np.testing.assert_allclose(got.relevance, expected.relevance, atol=1e-6)
        assert got.target == "fixed in the export"
        with pytest.raises(TargetError, match="explains one target, and no other"):
            connection.explain(x, 1)
    replies = Explainer(tmp_path).explain({"instances": x.tolist()})["explanations"]
    np.testing.assert_allclose([reply["relevance"] for reply in replies], expected.relevance, atol=1e-6)
    with pytest.raises(InputError, match="target stands where none is expected"):
        Explainer(tmp_path).explain({"instances": x.tolist(), "target": 1})
