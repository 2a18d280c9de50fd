"""The models that examples and tests rely on do what their cards say."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from model_zoo import digits_cnn, efficientnet_lite0
from model_zoo.torch_checkpoint import MAGIC, CheckpointUnpickler, read_checkpoint

# Photograph -> the classes with the highest probabilities, as the weights' publishers' own network gives them.
PHOTOGRAPHS = {
    "coffee": [("espresso", 0.94), ("tea cup", 0.02)],
    "camera": [("tripod", 0.95), ("binoculars", 0.01)],
    "chelsea": [("Egyptian Mau", 0.39), ("a cat having a striped coat", 0.33), ("tabby cat", 0.16)],
}


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip(efficientnet_lite0.PACKAGE, reason="the package with the weights is not installed")
    return efficientnet_lite0.load()


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_efficientnet_recognises_photographs(lite0, photograph):
    data = pytest.importorskip("skimage.data", reason="scikit-image, which has the photographs, is not installed")
    image = efficientnet_lite0.preprocess(getattr(data, photograph)())
    probabilities = lite0(image[None]).numpy()[0]
    for rank, (name, probability) in zip(np.argsort(-probabilities), PHOTOGRAPHS[photograph], strict=False):
        assert efficientnet_lite0.class_names()[rank] == name
        assert probabilities[rank] == pytest.approx(probability, abs=0.01)


def test_efficientnet_is_built_once(lite0):
    before = efficientnet_lite0.BUILT.stat().st_mtime_ns
    assert efficientnet_lite0.load().output_shape == lite0.output_shape == (None, 1000)
    assert efficientnet_lite0.BUILT.stat().st_mtime_ns == before


def test_efficientnet_ends_in_a_softmax_of_its_own(lite0):
    assert [layer.name for layer in lite0.layers[-2:]] == ["logits", "probabilities"]
    assert lite0.count_params() == 4_694_024


def test_preprocess_maps_black_and_white_to_the_stated_range():
    image = np.zeros((300, 400, 3), np.uint8)
    image[:, 200:] = 255
    prepared = efficientnet_lite0.preprocess(image)
    assert prepared.shape == (224, 224, 3)
    assert prepared.dtype == np.float32
    assert (prepared.min(), prepared.max()) == (efficientnet_lite0.LOW, efficientnet_lite0.HIGH)


def test_preprocess_refuses_floats():
    with pytest.raises(ValueError, match="dtype uint8"):
        efficientnet_lite0.preprocess(np.zeros((10, 10, 3)))


@pytest.mark.parametrize("tensors", [{}, {"_conv_stem.weight": np.zeros((1, 3, 3, 3), np.float32)}])
def test_build_refuses_missing_or_misshapen_tensors(monkeypatch, tensors):
    monkeypatch.setattr(efficientnet_lite0, "read_checkpoint", lambda path: dict(tensors))
    with pytest.raises(ValueError, match=r"stem_conv|shape"):
        efficientnet_lite0.build("unused")


def test_build_refuses_left_over_tensors(monkeypatch, lite0):
    tensors = read_checkpoint(efficientnet_lite0.checkpoint_path()) | {"_extra.weight": np.zeros(1)}
    monkeypatch.setattr(efficientnet_lite0, "read_checkpoint", lambda path: tensors)
    with pytest.raises(ValueError, match=r"no layer takes: _extra\.weight"):
        efficientnet_lite0.build("unused")


@pytest.mark.parametrize("foreign", [print, np.float32, pickle.Pickler, io.BytesIO])
def test_unpickler_refuses_foreign_names(foreign):
    with pytest.raises(pickle.UnpicklingError, match=foreign.__name__):
        CheckpointUnpickler(io.BytesIO(pickle.dumps({"weight": foreign}))).load()


def test_unpickler_does_not_call_what_a_pickle_asks_for(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    with pytest.raises(pickle.UnpicklingError):
        CheckpointUnpickler(io.BytesIO(pickle.dumps(Trap()))).load()
    assert not (tmp_path / "sprung").exists()


def test_unpickler_reads_what_tensors_need():
    plain = OrderedDict(a=[1, 2.5, "text", (True, None)])
    assert CheckpointUnpickler(io.BytesIO(pickle.dumps(plain, protocol=2))).load() == plain


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((1, 1001, {"little_endian": True}), "not a little-endian checkpoint"),
        ((MAGIC, 1002, {"little_endian": True}), "not a little-endian checkpoint"),
        ((MAGIC, 1001, {"little_endian": False}), "not a little-endian checkpoint"),
    ],
)
def test_reader_refuses_other_formats(tmp_path, parts, message):
    file = tmp_path / "other.pth"
    file.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(pickle.UnpicklingError, match=message):
        read_checkpoint(file)


def test_reader_refuses_a_file_cut_short(tmp_path, lite0):
    whole = efficientnet_lite0.checkpoint_path().read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[:-100])
    with pytest.raises(pickle.UnpicklingError, match="cut short"):
        read_checkpoint(tmp_path / "short.pth")


def test_digits_model_knows_its_samples():
    images, labels = digits_cnn.samples()
    assert images.shape == (50, 8, 8, 1)
    assert np.bincount(labels).tolist() == [5] * 10
    assert (digits_cnn.load()(images).numpy().argmax(axis=1) == labels).mean() >= 0.98


def test_digits_files_stay_small():
    assert digits_cnn.MODEL.stat().st_size < 150_000
    assert digits_cnn.SAMPLES.stat().st_size < 10_000


def test_digits_file_can_be_read_by_older_keras():
    with zipfile.ZipFile(digits_cnn.MODEL) as archive:
        assert json.loads(archive.read("metadata.json"))["keras_version"].startswith("3.12.")


def test_digits_file_has_the_stated_architecture():
    def shapes(model):
        return [(layer.name, type(layer), [weight.shape for weight in layer.weights]) for layer in model.layers]

    assert shapes(digits_cnn.load()) == shapes(digits_cnn.architecture())
