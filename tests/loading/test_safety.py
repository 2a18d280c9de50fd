"""Files that were made to do harm: refused, in bounded time and memory, and nothing of them ran."""

from __future__ import annotations

import base64
import builtins
import contextlib
import json
import marshal
import os
import re
import resource
import shutil
import stat
import struct
import subprocess
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kxai.errors import LoadError
from kxai.loading import archives, hdf5, load, sizes, trees
from kxai.loading.request import Request
from tests.loading.test_formats import FIXTURES

HUGE = 10**12
MARK = b"code that is never read"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")], name="toy")
    folder = tmp_path_factory.mktemp("toy")
    model.save(folder / "toy.keras")
    model.save(folder / "toy.h5")
    model.save_weights(folder / "toy.weights.h5")
    (folder / "toy.json").write_text(model.to_json())
    return folder


@pytest.fixture
def bounded(monkeypatch):
    """Nothing of a file runs, and it costs far less than it asks for: 10 seconds (mostly below one) and 200 MB."""
    called = []
    for place in (os, "system"), (subprocess, "Popen"), (builtins, "eval"):
        monkeypatch.setattr(*place, lambda *arguments, **keywords: called.append(arguments))
    read = marshal.loads
    monkeypatch.setattr(marshal, "loads", lambda data: called.append(data) if MARK in bytes(data) else read(data))
    begin = time.process_time()  # the processor's seconds: no matter what else runs on the machine
    with contextlib.suppress(OSError):  # the peak counts from here, not that of the tests before; only Linux can
        Path("/proc/self/clear_refs").write_text("5")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    yield
    assert called == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200e3
    assert time.process_time() - begin < 10


def refusal(path, **arguments):
    with pytest.raises(LoadError) as caught:
        load(path, **arguments)
    return str(caught.value)


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(toy, tmp_path, change):
    """The archive with another configuration."""
    parts = members(toy / "toy.keras")
    config = json.loads(parts["config.json"])
    parts["config.json"] = json.dumps(change(config) or config).encode()
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def dense(config):
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense")


def write_h5(toy, tmp_path, change):
    path = shutil.copy(toy / "toy.h5", tmp_path / "bad.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


def write_json(toy, tmp_path, change):
    shutil.copy(toy / "toy.weights.h5", tmp_path)
    config = json.loads((toy / "toy.json").read_text())
    change(config)
    (tmp_path / "toy.json").write_text(json.dumps(config))
    return tmp_path / "toy.json"


def write_saved_model(toy, tmp_path, change):
    """A SavedModel of Keras 2 with another description of its layers."""
    folder = shutil.copytree(FIXTURES / "keras2_image_saved_model", tmp_path / "saved_model")
    config = {"class_name": "Sequential", "config": json.loads((FIXTURES / "keras2_image.json").read_text())["config"]}
    change(config)
    text = json.dumps({"name": "image", **config}).encode()

    def field(number, content):
        length = len(content)
        size = b""
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    node = field(3, b"root") + field(4, b"_tf_keras_sequential") + field(5, text)
    (folder / "keras_metadata.pb").write_bytes(field(1, node))
    return folder


WRITERS = [rewritten, write_h5, write_json, write_saved_model]
CODE = base64.b64encode(MARK).decode()


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "function",
    [
        {"class_name": "__lambda__", "config": {"code": CODE, "defaults": None, "closure": None}},
        [CODE, None, None],
        {"module": "keras.models", "class_name": "function", "config": "load_model", "registered_name": "function"},
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"},
        "eval",
    ],
)
def test_lambda(toy, tmp_path, write, function):
    def change(config):
        dense(config).update(class_name="Lambda", config={"name": "evil", "function": function, "arguments": {}})

    text = refusal(write(toy, tmp_path, change))
    assert "holds Python code that loading would run" in text
    assert "Lambda layers 'evil'" in text
    assert "only if you trust the origin" in text
    assert ("As a black box" in text) == (write is write_saved_model)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"module": "os", "class_name": "system", "config": {}, "registered_name": None}, "part of Keras: system."),
        ({"module": "os", "class_name": "function", "config": "system"}, "part of Keras: system."),
        ({"module": "builtins", "class_name": "function", "config": "eval"}, "part of Keras: eval."),
        ({"module": "subprocess", "class_name": "Popen", "config": {}}, "the file names the modules"),
        ({"module": "keras.layers", "class_name": "Dense", "config": "text"}, "keras.layers.Dense"),
        ({"module": "keras", "class_name": ["Dense"], "config": {}}, "do not belong into a model"),
        ({"module": "kxai.loading", "class_name": "Request", "config": {}, "registered_name": "a>b"}, "a>b"),
        (
            {"class_name": "__typespec__", "spec_name": "TensorSpec", "config": [], "module": "tensorflow"},
            "__typespec__",
        ),
    ],
)
def test_names_from_elsewhere(toy, tmp_path, write, item, said):
    text = refusal(write(toy, tmp_path, lambda config: dense(config)["config"].update(activation=item)))
    # A configuration of Keras 2 is translated first: a function has no module there.
    assert said in text or write is write_saved_model
    assert "not part of Keras" in text or "do not belong into a model" in text or "could not load" in text


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("write", [rewritten, write_h5, write_json])
@pytest.mark.parametrize(
    "item",
    [
        {"module": "keras.utils", "class_name": "function", "config": "get_file"},
        {"module": "keras.saving", "class_name": "function", "config": "load_model"},
        {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"},
        {"module": "keras.activations", "class_name": "function", "config": "deserialize"},
        {"module": "keras.callbacks", "class_name": "LambdaCallback", "config": {}},
        {"module": "keras.utils", "class_name": "PyDataset", "config": {}},
        {"module": "keras.src.utils.file_utils", "class_name": "function", "config": "get_file"},
        {"module": "keras.src.saving.saving_lib", "class_name": "DiskIOStore", "config": {"root_path": "/"}},
        {"module": "keras.src.backend", "class_name": "Variable", "config": {}},
    ],
)
def test_parts_of_keras_that_are_no_parts_of_models(toy, tmp_path, write, item):
    item = {"registered_name": item["config"] if item["class_name"] == "function" else None, **item}
    text = refusal(write(toy, tmp_path, lambda config: dense(config)["config"].update(activation=item)))
    assert "names parts of Keras that do not belong into a model" in text
    assert item["module"] in text


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
def test_layers_with_a_program_of_their_own(toy, tmp_path, write, name):
    text = refusal(write(toy, tmp_path, lambda config: dense(config).update(class_name=name)))
    assert "holds layers that run programs which are not made of layers" in text
    assert f"Received: {name}" in text


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("place", ["/etc/passwd", "http://169.254.169.254/latest/meta-data"])
def test_files_that_keras_would_open(toy, tmp_path, write, place):
    def change(config):
        dense(config).update(class_name="StringLookup", config={"name": "words", "vocabulary": place})

    text = refusal(write(toy, tmp_path, change))
    assert "names a file or address that Keras would open" in text
    assert f"vocabulary='{place}' of StringLookup" in text


@pytest.mark.usefixtures("bounded")
def test_an_array_of_a_huge_text(toy, tmp_path):
    item = {"class_name": "__numpy__", "config": {"value": ["x"], "dtype": f"U{HUGE}"}}
    text = refusal(rewritten(toy, tmp_path, lambda config: dense(config)["config"].update(kernel_initializer=item)))
    assert "objects that are not part of Keras: __numpy__" in text


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("write", WRITERS)
def test_a_model_larger_than_its_weights(toy, tmp_path, write):
    text = refusal(write(toy, tmp_path, lambda config: dense(config)["config"].update(units=HUGE)))
    assert "describes a model that is larger than the weights stored with it" in text
    assert "parameters" in text
    assert "000000000" in text.split("Received: ")[1]


@pytest.mark.usefixtures("bounded")
def test_a_huge_model_of_keras2(tmp_path):
    path = shutil.copy(FIXTURES / "keras2_image.keras", tmp_path / "bad.keras")
    parts = members(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b'"units": 3', f'"units": {HUGE}'.encode()))
    assert "larger than the weights stored with it" in refusal(path)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "assets/words.txt"])
def test_zip_bomb(toy, tmp_path, name, compression):
    path = tmp_path / "bomb.keras"
    zeros = b"\0" * 2**20
    with zipfile.ZipFile(path, "w", compression) as archive:
        for other, content in members(toy / "toy.keras").items():
            if other != name:
                archive.writestr(other, content)
        with archive.open(name, "w") as stream:
            for _ in range(60 if compression == zipfile.ZIP_DEFLATED else 1):
                stream.write(zeros)
    if compression == zipfile.ZIP_STORED:
        # The directory, in which the entry stands last, claims more than there is.
        whole = bytearray(path.read_bytes())
        place = whole.rindex(b"PK\x01\x02") + 24
        assert whole[place : place + 4] == (2**20).to_bytes(4, "little")
        whole[place : place + 4] = (2**31).to_bytes(4, "little")
        path.write_bytes(whole)
    text = refusal(path)
    assert "unpacks to far more than a model of its size holds" in text
    assert "at most" in text


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "assets/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
def test_zip_slip(toy, tmp_path, name):
    path = shutil.copy(toy / "toy.keras", tmp_path / "slip.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "text")
    for safe_mode in (True, False):
        text = refusal(path, safe_mode=safe_mode)
        assert "has entries that point out of the archive" in text
        assert repr(name) in text
    assert not list(tmp_path.parent.glob("evil.txt"))


def test_zip_with_a_link(toy, tmp_path):
    path = shutil.copy(toy / "toy.keras", tmp_path / "link.keras")
    link = zipfile.ZipInfo("assets")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc")
    assert "has entries that point out of the archive" in refusal(path)


def test_zip_with_an_entry_twice(toy, tmp_path):
    path = shutil.copy(toy / "toy.keras", tmp_path / "twice.keras")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", "{}")
    text = refusal(path)
    assert "has entries that are there twice" in text
    assert "'config.json'" in text


def kernel_of(file):
    return "model_weights/d/toy/d/kernel"


def external(file, folder):
    (folder / "values.bin").write_bytes(b"\0" * 48)
    del file[kernel_of(file)]
    file.create_dataset(kernel_of(file), (4, 3), "f4", external=[(str(folder / "values.bin"), 0, 48)])


def virtual(file, folder):
    del file[kernel_of(file)]
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "values", (4, 3))
    file.create_virtual_dataset(kernel_of(file), layout)


def linked(file, folder):
    del file[kernel_of(file)]
    file[kernel_of(file)] = h5py.ExternalLink(str(folder / "other.h5"), "/values")


def soft(file, folder):
    file["model_weights/more"] = h5py.SoftLink("/model_weights/d")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (external, "values that lie in other files"),
        (virtual, "values that lie in other files"),
        (linked, "a link at"),
        (soft, "a link at"),
    ],
)
@pytest.mark.parametrize("ending", ["h5", "json"])
def test_hdf5_that_reaches_out(toy, tmp_path, change, said, ending):
    path = shutil.copy(toy / "toy.h5", tmp_path / "toy.h5")
    shutil.copy(toy / "toy.json", tmp_path)
    with h5py.File(path, "r+") as file:
        assert kernel_of(file) in file
        change(file, tmp_path)
    text = refusal(tmp_path / f"toy.{ending}")
    assert "reaches out of itself" in text
    assert said in text


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("shape", [(HUGE,), (10**6, 10**6)])
def test_hdf5_bomb(toy, tmp_path, shape):
    path = shutil.copy(toy / "toy.h5", tmp_path / "bomb.h5")
    with h5py.File(path, "r+") as file:
        file.create_dataset("model_weights/more", shape, "f4", chunks=True, compression="gzip")
    assert "unpacks to far more than a model of its size holds" in refusal(path)


@pytest.mark.usefixtures("bounded")
def test_hdf5_bomb_in_an_archive(toy, tmp_path):
    parts = members(toy / "toy.keras")
    file = tmp_path / "w.h5"
    file.write_bytes(parts["model.weights.h5"])
    with h5py.File(file, "r+") as opened:
        opened.create_dataset("more", (HUGE,), "f4", chunks=True, compression="gzip")
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "model.weights.h5": file.read_bytes()}.items():
            archive.writestr(name, content)
    assert "unpacks to far more than a model of its size holds" in refusal(path)


def in_itself(file):
    file["again"] = file["/"]


def by_many_ways(file):
    group = file.create_group("more")
    for _ in range(40):  # 2 to the power of 40 ways, were they followed
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def large_chunk(file):
    file.create_dataset("more", (4, 3), "f4", maxshape=(None, None), chunks=(10**4, 10**4), compression="gzip")


def of_any_length(file):
    file.create_dataset("more", (2,), h5py.string_dtype())


def other_than_texts(file):
    file.attrs.create("layer_names", [np.arange(3), np.arange(4)], dtype=h5py.vlen_dtype(np.int32))


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_itself, "a second name of an object"),
        (by_many_ways, "a second name of an object"),
        (of_any_length, "values without a size"),
        (large_chunk, "unpacks to far more"),
        (other_than_texts, "attributes of other things than texts"),
    ],
)
@pytest.mark.parametrize("name", ["toy.h5", "keras2_image.keras"])
def test_hdf5_that_multiplies_itself(toy, tmp_path, name, change, said):
    if name == "toy.h5":
        path = shutil.copy(toy / name, tmp_path)
        with h5py.File(path, "r+") as file:
            change(file)
        assert said in refusal(path)
        return
    parts = members(FIXTURES / name)
    (tmp_path / "w.h5").write_bytes(parts["model.weights.h5"])
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        change(file)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member, content in {**parts, "model.weights.h5": (tmp_path / "w.h5").read_bytes()}.items():
            archive.writestr(member, content)
    assert said in refusal(tmp_path / name)


LONG, COUNT = 2 * 10**6, 3000


def same_text_again(path):
    """Lets an array of short texts name one long text in each place: gigabytes, were it read."""
    with h5py.File(path, "r+") as file:
        file.attrs["long"] = "x" * LONG
        file.attrs.create("layer_names", ["a" * 7] * COUNT, dtype=h5py.string_dtype())
    content = bytearray(path.read_bytes())
    # Length, place in the file and number of a text take 16 bytes.
    long, record = content.index(struct.pack("<I", LONG)), re.escape(struct.pack("<I", 7)) + b".{12}"
    short = re.search(record * 4, content, re.DOTALL).start()
    content[short : short + 16 * COUNT] = content[long : long + 16] * COUNT
    path.write_bytes(content)


@pytest.mark.usefixtures("bounded")
def test_texts_that_are_the_same_in_the_file(toy, tmp_path):
    shutil.copy(toy / "toy.h5", tmp_path)
    same_text_again(tmp_path / "toy.h5")
    text = refusal(tmp_path / "toy.h5")
    assert "unpacks to far more than a model of its size holds" in text
    assert f"{LONG * COUNT} bytes" in text


def test_many_layers_with_names(tmp_path):
    """Names, as the files of large models have hundreds of, are no more than they are long."""
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.zeros(50_000, np.float32)
        file.attrs.create("layer_names", [f"layer_{index}" for index in range(150)], dtype=h5py.string_dtype())
    size = path.stat().st_size
    assert 150 * size > archives.bound(size)
    assert hdf5.check(path, path, size) == 200_000


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("mean", [None, 0.5])
def test_a_normalization_larger_than_its_weights(toy, tmp_path, mean):
    def change(config):
        layers = config["config"]["layers"]
        layers[0]["config"]["batch_shape"] = [None, 10**9]
        settings = {"name": "n", "axis": -1, "mean": mean, "variance": mean}
        layers[1] = {"module": "keras.layers", "class_name": "Normalization", "config": settings}

    assert "larger than the weights stored with it" in refusal(rewritten(toy, tmp_path, change))


@pytest.mark.usefixtures("bounded")
def test_a_call_on_constants(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(3, name="d")(inputs)).save(tmp_path / "toy.keras")
    zero = {"class_name": "__numpy__", "config": {"value": [0.0], "dtype": "float32"}}
    operation = {"module": "keras.src.ops.numpy", "class_name": "BroadcastTo", "config": {"shape": [10**5, 10**5]}}
    call = {**operation, "name": "huge", "inbound_nodes": [{"args": [zero], "kwargs": {}}]}
    text = refusal(rewritten(tmp_path, tmp_path, lambda config: config["config"]["layers"].append(call)))
    assert "calls a layer on no output of another" in text
    assert "constants alone for 'huge'" in text


@pytest.mark.parametrize("argument", ["path", "weights"])
def test_a_pipe_is_not_waited_for(toy, tmp_path, argument):
    pipe = tmp_path / "pipe.h5"
    os.mkfifo(pipe)
    text = refusal(pipe) if argument == "path" else refusal(toy / "toy.json", weights=pipe)
    assert "a device, pipe or socket" in text


def test_a_folder_that_reaches_out(tmp_path):
    """Links lead out of no folder but of one in the cache of Hugging Face, and there to its files alone."""
    folder = shutil.copytree(FIXTURES / "keras2_image_saved_model", tmp_path / "model")
    data = folder / "variables" / "variables.index"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    text = refusal(folder)
    assert "reaches out of itself" in text
    assert "variables/variables.index, a link to elsewhere" in text
    assert isinstance(load(folder, safe_mode=False), keras.Model)
    data.unlink()
    os.mkfifo(data)
    assert "a device, pipe or socket" in refusal(folder)
    (tmp_path / "models" / "snapshots").mkdir(parents=True)
    (tmp_path / "models" / "blobs").mkdir()
    data.unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "models" / "blobs" / "1")
    data.symlink_to(tmp_path / "models" / "blobs" / "1")
    folder.rename(tmp_path / "models" / "snapshots" / "a")
    assert isinstance(load(tmp_path / "models" / "snapshots" / "a"), keras.Model)


class Table(tf.Module):
    """A table that is filled while its SavedModel is loaded: with stored keys, or with computed ones."""

    def __init__(self, keys):
        super().__init__()
        one = tf.constant([1], tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(one, one), 0)

        def fill(table):
            found = keys()
            return tf.raw_ops.LookupTableImportV2(table_handle=table.resource_handle, keys=found, values=found)

        self.table._initializer.initialize = fill
        self.words = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)
        self.words.insert(one, one)

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.int64, "x")])
    def look(self, x):
        found = tf.cast(self.table.lookup(x) + self.words.lookup(x), tf.float32)
        return {"y": tf.ensure_shape(found, (None, 2))}


def stored():
    return tf.constant([1], tf.int64)


def endless():
    return tf.while_loop(lambda n: n > 0, lambda n: [n + 1], [tf.constant([1], tf.int64)])[0]


def enormous():
    return tf.range(tf.constant(HUGE, tf.int64))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for keys in (stored, endless, enormous):
        module = Table(keys)
        tf.saved_model.save(module, str(folder / keys.__name__), signatures={"serve": module.look})
    return folder


@pytest.mark.usefixtures("tables", "bounded")
@pytest.mark.parametrize(("keys", "said"), [("endless", "While"), ("enormous", "Range")])
def test_a_graph_that_computes_while_it_is_loaded(tables, keys, said):
    text = refusal(tables / keys)
    assert "has a graph that computes while it is loaded" in text
    assert said in text


def test_tables_of_stored_values_load(tables):
    assert load(tables / "stored")(np.array([[1, 2]])).numpy().tolist() == [[2.0, 0.0]]


@pytest.mark.usefixtures("bounded")
def test_a_constant_larger_than_the_file(tmp_path):
    folder = shutil.copytree(FIXTURES / "plain", tmp_path / "plain")
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    node = saved.meta_graphs[0].graph_def.node.add(name="many", op="Const")
    node.attr["dtype"].type = node.attr["value"].tensor.dtype = 1
    node.attr["value"].tensor.float_val.append(1.0)
    node.attr["value"].tensor.tensor_shape.dim.add(size=HUGE)
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    assert "unpacks to far more than a model of its size holds" in refusal(folder)


@pytest.mark.usefixtures("bounded")
def test_places_for_unknown_words(toy, tmp_path):
    settings = {"name": "words", "vocabulary": [1, 2], "num_oov_indices": HUGE}
    path = rewritten(toy, tmp_path, lambda config: dense(config).update(class_name="IntegerLookup", config=settings))
    text = refusal(path)
    assert "more places for unknown words than any has" in text
    assert "num_oov_indices of at most 1000000" in text


@pytest.mark.usefixtures("bounded")
def test_weights_in_a_format_that_is_not_checked(toy, tmp_path):
    parts = members(toy / "toy.keras")
    del parts["model.weights.h5"]
    np.savez_compressed(tmp_path / "w.npz", **{"layers/d": np.zeros(10**5)})
    with zipfile.ZipFile(tmp_path / "npz.keras", "w") as archive:
        for name, content in {**parts, "model.weights.npz": (tmp_path / "w.npz").read_bytes()}.items():
            archive.writestr(name, content)
    assert "a zip archive without a Keras model in it" in refusal(tmp_path / "npz.keras")


def test_a_checkpoint_of_too_many_ways(monkeypatch):
    monkeypatch.setattr(trees, "_WAYS", 0)
    assert "refer to each other in too many ways" in refusal(FIXTURES / "keras2_image_saved_model")


def test_a_variable_made_of_values(tmp_path):
    class Ones(keras.layers.Layer):
        def build(self, shape):
            self.ones = keras.Variable(np.ones(shape[-1], np.float32))

        def call(self, x):
            return x * self.ones

    path = tmp_path / "ones.keras"
    keras.Sequential([keras.Input((3,)), Ones()]).save(path)
    text = refusal(path, custom_objects={"Ones": Ones})
    assert "cannot be measured before it is built" in text
    assert "add_weight and an initializer" in text
    assert len(load(path, safe_mode=False, custom_objects={"Ones": Ones}).weights) == 1


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("depth", [300, 100_000])
@pytest.mark.parametrize("kind", ["list", "object"])
def test_deep_nesting(toy, tmp_path, depth, kind):
    begin, end = ("[", "]") if kind == "list" else ('{"config": ', "}")
    (tmp_path / "deep.json").write_text('{"class_name": ' + begin * depth + "1" + end * depth + "}")
    text = refusal(tmp_path / "deep.json", weights=toy / "toy.weights.h5")
    assert "holds a configuration that is nested too deeply" in text
    assert "at most 200 levels" in text


def test_text_that_is_no_configuration(toy, tmp_path):
    for content, said in (("{", "no configuration that can be read"), ('{"a": 1}', "could not load")):
        (tmp_path / "odd.json").write_text(content)
        assert said in refusal(tmp_path / "odd.json", weights=toy / "toy.weights.h5")


@pytest.mark.usefixtures("bounded")
def test_building_ends_in_time(toy, tmp_path, monkeypatch):
    """Also of a layer that builds for a minute and suppresses errors."""
    built = []

    class Slow(keras.layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with contextlib.suppress(Exception):
                    time.sleep(0.01)
            built.append(self)

    monkeypatch.setattr(sizes, "SECONDS", 0.1)
    path = rewritten(toy, tmp_path, lambda config: dense(config).update(class_name="Slow", registered_name="Slow"))
    text = refusal(path, custom_objects={"Slow": Slow})
    assert "describes a model that takes too long to build" in text
    assert "at most 0.1 seconds" in text
    assert not any(thread.name == "kxai-outline" for thread in threading.enumerate())
    assert not built


def test_a_thread_that_has_built_is_not_interrupted(toy, monkeypatch):
    """What follows in it is Python's own end of a thread; an exception there is one that pytest reports."""
    config, request = json.loads(members(toy / "toy.keras")["config.json"]), Request(toy / "toy.keras")
    begin = time.monotonic()
    sizes.check(config, 0, request)
    seconds = time.monotonic() - begin
    for share in np.linspace(0.2, 1.5, 100):  # some are refused when their model is just built
        monkeypatch.setattr(sizes, "SECONDS", share * seconds)
        with contextlib.suppress(LoadError):
            sizes.check(config, 0, request)
    assert not any(thread.name == "kxai-outline" for thread in threading.enumerate())


def test_an_exit_while_building_is_the_callers(toy, tmp_path):
    class Exit(keras.layers.Dense):
        def build(self, input_shape):
            raise SystemExit(3)

    path = rewritten(toy, tmp_path, lambda config: dense(config).update(class_name="Exit", registered_name="Exit"))
    with pytest.raises(SystemExit, match="3"):
        load(path, custom_objects={"Exit": Exit})


def test_a_caller_who_is_interrupted_leaves_no_thread(toy, tmp_path, monkeypatch):
    begun = threading.Event()

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            if timeout == sizes.SECONDS:
                begun.wait()
                raise KeyboardInterrupt
            return super().wait(timeout)

    class Endless(keras.layers.Dense):
        def build(self, input_shape):
            begun.set()
            while threading.main_thread().is_alive():
                time.sleep(0.01)

    monkeypatch.setattr(threading, "Event", Interrupted)
    path = rewritten(toy, tmp_path, lambda c: dense(c).update(class_name="Endless", registered_name="Endless"))
    with pytest.raises(KeyboardInterrupt):
        load(path, custom_objects={"Endless": Endless})
    assert not any(thread.name == "kxai-outline" for thread in threading.enumerate())


def test_checking_leaves_nothing_behind(toy):
    """Neither names that Keras counts nor variables that it still has to make."""
    before = keras.layers.Dense(1).name
    load(toy / "toy.keras")
    after = keras.layers.Dense(1).name
    number = int(before.rpartition("_")[2]) if before[-1].isdecimal() else 0
    assert after == f"dense_{number + 1}"
    with keras.StatelessScope():
        pass


def test_what_is_not_checked_loads_when_trusted(toy, tmp_path):
    path = rewritten(toy, tmp_path, lambda config: dense(config)["config"].update(units=3))
    np.testing.assert_array_equal(load(path, safe_mode=False)(np.eye(4)), load(path)(np.eye(4)))
