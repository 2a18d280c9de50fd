"""Messages, tensors and records are those of TensorFlow and of TensorFlow Serving, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2
from google.protobuf import message as protobuf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from kxai import wire
from kxai.errors import InputError, MissingDependencyError
from kxai.wire import messages

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def apis():
    """The messages of tensorflow_serving."""
    if not os.environ.get("CI"):
        pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        predict_pb2,
        prediction_log_pb2,
    )

    modules = (get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2, prediction_log_pb2)
    return {name: getattr(m, name) for m in modules for name in m.DESCRIPTOR.message_types_by_name}


ARRAYS = {
    "float32": RNG.normal(size=(2, 3)).astype(np.float32),
    "float64": RNG.normal(size=(3, 1)),
    "float16": RNG.normal(size=(4,)).astype(np.float16),
    "int8": np.int8([[-3, 4]]),
    "int16": np.int16([[-300, 4]]),
    "int32": np.int32([-1, 2**31 - 1]),
    "int64": np.int64([-(2**40), 5]),
    "uint8": np.uint8([0, 255]),
    "uint16": np.uint16([0, 65535]),
    "uint32": np.uint32([2**32 - 1]),
    "uint64": np.uint64([2**64 - 1]),
    "bool": np.array([[True], [False]]),
    "complex64": np.complex64([1 + 2j, -3j]),
    "complex128": np.complex128([[1 + 2j], [-3j]]),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.float32(2.5),
    "nan": np.float32([np.nan, np.inf, -np.inf]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_tensorflow_reads_what_is_written(name):
    written = wire.to_tensor(ARRAYS[name]).SerializeToString()
    read = tf.make_ndarray(tensor_pb2.TensorProto.FromString(written))
    assert read.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(read, ARRAYS[name])


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("name", ARRAYS)
def test_what_tensorflow_writes_is_read(name, content):
    # TensorFlow fills either the field of the type or tensor_content, and servers let their operators choose.
    array = ARRAYS[name]
    proto = tf.make_tensor_proto(array)
    if not content:
        listed = array.ravel().tolist() or [0]
        proto = tf.make_tensor_proto(listed, dtype=proto.dtype, shape=array.shape) if array.size else proto
    read = wire.from_tensor(messages.message("TensorProto").FromString(proto.SerializeToString()))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16, tf.float32, tf.int32, tf.int64, tf.bool, tf.complex64])
def test_fields_and_content_say_the_same(dtype):
    # Values without rounding, so that bfloat16 holds them exactly.
    values = tf.cast(tf.constant([[1, 0], [1, 1]]), dtype)
    read = [
        wire.from_tensor(messages.message("TensorProto").FromString(proto.SerializeToString()))
        for proto in (
            tf.make_tensor_proto(values),
            tf.make_tensor_proto(dtype.as_numpy_dtype(1).item(), dtype=dtype, shape=(2, 2)),
        )
    ]
    np.testing.assert_array_equal(read[0], [[1, 0], [1, 1]])
    np.testing.assert_array_equal(read[1], np.ones((2, 2)))  # one value stands for all


def test_text():
    tensor = wire.to_tensor(np.array([["ä", "b"]]))
    assert tf.make_ndarray(tensor_pb2.TensorProto.FromString(tensor.SerializeToString())).tolist() == [
        ["ä".encode(), b"b"]
    ]
    array = np.empty(2, object)
    array[:] = [b"\x00\xff\x00", b""]  # NumPy's own bytes would drop the last zero
    assert wire.from_tensor(wire.to_tensor(array)).tolist() == [b"\x00\xff\x00", b""]


def test_lists_of_texts_keep_their_zeros():
    assert wire.from_tensor(wire.to_tensor([b"a\x00\x00", "b\x00"])).tolist() == [b"a\x00\x00", b"b\x00"]
    assert wire.from_tensor(wire.to_tensor(b"\x00")).tolist() == b"\x00"


@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64"])
def test_tensors_without_values_are_zero(dtype):
    tensor = wire.message("TensorProto")(dtype=wire.DTYPES[dtype])
    tensor.tensor_shape.dim.add(size=2)
    expected = tf.make_ndarray(tensor_pb2.TensorProto.FromString(tensor.SerializeToString()))
    np.testing.assert_array_equal(wire.from_tensor(tensor), expected)


@pytest.mark.parametrize(
    ("dtype", "sizes", "values"),
    [
        ("float32", [1], {"tensor_content": b"abc"}),
        ("float32", [2], {"tensor_content": b"abcd"}),
        ("float32", [-1], {"float_val": [1.0]}),
        ("float32", [0, -5], {}),
        ("float32", [1] * 100, {"float_val": [1.0]}),
        ("float32", [10**14], {"float_val": [1.0]}),
        ("int8", [1], {"int_val": [300]}),
        ("uint8", [1], {"int_val": [-1]}),
        ("float16", [1], {"half_val": [70_000]}),
        ("complex64", [1], {"scomplex_val": [1.0]}),
    ],
)
def test_tensors_that_contradict_themselves(dtype, sizes, values):
    tensor = wire.message("TensorProto")(dtype=wire.DTYPES[dtype], **values)
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    with pytest.raises(InputError, match=r"incomplete|does not hold what its type and its shape say"):
        wire.from_tensor(tensor)


def test_bad_tensors():
    for value in ([["a"], ["b", "c"]], [[1], [1, 2]]):
        with pytest.raises(InputError, match="This is no array"):
            wire.to_tensor(value)
    with pytest.raises(InputError, match=r"something else than text(.|\n)*int 1"):
        wire.to_tensor([1, "a"])
    with pytest.raises(InputError, match=r"TensorFlow has no type(.|\n)*datetime64"):
        wire.to_tensor(np.array(["2020-01-01"], "datetime64[D]"))
    with pytest.raises(InputError, match="something else than text"):
        wire.to_tensor(np.array([None]))
    tensor = wire.to_tensor(np.zeros(3, np.float32))
    tensor.tensor_shape.dim[0].size = 4
    with pytest.raises(InputError, match=r"incomplete(.|\n)*4 values(.|\n)*Received: 3"):
        wire.from_tensor(tensor)
    tensor.dtype = 20
    with pytest.raises(InputError, match="DataType 20"):
        wire.from_tensor(tensor)


@pytest.mark.parametrize("version", [None, 3, "stable"])
def test_predict_request_is_that_of_the_server(apis, version):
    inputs = {"image": ARRAYS["float32"], "target": np.int32([-1, 2])}
    ours = wire.predict_request("digits", "explain", inputs, version=version, outputs=["relevance"])
    theirs = apis["PredictRequest"]()
    theirs.model_spec.name, theirs.model_spec.signature_name = "digits", "explain"
    if isinstance(version, str):
        theirs.model_spec.version_label = version
    elif version is not None:
        theirs.model_spec.version.value = version
    for name, array in inputs.items():
        theirs.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    theirs.output_filter.append("relevance")
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def described(message):
    found = descriptor_pb2.DescriptorProto()
    message.DESCRIPTOR.CopyToProto(found)
    return found


def test_every_message_has_the_fields_of_the_server(apis):
    theirs = {**apis, "TensorProto": tensor_pb2.TensorProto, "TensorShapeProto": tensor_shape_pb2.TensorShapeProto}
    theirs |= {name: getattr(meta_graph_pb2, name) for name in ("SignatureDef", "TensorInfo")}
    enums = {"dtype", "state", "error_code"}  # travel as int32
    compared = 0
    for name in theirs.keys() & messages._classes().keys():
        others = {field.name: field for field in described(theirs[name]).field}
        for field in described(messages.message(name)).field:
            other = others[field.name]
            assert (field.number, field.label) == (other.number, other.label), (name, field.name)
            assert field.type == other.type or field.name in enums, (name, field.name)
            compared += 1
    assert compared > 40


def test_metadata_is_read(apis):
    signature = apis["SignatureDefMap"]()
    info = signature.signature_def["explain"].inputs["image"]
    info.dtype = tf.float32.as_datatype_enum
    info.tensor_shape.CopyFrom(tf.TensorShape([None, 8]).as_proto())
    theirs = apis["GetModelMetadataResponse"]()
    theirs.metadata["signature_def"].Pack(signature)
    packed = messages.message("GetModelMetadataResponse").FromString(theirs.SerializeToString()).metadata
    assert packed["signature_def"].type_url == messages.MODEL_METADATA
    read = messages.message("SignatureDefMap").FromString(packed["signature_def"].value)
    found = read.signature_def["explain"].inputs["image"]
    assert (found.dtype, [dim.size for dim in found.tensor_shape.dim]) == (wire.DTYPES["float32"], [-1, 8])


def test_records_are_tensorflows(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 50]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert b"".join(map(wire.framed, records)) == (tmp_path / "theirs").read_bytes()


def test_warmup_records_are_read_back(apis, tmp_path):
    inputs = {"image": ARRAYS["float32"], "target": np.int32([-1, 2])}
    names = ["serving_default", "explain"]
    (tmp_path / "warmup").write_bytes(b"".join(wire.warmup_records(name, "digits", inputs) for name in names))
    logs = [apis["PredictionLog"].FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(tmp_path / "warmup"))]
    assert [log.WhichOneof("log_type") for log in logs] == ["predict_log"] * 2
    assert [log.predict_log.request.model_spec.signature_name for log in logs] == names
    for name, array in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(logs[1].predict_log.request.inputs[name]), array)


def test_messages_do_not_meet_tensorflows():
    assert not isinstance(messages.message("TensorProto")(), tensor_pb2.TensorProto)
    assert isinstance(messages.message("TensorProto")(), protobuf.Message)


def test_threads_that_are_the_first_to_ask_get_the_same_messages():
    """Those of two pools cannot be put into each other."""
    messages._classes.cache_clear()
    together = threading.Barrier(8, timeout=60)

    def work(_):
        together.wait()
        return messages.message("PredictRequest")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(8)))) == 1


def test_without_protobuf():
    code = (
        "import sys; sys.modules['google.protobuf'] = None\n"
        "from kxai import wire\n"
        "try: wire.to_tensor([1.0])\n"
        "except wire.messages.MissingDependencyError as error: sys.exit(str(error))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1
    assert 'pip install "kxai[serving]"' in run.stderr
    assert issubclass(MissingDependencyError, ImportError)


def test_tensorflow_is_not_imported():
    code = "import sys; from kxai import wire; wire.to_tensor([1.0]); print({'keras', 'tensorflow'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.stdout == "set()\n"
