"""Calls of signatures in files, and two loaders that answer them: the third is ``loader.cc``, which has the format.

    python calls.py load|session FOLDER REQUESTS REPLIES [FOLDER REQUESTS REPLIES ...]

Run as a script, it can import neither Keras nor kxai.
"""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np

CODES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "object": 7, "int64": 9}
NAMES = {code: name for name, code in CODES.items()}


def pack(calls):
    """The bytes of requests, ``[(signature, {name: array})]``, or of replies, ``[(error, {name: array})]``."""
    out = io.BytesIO()
    for text, tensors in calls:
        _put_text(out, text.encode())
        _put(out, len(tensors))
        for name, array in tensors.items():
            _put_text(out, name.encode())
            _put_array(out, array)
    return out.getvalue()


def unpack(data):
    """The calls in these bytes."""
    stream, calls = io.BytesIO(data), []
    while stream.tell() < len(data):
        text = _text(stream).decode()
        calls.append((text, {_text(stream).decode(): _array(stream) for _ in range(_number(stream))}))
    return calls


def _put(out, *numbers):
    out.write(struct.pack(f"={len(numbers)}q", *numbers))


def _put_text(out, text):
    _put(out, len(text))
    out.write(text)


def _put_array(out, array):
    array = np.asarray(array)
    _put(out, CODES[array.dtype.name], array.ndim, *array.shape)
    if array.dtype == object:
        for text in array.ravel():
            _put_text(out, text)
    else:
        out.write(np.ascontiguousarray(array).tobytes())


def _number(stream):
    return struct.unpack("=q", stream.read(8))[0]


def _text(stream):
    return stream.read(_number(stream))


def _array(stream):
    name = NAMES[_number(stream)]
    shape = [_number(stream) for _ in range(_number(stream))]
    count = int(np.prod(shape))
    if name == "object":
        array = np.empty(count, object)
        array[:] = [_text(stream) for _ in range(count)]
    else:
        array = np.frombuffer(stream.read(count * np.dtype(name).itemsize), name)
    return array.reshape(shape)


def _loaded(tf, folder):
    """(signature, arrays) -> arrays, by ``tf.saved_model.load``."""
    loaded = tf.saved_model.load(folder)

    def call(signature, arrays):
        tensors = {
            name: tf.constant(array, tf.string if array.dtype == object else None) for name, array in arrays.items()
        }
        return {name: tensor.numpy() for name, tensor in loaded.signatures[signature](**tensors).items()}

    return call


def _session(tf, folder):
    """The same by the loader of TensorFlow 1 and a session."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)

    def call(signature, arrays):
        facts = meta.signature_def[signature]
        fed = {facts.inputs[name].name: array for name, array in arrays.items()}
        return session.run({name: info.name for name, info in facts.outputs.items()}, fed)

    return call


def main(kind, *paths):
    for hidden in ("keras", "tf_keras", "kxai"):
        sys.modules[hidden] = None
    import tensorflow as tf

    for folder, requests, replies in zip(*[iter(paths)] * 3, strict=True):
        call = {"load": _loaded, "session": _session}[kind](tf, folder)
        answers = []
        for signature, arrays in unpack(Path(requests).read_bytes()):
            try:
                answers.append(("", {name: _plain(array) for name, array in call(signature, arrays).items()}))
            except tf.errors.OpError as error:
                answers.append((str(error), {}))
        Path(replies).write_bytes(pack(answers))


def _plain(array):
    return np.asarray(array, object) if np.asarray(array).dtype.kind in "SO" else array


if __name__ == "__main__":
    main(*sys.argv[1:])
