"""Files of Keras 2 are imitated by writing into a file what Keras 2 writes; see test_keras2_settings_are_dropped."""

from __future__ import annotations

import json
import math
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

import kxai
from kxai.errors import LoadError
from kxai.loading import keras2 as words_of_keras2
from kxai.loading import keras2_operations, load
from tests.beside import existing
from tests.loading.test_formats import FIXTURES

pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")


@keras.saving.register_keras_serializable("kxai_tests")
class Doubled(keras.layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training)


@keras.saving.register_keras_serializable("kxai_tests")
def cubed(x):
    return x**3


@pytest.fixture
def forgotten(monkeypatch):
    """As in a process in which the custom objects of a file have not been imported."""
    registered = dict(keras.saving.get_custom_objects())
    yield lambda: keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(registered)


def dense(*layers):
    return keras.Sequential([keras.Input((4,)), *(layers or [keras.layers.Dense(3)])], name="toy")


def saved(model, path):
    model.save(path)
    return path


def edited(path, change):
    """Changes the configuration in an HDF5 file."""
    with h5py.File(path, "r+") as stored:
        config = json.loads(stored.attrs["model_config"])
        change(config)
        stored.attrs["model_config"] = json.dumps(config).encode()
    return path


def message(path, **arguments):
    with pytest.raises(LoadError) as caught:
        load(path, **arguments)
    return str(caught.value), caught.value.__cause__


@pytest.mark.parametrize("name", ["toy.keras", "toy.h5", "toy.hdf5"])
def test_loads_without_compiling(tmp_path, name):
    model = dense()
    model.compile("adam", "mse")
    back = load(str(saved(model, tmp_path / name)))
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(back(x), model(x))
    assert not back.compiled


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("dice_adult_mlp", (None, 29)),
        ("efficientnet_lite0", (None, 224, 224, 3)),
        ("fer_mini_xception", (None, 64, 64, 1)),
        ("mtcnn_pnet", (None, None, None, 3)),
        ("tox_block_bilstm", (None, 100)),
    ],
)
def test_loads_real_models(name, shape):
    assert load(existing("models", f"{name}.keras")).input_shape == shape


def keras2(config):
    """Writes into a configuration what Keras 2 writes into these layers."""
    for layer in config["config"]["layers"]:
        name, settings = layer["class_name"], layer["config"]
        if name.startswith(("Depthwise", "Separable")) or name.endswith("Transpose"):
            settings["groups"] = 1
        if name.startswith("Separable"):
            settings.update(kernel_initializer=None, kernel_regularizer=None, kernel_constraint=None)
        if name == "BatchNormalization":
            settings["axis"] = [settings["axis"]]
        if name == "LSTM":
            settings["time_major"] = False
        if name == "Sequential":
            keras2(layer)
            settings["layers"][1]["config"]["batch_input_shape"] = settings["layers"][0]["config"]["batch_shape"]


def old_image_model():
    layers = keras.layers
    inner = keras.Sequential([keras.Input((8, 8, 2)), layers.DepthwiseConv2D(3), layers.BatchNormalization()])
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            inner,
            layers.SeparableConv2D(3, 3),
            layers.Conv2DTranspose(2, 3),
            layers.Reshape((36, 2)),
            layers.LSTM(3),
        ]
    )


def test_keras2_settings_are_dropped(tmp_path):
    model = old_image_model()
    path = edited(saved(model, tmp_path / "old.h5"), keras2)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError), match=r"Unrecognized keyword|int\(\) argument"):
        keras.saving.load_model(path, compile=False)
    back = load(path)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(back(x), model(x))
    assert type(back.layers[0].layers[0]) is keras.layers.DepthwiseConv2D
    assert path.read_bytes() == before


def test_a_keras2_setting_with_an_effect_is_refused(tmp_path):
    def grouped(config):
        config["config"]["layers"][1]["config"]["groups"] = 2

    model = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.DepthwiseConv2D(3, name="dw")])
    text, _ = message(edited(saved(model, tmp_path / "old.h5"), grouped))
    assert "The layer 'dw' uses a setting of Keras 2" in text
    assert "Expected: DepthwiseConv2D with groups=1\n  Received: groups=2" in text


@pytest.mark.parametrize("function", ["image.resize", "math.add", "__operators__.getitem"])
def test_keras2_operations(tmp_path, function):
    def recorded(config):
        config["config"]["layers"][1] = {"class_name": "TFOpLambda", "config": {"name": "tf", "function": function}}

    text, _ = message(edited(saved(dense(), tmp_path / "old.h5"), recorded))
    assert "calls TensorFlow's functions, as Keras 2 writes them, which Keras 3 does not have" in text
    assert f"Received: {function}" in text


TENSOR = {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}


@pytest.mark.parametrize(
    ("function", "keywords"),
    [
        ("math.add", {}),
        ("math.add", {"y": 1.0, "more": 2.0}),
        ("reshape", {"shape": [2, TENSOR]}),
        ("reshape", {"shape": TENSOR}),
        ("transpose", {"perm": [1, 0], "conjugate": True}),
        ("split", {"num_or_size_splits": [2, -1]}),
        ("pad", {"paddings": [[0, 0], [1, 1]], "mode": "REFLECT"}),
        ("nn.silu", {"beta": 2.0}),
        ("math.l2_normalize", {"axis": [1, 2]}),
        ("clip_by_value", {"clip_value_min": TENSOR, "clip_value_max": 1.0}),
        ("__operators__.getitem", {"slice_spec": [TENSOR]}),
        ("__operators__.getitem", {"slice_spec": {"start": TENSOR, "stop": None, "step": None}}),
        ("load_library", {}),
    ],
)
def test_a_function_is_not_told_by_halves(function, keywords):
    call = {"args": [TENSOR], "kwargs": keywords}
    layer = {"class_name": "TFOpLambda", "config": {"name": "f", "function": function}, "inbound_nodes": [call]}
    assert keras2_operations.modern(layer) is None
    assert keras2_operations.modern({**layer, "inbound_nodes": [call, call]}) is None


@pytest.mark.parametrize("sliced", [lambda x: x[:, 1:, ::2], lambda x: x[:, None, 1], lambda x: x[:, 1]])
@pytest.mark.parametrize("ending", ["keras", "h5", "json"])
def test_operations_of_keras3(tmp_path, sliced, ending):
    """Keras itself does not load .h5 files of these; what was a tuple comes back as a list."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 6))
    h = keras.ops.relu(keras.ops.concatenate([sliced(inputs) - 0.3, 2.0 * sliced(inputs)], axis=-1))
    h = keras.layers.Add()([keras.layers.Flatten()(h), keras.ops.reshape(h, (-1, math.prod(h.shape[1:])))])
    model = keras.Model(inputs, keras.layers.Dense(2)(h))
    if ending == "json":
        (tmp_path / "operations.json").write_text(model.to_json())
        model.save_weights(tmp_path / "operations.weights.h5")
    else:
        saved(model, tmp_path / f"operations.{ending}")
    x = np.random.default_rng(0).uniform(-1, 1, (3, 4, 6)).astype("float32")
    back = load(tmp_path / f"operations.{ending}")
    np.testing.assert_array_equal(back(x), model(x))
    want, got = (kxai.explain(one, x, method="lrp.epsilon", target=1) for one in (model, back))
    np.testing.assert_array_equal(got.relevance, want.relevance)


def test_a_threshold_is_not_passed_itself():
    settings = {"name": "t", "theta": 0.5, "trainable": True, "dtype": "float32"}
    config = words_of_keras2.modern({"class_name": "ThresholdedReLU", "config": settings})
    layer = keras.saving.deserialize_keras_object(config)
    assert layer(np.float32([[-1, 0.25, 0.5, 0.75]])).numpy().tolist() == [[0, 0, 0, 0.75]]


@pytest.mark.parametrize("ending", ["h5", "keras", "json"])
def test_words_that_keras2_found(tmp_path, ending):
    """A layer that looks up words does not become one that knows none."""

    def words(config):
        settings = {"name": "words", "vocabulary": None, "output_mode": "multi_hot"}
        given = {"batch_input_shape": [None, 1], "dtype": "string", "name": "given"}
        lookup = {"class_name": "StringLookup", "config": settings}
        config["config"]["layers"] = [{"class_name": "InputLayer", "config": given}, lookup]
        return config

    names = [f"keras2_image.{ending}", "keras2_image.h5"]
    for name in names:
        shutil.copy(FIXTURES / name, tmp_path)
    path = tmp_path / names[0]
    if ending == "h5":
        edited(path, words)
    elif ending == "json":
        path.write_text(json.dumps(words(json.loads(path.read_text()))))
    else:
        with zipfile.ZipFile(FIXTURES / names[0]) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, json.dumps(words(json.loads(content))) if name == "config.json" else content)
    text, _ = message(path)
    assert "does not hold the vocabulary of words" in text
    assert "layer.get_vocabulary()" in text


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_lambda_is_refused_unless_trusted(tmp_path, ending):
    model = dense(keras.layers.Lambda(lambda x: 2 * x, name="twice", output_shape=(4,)))
    path = saved(model, tmp_path / f"lambda.{ending}")
    text, _ = message(path)
    assert "holds Python code that loading would run" in text
    assert "Lambda layers 'twice'" in text
    assert "only if you trust the origin of this file: load it with safe_mode=False" in text
    assert load(path, safe_mode=False)(np.ones((1, 4))).numpy().tolist() == [[2.0] * 4]


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (lambda: Doubled(3), "kxai_tests>Doubled", Doubled),
        (lambda: keras.layers.Dense(3, activation=cubed), "kxai_tests>cubed", cubed),
    ],
)
def test_unknown_object_is_named(tmp_path, forgotten, ending, layer, name, value):
    path = saved(dense(layer()), tmp_path / f"custom.{ending}")
    forgotten()
    text, _ = message(path)
    assert f"objects that are not part of Keras: {name}.\n" in text
    assert f"pass custom_objects={{'{name}': ...}}" in text
    assert "Received: custom_objects with nothing in it" in text
    assert "custom_objects with other" in message(path, custom_objects={"other": value})[0]
    assert load(path, custom_objects={name: value}).name == "toy"
    # Keras itself says it where nothing is checked before.
    text, cause = message(path, safe_mode=False)
    assert name.split(">")[1] in text
    assert cause is not None


@pytest.mark.parametrize("name", ["toy.keras", "toy.h5"])
def test_truncated(tmp_path, name):
    path = saved(dense(), tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    text, cause = message(path)
    assert text.startswith(f"{path} is damaged.")
    assert f"Received: {len(whole) // 2} bytes" in text
    assert "copy or download the file again" in text
    assert cause is not None


@pytest.mark.parametrize("name", ["empty.keras", "empty.h5"])
def test_no_model(tmp_path, name):
    (tmp_path / name).touch()
    text, _ = message(tmp_path / name)
    assert "is no Keras model" in text
    assert "0 bytes that are neither" in text


def test_ending_and_content_must_agree(tmp_path):
    path = saved(dense(), tmp_path / "toy.h5")
    shutil.copy(path, tmp_path / "toy.keras")
    shutil.copy(saved(dense(), tmp_path / "other.keras"), tmp_path / "toy.zip")
    assert "a name that ends in .h5 or .hdf5, because the content is HDF5" in message(tmp_path / "toy.keras")[0]
    assert "a name that ends in .keras, because the content is a zip archive" in message(tmp_path / "toy.zip")[0]


def test_archive_without_a_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is a zip archive without a Keras model in it" in message(tmp_path / "a.keras")[0]


def test_weights_only(tmp_path):
    dense().save_weights(tmp_path / "toy.weights.h5")
    text, _ = message(tmp_path / "toy.weights.h5")
    assert "holds no model, at most weights" in text
    assert "model.load_weights(path)" in text


def test_folder_names_its_models(tmp_path):
    saved(dense(), tmp_path / "toy.keras")
    assert "take one of its models: toy.keras." in message(tmp_path)[0]


def test_missing(tmp_path):
    saved(dense(), tmp_path / "toy.keras")
    assert "did you mean toy.keras?" in message(tmp_path / "tay.keras")[0]
    assert "a folder that does not exist" in message(tmp_path / "nowhere" / "toy.keras")[0]


def test_anything_else_is_told_with_its_cause(tmp_path):
    path = saved(dense(), tmp_path / "toy.h5")
    edited(path, lambda config: config["config"]["layers"][1]["config"].update(units="three"))
    text, cause = message(path)
    assert text.startswith(f"Keras could not load {path}.")
    assert "units=three" in text
    assert "could not be deserialized" in str(cause)


def of_keras(version, path):
    """Saves a model whose layer has a setting that this Keras does not know, as if another version had done so."""
    saved(dense(), path)
    if path.suffix == ".h5":
        edited(path, lambda config: config["config"]["layers"][1]["config"].update(unheard_of=1))
        with h5py.File(path, "r+") as stored:
            stored.attrs["keras_version"] = version
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(entries["config.json"])
    config["config"]["layers"][1]["config"]["unheard_of"] = 1
    entries |= {"config.json": json.dumps(config), "metadata.json": json.dumps({"keras_version": version})}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["toy.keras", "toy.h5"])
@pytest.mark.parametrize("version", ["3.987.1", "4.0", "987.0.0.dev1"])
def test_a_file_of_a_newer_keras_asks_for_it(tmp_path, name, version):
    text, cause = message(of_keras(version, tmp_path / name))
    release = ".".join(version.split(".")[:2])
    assert f"Fix: the file is of Keras {release}, which may write what an older one does not know" in text
    assert f"install keras>={release}; " in text
    assert "unheard_of" in str(cause)


@pytest.mark.parametrize("name", ["toy.keras", "toy.h5"])
@pytest.mark.parametrize("version", ["3.0.0", keras.__version__, "3", "9" * 5000 + ".1", "٤.١"])
def test_a_file_of_this_or_an_older_keras_does_not(tmp_path, name, version):
    text, cause = message(of_keras(version, tmp_path / name))
    assert "Fix: see the original error above this one; a file of an older Keras is best saved again there" in text
    assert "unheard_of" in str(cause)
