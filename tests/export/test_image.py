"""Images as bytes: decoded, resized, preprocessed and explained in the graph, drawn as kxai.plots draws them."""

from __future__ import annotations

import io
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image as Picture
from tensorflow.core.protobuf import saved_model_pb2

import kxai
from kxai import backend, plots
from kxai.backend import pictures
from kxai.errors import ArgumentError, ExportError
from kxai.exporting import Image
from kxai.exporting.overlay import overlays
from kxai.preprocessing import preprocessing
from kxai.testing import models

RNG = np.random.default_rng(0)


def cnn(height=9, width=7, channels=3):
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3, name="y")]
    return models.seeded(keras.Sequential([keras.Input((height, width, channels), name="x"), *stack], name="tiny"))


def pixels(*shape):
    """Smooth, so that JPEG keeps them up to a few levels."""
    rows, columns = np.indices(shape[:2])
    image = 128 + 100 * np.sin(rows / 5)[..., None] * np.cos(columns / 7)[..., None] * np.linspace(0.5, 1, shape[2])
    return np.rint(image).astype(np.uint8)


def file(image, kind="PNG", **options):
    stream = io.BytesIO()
    Picture.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(stream, kind, **options)
    return stream.getvalue()


def saved(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def deep_png(image):
    """16 bits per channel, which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = image.shape
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in image))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def explain(done, files, target=None):
    module = tf.saved_model.load(done.path)
    run = module.signatures["explain_image"]
    target = np.full(len(files), -1) if target is None else target
    reply = run(image_bytes=tf.constant(files), target=tf.constant(target, tf.int32))
    return {name: tensor.numpy() for name, tensor in reply.items()}


def opened(data):
    return np.asarray(Picture.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("preprocess", "channels"),
    [
        ("raw", 3), ("unit", 1), ("signed", 3), ("caffe", 3), ("torch", 3), ("127,128", 3), ((0.5, -3.0), 3),
        (lambda x: x / 10.0, 3),
    ],
)  # fmt: skip
def test_bytes_are_explained_as_the_pixels_that_they_hold(preprocess, channels, tmp_path):
    images = [RNG.integers(0, 256, (9, 7, channels), np.uint8) for _ in range(3)]
    analyzer = kxai.LRP(cnn(channels=channels), "epsilon_plus")
    done = kxai.export(analyzer, tmp_path, image=Image(preprocess))
    reply = explain(done, [file(image) for image in images], [0, 1, 2])
    if isinstance(preprocess, str):
        function = preprocessing(preprocess)
    else:
        function = preprocess if callable(preprocess) else lambda x: x * 0.5 - 3.0
    x = function(np.stack(images).astype(np.float64)).astype(np.float32)
    live = analyzer.explain(x, [0, 1, 2])
    size = np.abs(live.relevance).max()
    np.testing.assert_allclose(reply["relevance"], live.relevance, rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(reply["y"], live.outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(reply["target"], [0, 1, 2])
    for image, heatmap, drawn in zip(images, live.heatmap(), reply["overlay_png_bytes"], strict=True):
        # What differs by a unit of float32's last place may be rounded to the neighbouring level.
        difference = np.abs(opened(drawn).astype(int) - plots.overlay(image, heatmap))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_decoded_and_resized(channels):
    image = pixels(40, 30, channels)
    files = [file(image), file(image, "JPEG", quality=98, subsampling=0)]
    png, jpeg = backend.to_numpy(pictures.decoded(tf.constant(files), (9, 7, channels))).astype(int)
    one = image if channels == 3 else image[..., 0]
    wanted = np.asarray(Picture.fromarray(one).resize((7, 9), Picture.Resampling.BILINEAR)).reshape(9, 7, channels)
    # Pillow resizes with numbers of 8 bits; JPEG loses a few levels.
    assert np.abs(png - wanted).max() <= 1
    assert np.abs(jpeg - wanted).max() <= 4


def test_a_size_fixes_what_the_model_leaves_open(tmp_path):
    analyzer = kxai.LRP(cnn(None, None), "epsilon")
    done = kxai.export(analyzer, tmp_path, image=Image("unit", size=(6, 8)))
    assert done.signatures["explain"].inputs["x"].shape == (None, 6, 8, 3)
    image = pixels(6, 8, 3)
    live = analyzer.explain(image[None] / 255.0)
    np.testing.assert_allclose(explain(done, [file(image)])["relevance"], live.relevance, rtol=1e-4, atol=1e-6)


def test_the_graph_holds_an_explanation_once(tmp_path):
    def convolutions(image):
        done = kxai.export(kxai.LRP(cnn(), "epsilon_plus"), tmp_path / str(image is None), image=image)
        saved = saved_model_pb2.SavedModel.FromString((done.path / "saved_model.pb").read_bytes())
        functions = saved.meta_graphs[0].graph_def.library.function
        return sum(node.op == "Conv2D" for function in functions for node in function.node_def)

    assert convolutions(Image("unit")) == convolutions(None) > 0


def test_several_analyzers(tmp_path):
    model = cnn()
    done = kxai.export([kxai.LRP(model, "epsilon"), kxai.GradCAM(model)], tmp_path, image=Image("unit"))
    assert list(done.signatures) == [
        "serving_default", "explain", "explain_lrp_epsilon", "explain_image", "explain_image_lrp_epsilon",
        "explain_grad_cam", "explain_image_grad_cam",
    ]  # fmt: skip
    assert explain(done, [file(pixels(9, 7, 3))])["overlay_png_bytes"].shape == (1,)


def png_of_size(height, width):
    """A small file that says that it is large."""
    data = bytearray(file(pixels(9, 7, 3)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg_of_size(height, width):
    data = bytearray(file(pixels(9, 7, 3), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return kxai.export(kxai.LRP(cnn(), "epsilon"), tmp_path_factory.mktemp("served"), image=Image("unit"))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "neither a JPEG nor a PNG"),
        (b"no image", "neither a JPEG nor a PNG"),
        (file(pixels(9, 7, 3), "BMP"), "neither a JPEG nor a PNG"),
        (file(pixels(9, 7, 3), "GIF"), "neither a JPEG nor a PNG"),
        (file(pixels(9, 7, 3))[:20], "PNG file without a header"),
        (file(pixels(9, 7, 3))[:60], "Invalid PNG"),
        (file(pixels(9, 7, 3), "JPEG")[:400], "JPEG"),
        (png_of_size(30000, 30000), "more than 67108864 pixels"),
        (png_of_size(2**31 + 1, 1), "more than 67108864 pixels"),
        (png_of_size(0, 5), "Invalid PNG"),
        (jpeg_of_size(60000, 60000), "more than 67108864 pixels"),
    ],
)
def test_bytes_that_are_no_image_fail(data, text, served):
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        explain(served, [file(pixels(9, 7, 3)), data])


def test_files_of_every_kind_and_size_in_one_batch(served):
    image = pixels(9, 7, 3)
    opaque = Picture.fromarray(image)
    faint = opaque.convert("RGBA")
    faint.putalpha(100)
    deep = (image.astype(np.uint16) * 257).astype(">u2")
    files = [file(image), saved(faint), deep_png(deep), saved(opaque.convert("CMYK"), "JPEG", quality=100),
             saved(opaque.convert("L"), "JPEG", quality=100), file(pixels(40, 3, 3))]  # fmt: skip
    read = backend.to_numpy(pictures.decoded(tf.constant(files), (9, 7, 3))).astype(int)
    for same in read[:3]:
        np.testing.assert_array_equal(same, image)
    assert np.abs(read[3] - image).mean() < 4  # JPEG, with colours at half the resolution
    assert np.abs(read[4] - np.asarray(opaque.convert("L")).astype(int)[..., None]).max() <= 4
    assert len(explain(served, files)["relevance"]) == len(files)


@pytest.mark.parametrize("clip", [100, 99.5, 90, 50.0, 0.01])
@pytest.mark.parametrize("opacity", [0, 0.85, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_overlays_are_those_of_plots(clip, opacity, channels):
    images = RNG.integers(0, 256, (3, 5, 6, channels), np.uint8)
    relevance = RNG.normal(size=(3, 5, 6, 2)).astype(np.float32)
    relevance[1] = 0
    relevance[2].flat[3:] = 0
    drawn = backend.to_numpy(overlays(tf.constant(images), tf.constant(relevance), clip, opacity))
    heatmaps = kxai.Explanation(relevance, np.zeros((3, 1)), "all", np.zeros(3)).heatmap()
    for image, heatmap, overlay in zip(images, heatmaps, drawn, strict=True):
        np.testing.assert_array_equal(overlay, plots.overlay(image, heatmap, opacity, clip))


def test_one_pixel():
    images, relevance = np.full((2, 1, 1, 3), 128, np.uint8), np.float32([2.0, 0.0]).reshape(2, 1, 1, 1)
    drawn = backend.to_numpy(overlays(tf.constant(images), tf.constant(relevance), 99.5, 0.85))
    for image, heatmap, overlay in zip(images, relevance[..., 0], drawn, strict=True):
        np.testing.assert_array_equal(overlay, plots.overlay(image, heatmap))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("half",), "Unknown preprocess"),
        (((0, 1),), "Unknown preprocess"),
        (((1, 2, 3),), "Unknown preprocess"),
        (((np.nan, 0.0),), "Unknown preprocess"),
        ((None,), "Unknown preprocess"),
        (("unit", (3,)), "size is out of range"),
        (("unit", (3, 0)), "size is out of range"),
        (("unit", 3), "size is out of range"),
        (("unit", None, "much"), "clip is out of range"),
        (("unit", None, 99.5, None), "opacity is out of range"),
        (("unit", None, 0), "clip is out of range"),
        (("unit", None, 101), "clip is out of range"),
        (("unit", None, 99.5, 1.5), "opacity is out of range"),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        Image(*arguments)


def test_models_that_take_no_image(tmp_path):
    with pytest.raises(ExportError, match="does not take images"):
        kxai.export(kxai.LRP(models.mlp().model, "epsilon"), tmp_path, image=Image("unit"))
    with pytest.raises(ArgumentError, match="size contradicts the model"):
        kxai.export(
            kxai.LRP(cnn(), "epsilon"), tmp_path, image=Image("unit", size=(9, 9)), example=np.zeros((1, 9, 7, 3))
        )
    with pytest.raises(ExportError, match="changes their shape"):
        kxai.export(kxai.LRP(cnn(), "epsilon"), tmp_path, image=Image(lambda x: x[:, 1:]))
    assert list(tmp_path.iterdir()) == []
