"""Every format predicts what the model predicted where it was written; tests/fixtures/saved_models holds Keras 2's."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kxai.errors import ArgumentError, LoadError
from kxai.loading import keras2, keras2_calls, load, metadata
from kxai.loading.request import Request
from tests.fixtures.saved_models import make

FIXTURES = Path(make.__file__).parent
KERAS2 = [
    ("keras2_image.h5", None),
    ("keras2_image.keras", None),
    ("keras2_image.json", None),
    ("keras2_image.json", "keras2_image.weights.h5"),
    ("keras2_image.json", "keras2_image_by_order.h5"),
    ("keras2_image.json", "keras2_image.h5"),
    ("keras2_image_saved_model", None),
    ("keras2_joined.h5", None),
    ("keras2_joined.keras", None),
    ("keras2_joined.json", "keras2_joined.h5"),
    ("keras2_joined_saved_model", None),
    ("keras2_functions.h5", None),
    ("keras2_functions.keras", None),
    ("keras2_functions.json", "keras2_functions.h5"),
    ("keras2_functions_saved_model", None),
]


def stored(name):
    """The inputs by name, and the outputs in order."""
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        inputs = {key.removeprefix("input_"): arrays[key] for key in arrays if key.startswith("input_")}
        return inputs, [arrays[f"output_{index}"] for index in range(len(arrays.files) - len(inputs))]


def predictions(model, inputs):
    # A Sequential names its input anew.
    given = [inputs[x.name] for x in model.inputs] if len(inputs) > 1 else next(iter(inputs.values()))
    outputs = model(given)
    return [np.asarray(value) for value in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


def assert_predicts(model, inputs, expected):
    for got, want in zip(predictions(model, inputs), expected, strict=True):
        # Two versions of TensorFlow add in another order: at most a few rounding errors of numbers around 1.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def message(path, **arguments):
    with pytest.raises(LoadError) as caught:
        load(path, **arguments)
    return str(caught.value)


def beside(tmp_path, *names):
    for name in names:
        place = FIXTURES / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, tmp_path / name)
    return tmp_path / names[0]


@pytest.mark.parametrize(("name", "weights"), KERAS2)
def test_keras2(name, weights):
    inputs, expected = stored(re.match("keras2_[a-z]+", name.removesuffix("_saved_model"))[0])
    model = load(FIXTURES / name, weights=None if weights is None else FIXTURES / weights)
    assert not any(isinstance(layer, keras.layers.TFSMLayer) for layer in model.layers)
    assert_predicts(model, inputs, expected)


def test_a_model_of_one_input_takes_one_tensor():
    """Keras 2 writes a list of one, which Keras 3 would insist on."""
    nodes = {"input_layers": [["x", 0, 0]], "output_layers": [["y", 0, 0]]}
    layers = [
        {"class_name": "InputLayer", "name": "x", "config": {"batch_input_shape": [None, 2], "name": "x"}},
        {"class_name": "ReLU", "name": "y", "config": {"name": "y"}},
    ]
    for layer, calls in zip(layers, ([], [[["x", 0, 0, {}]]]), strict=True):
        layer["inbound_nodes"] = calls
    config = {"class_name": "Functional", "config": {"name": "m", "layers": layers, **nodes}}
    model = keras.saving.deserialize_keras_object(keras2.modern(config))
    assert model(np.array([[-1.0, 2.0]])).numpy().tolist() == [[0.0, 2.0]]


def test_what_changed_its_meaning_keeps_it():
    config = keras2.modern({"class_name": "GRU", "config": {"name": "g", "recurrent_activation": "hard_sigmoid"}})
    assert config["config"]["reset_after"] is False
    request = Request(FIXTURES)
    layer = request.build({**config, "config": {**config["config"], "units": 2}})
    x = np.linspace(-4, 4, 9, dtype="float32")
    np.testing.assert_allclose(layer.recurrent_activation(x), np.clip(0.2 * x + 0.5, 0, 1), atol=1e-6)


def test_fixtures_tell_weights_apart():
    """Loading in another order of layers would show: no two arrays of a model are the same."""
    with h5py.File(FIXTURES / "keras2_joined.h5") as file:
        arrays = []
        file["model_weights"].visititems(
            lambda _, item: arrays.append(item[()].tobytes()) if isinstance(item, h5py.Dataset) else None
        )
    assert len(arrays) > 30
    assert len(set(arrays)) == len(arrays)


@pytest.fixture(scope="module", params=[make.image, make.joined], ids=["image", "joined"])
def written(request, tmp_path_factory):
    """A model of Keras 3 in all of its formats."""
    folder = tmp_path_factory.mktemp("keras3")
    keras.utils.set_random_seed(0)
    model = request.param()
    make.settle(model)
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    (folder / "model.json").write_text(model.to_json())
    model.save_weights(folder / "model.weights.h5")
    return model, folder


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("model.keras", None),
        ("model.h5", None),
        ("model.json", None),
        ("model.json", "model.weights.h5"),
        ("model.json", "model.h5"),
    ],
)
def test_keras3(written, name, weights):
    model, folder = written
    inputs = make.inputs_of(model)
    back = load(folder / name, weights=None if weights is None else folder / weights)
    assert_predicts(back, inputs, predictions(model, inputs))


def test_keras2_weights_for_a_configuration_of_keras3(tmp_path):
    model = make.image()
    (tmp_path / "new.json").write_text(model.to_json())
    inputs, expected = stored("keras2_image")
    back = load(tmp_path / "new.json", weights=FIXTURES / "keras2_image_by_order.h5")
    assert_predicts(back, inputs, expected)


def test_a_configuration_needs_weights(tmp_path):
    path = beside(tmp_path, "keras2_image.json")
    text = message(path)
    assert "is a configuration without weights" in text
    assert "one of keras2_image.weights.h5, keras2_image.h5, model.weights.h5 beside it, or weights=" in text
    (tmp_path / "keras2_image.weights.h5").write_text("nothing")
    assert "is no file of weights" in message(path)
    assert "There is no file of weights at" in message(path, weights=tmp_path / "none.h5")


def test_weights_of_another_model(written, tmp_path):
    _, folder = written
    other = keras.Sequential([keras.Input((9,)), keras.layers.Dense(7)])
    other.save_weights(tmp_path / "other.weights.h5")
    text = message(folder / "model.json", weights=tmp_path / "other.weights.h5")
    assert "does not hold the weights of this model" in text
    assert "Received: arrays of the shapes (7,), (9, 7)" in text


def test_arguments_without_effect(written):
    _, folder = written
    with pytest.raises(ArgumentError, match="weights has no effect here"):
        load(folder / "model.keras", weights=folder / "model.weights.h5")
    with pytest.raises(ArgumentError, match="endpoint has no effect here"):
        load(folder / "model.h5", endpoint="serve")


def edit_weights(path, change):
    """Changes the HDF5 file in an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    file = path.with_name("weights.h5")
    file.write_bytes(members["model.weights.h5"])
    with h5py.File(file, "r+") as opened:
        change(opened["_layer_checkpoint_dependencies"])
    members["model.weights.h5"] = file.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_nothing_is_loaded_in_part(tmp_path):
    def lose(layers):
        del layers["dense/vars"]

    def gain(layers):
        layers["dense/inner/vars/0"] = np.zeros(3)

    def reshape(layers):
        del layers["dense/vars/1"]
        layers["dense/vars/1"] = np.zeros(4, "float32")

    found = []
    for change in (lose, gain, reshape):
        path = beside(tmp_path, "keras2_image.keras")
        edit_weights(path, change)
        found.append(message(path))
    assert "do not have the same weights" in found[0]
    assert "variables without an array: image/dense/kernel, image/dense/bias" in found[0]
    assert "arrays without a variable: /_layer_checkpoint_dependencies/dense/inner/vars/0" in found[1]
    assert "Expected: (3,) for image/dense/bias" in found[2]
    assert "Received: (4,) at /_layer_checkpoint_dependencies/dense/vars/1" in found[2]


def test_a_layer_too_many_is_found(tmp_path):
    path = beside(tmp_path, "keras2_image.keras")
    edit_weights(path, lambda layers: layers.create_dataset("dense_1/vars/0", data=np.zeros(3)))
    assert "arrays without a variable: /_layer_checkpoint_dependencies/dense_1/vars/0" in message(path)


@pytest.mark.parametrize("name", ["variables/variables.index", "variables/variables.data-00000-of-00001"])
def test_checkpoint_is_missing_or_cut_off(tmp_path, name):
    folder = beside(tmp_path, "keras2_image_saved_model")
    file = folder / name
    file.write_bytes(file.read_bytes()[:20])
    assert "has no checkpoint that can be read" in message(folder) or "declares larger arrays" in message(folder)
    file.unlink()
    assert "has no checkpoint that can be read" in message(folder) or "declares larger arrays" in message(folder)


def test_description_is_cut_off(tmp_path):
    folder = beside(tmp_path, "keras2_image_saved_model")
    file = folder / "keras_metadata.pb"
    file.write_bytes(file.read_bytes()[:-20])
    text = message(folder)
    assert "keras_metadata.pb is damaged" in text
    assert "the message is cut off" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x0b", "a field of wire type 3"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "a number of more than 64 bits"),
        (b"\x08", "index out of range"),
        (b"\x08\x01", "a node is no message"),
    ],
)
def test_description_is_no_message(tmp_path, content, said):
    (tmp_path / "keras_metadata.pb").write_bytes(content)
    with pytest.raises(LoadError, match=said):
        metadata.read(tmp_path)


def test_an_old_sequential_has_its_shape_on_the_first_layer():
    first = {
        "class_name": "Dense",
        "config": {"name": "d", "units": 3, "dtype": "float32", "batch_input_shape": [None, 4]},
    }
    for settings in ([first], {"name": "old", "layers": [first]}):
        config = keras2.modern({"class_name": "Sequential", "config": settings})
        model = keras.saving.deserialize_keras_object(config)
        assert model.inputs[0].shape == (None, 4)
        assert [layer.name for layer in model.layers] == ["d"]


def test_calls_of_models_within_models():
    layers = [
        {"name": "x", "class_name": "InputLayer", "inbound_nodes": []},
        {"name": "f", "class_name": "Functional", "inbound_nodes": [[["x", 0, 0, {}]], [["f", 1, 0, {}]]]},
        {"name": "s", "class_name": "Sequential", "inbound_nodes": [[["f", 2, 0, {"mask": ["x", 0, 0]}]]]},
        {"name": "d", "class_name": "Custom", "inbound_nodes": [{"a": ["s", 1, 0, {}], "b": ["x", 0, 0, {}]}]},
    ]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": {"f": ["f", 2, 0], "s": ["s", 1, 0]}}
    got = keras2_calls.modern({"layers": layers, **ends})

    def history(tensor):
        return tensor["config"]["keras_history"]

    f, s, d = (layer["inbound_nodes"] for layer in got["layers"][1:])
    assert [history(call["args"][0]) for call in f] == [["x", 0, 0], ["f", 0, 0]]
    assert history(s[0]["args"][0]) == ["f", 1, 0]
    assert history(s[0]["kwargs"]["mask"]) == ["x", 0, 0]
    assert {key: history(value) for key, value in d[0]["args"][0].items()} == {"a": ["s", 0, 0], "b": ["x", 0, 0]}
    # Keras 3 subtracts the 1 of a functional model by itself.
    assert got["output_layers"] == {"f": ["f", 2, 0], "s": ["s", 0, 0]}


def test_weights_in_another_order(tmp_path):
    layers = [keras.layers.Dense(4, name=name) for name in ("a", "b")]
    keras.Sequential([keras.Input((4,)), *layers], name="m").save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        assert list(file["model_weights"].attrs["layer_names"]) == ["a", "b"]
        file["model_weights"].attrs["layer_names"] = np.array([b"b", b"a"])
    text = message(tmp_path / "m.h5")
    assert "holds the weights in another order than the model has its layers" in text
    assert "Expected: a, b\n  Received: b, a" in text


def test_custom_objects_of_keras2(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    path = beside(tmp_path, "keras2_image.json", "keras2_image.weights.h5")
    config = json.loads(path.read_text())
    dropout = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dropout")
    dropout.update(class_name="Twice", config={"name": "twice"}, module="mine", registered_name="Mine>Twice")
    path.write_text(json.dumps(config))
    assert "uses objects that are not part of Keras: Mine>Twice" in message(path)
    model = load(path, custom_objects={"Mine>Twice": Twice})
    assert type(model.get_layer("twice")) is Twice


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantised_models(tmp_path, mode):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.layers[-1].quantize(mode)
    model.save(tmp_path / "m.keras")
    x = np.ones((2, 8), np.float32)
    np.testing.assert_array_equal(load(tmp_path / "m.keras")(x), model(x))


def test_objects_of_a_scope(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    keras.Sequential([keras.Input((3,)), Twice()], name="m").save(tmp_path / "m.keras")
    with keras.saving.custom_object_scope({"Twice": Twice}):
        assert type(load(tmp_path / "m.keras").layers[0]) is Twice
    assert "Twice" in message(tmp_path / "m.keras")


def test_layers_that_save_other_arrays_than_they_have(tmp_path):
    conv = keras.layers.SpectralNormalization(keras.layers.Conv2D(2, 3))
    dense = keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((5, 5, 1)), conv, keras.layers.Flatten(), dense])
    dense.enable_lora(2)
    (tmp_path / "m.json").write_text(model.to_json())
    model.save_weights(tmp_path / "m.weights.h5")
    x = np.ones((2, 5, 5, 1), np.float32)
    np.testing.assert_allclose(load(tmp_path / "m.json")(x), model(x), rtol=1e-6)


@pytest.mark.parametrize("ending", ["json", "h5", "keras"])
def test_a_vocabulary_is_there_or_missed(tmp_path, ending):
    words = keras.layers.TextVectorization(output_sequence_length=2, name="words")
    words.adapt(["a b", "b c"])
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, keras.layers.Embedding(9, 2)(words(inputs)))
    path = tmp_path / f"m.{ending}"
    if ending == "json":
        path.write_text(model.to_json())
        model.save_weights(tmp_path / "m.weights.h5")
    else:
        model.save(path)
    if ending == "keras":
        x = keras.ops.convert_to_tensor(["a c"])
        np.testing.assert_array_equal(load(path)(x), model(x))
    else:
        text = message(path)
        assert "does not hold the vocabulary of words" in text
        assert "save the model as name.keras" in text
