"""Replies over REST that are odd, or of something else than TensorFlow Serving."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from http.client import HTTPConnection

import numpy as np
import pytest

from kxai.errors import InputError, ServingError
from kxai.serving import Client, Signature, Spec


def whole_request(connection):
    """Head and body, which may arrive apart."""
    received = b""
    size = None
    while size is None or len(received) < size:
        part = connection.recv(65536)
        if not part:
            break
        received += part
        head, end, _ = received.partition(b"\r\n\r\n")
        if end:
            body = re.search(rb"content-length: *(\d+)", head.lower())
            size = len(head + end) + (int(body[1]) if body else 0)
    return received


@contextlib.contextmanager
def answering(reply):
    """A port where every connection gets one reply."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    with listening.accept()[0] as one:
                        whole_request(one)
                        one.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def http(content):
    data = json.dumps(content).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


OUTPUTS = {"y": [[1, 2.5]], "number": [3], "text": ["a"], "yes": [True]}
SPECS = {
    "y": Spec("bfloat16", (None, 2)),
    "number": Spec("int32", (None,)),
    "text": Spec("string", (None,)),
    "yes": Spec("bool", (None,)),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"y": [[float("nan"), float("-inf")]]}, None),
        ({"y": [[1e300, 1]]}, "does not hold"),
        ({"y": [[1]]}, "wrong shape"),
        ({"y": [[None, 1]]}, "something else than numbers"),
        ({"y": []}, "wrong shape"),
        ({"y": [[1, 2], [3, 4]]}, "another number of samples"),
        ({"number": [1.5]}, "wrong type"),
        ({"number": [2**40]}, "does not hold"),
        ({"number": [True]}, "wrong type"),
        ({"yes": [2]}, "wrong type"),
        ({"text": "a"}, "wrong shape"),
        ({"text": [1]}, "text or bytes"),
        ({"text": [{"b64": "?"}]}, "not in base64"),
        ({"text": None}, "text or bytes"),
    ],
)
def test_replies_are_what_the_signature_says_or_errors(change, message):
    with answering(http({"outputs": {**OUTPUTS, **change}})) as port, Client(f"127.0.0.1:{port}", "m") as client:
        client._known = {"f": Signature({"x": Spec("float32", (None, 1))}, SPECS)}
        if message is None:
            got = client.predict([[1.0]], "f")
            assert {name: array.dtype for name, array in got.items()} == {
                "y": np.float32, "number": np.int32, "text": object, "yes": bool,
            }  # fmt: skip
            np.testing.assert_array_equal(got["y"], np.float32(change.get("y", OUTPUTS["y"])))
            assert got["text"].tolist() == [b"a"]  # as gRPC returns it
            return
        with pytest.raises(ServingError, match=message) as caught:
            client.predict([[1.0]], "f")
        assert "no reply of TensorFlow Serving" in str(caught.value)


def test_other_services_are_not_waited_for():
    for reply in (http([]), b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", b"SSH-2.0-OpenSSH\r\n"):
        with answering(reply) as port, Client(f"127.0.0.1:{port}", "m") as client:
            with pytest.raises(ServingError, match="no reply of TensorFlow Serving") as caught:
                client.ready()
            assert caught.value.code == "UNREADABLE"


def test_signatures_without_inputs_have_no_batch():
    with Client("localhost:1", "m") as client:
        client._known = {"f": Signature({}, SPECS)}
        with pytest.raises(InputError, match=r"batch sizes do not fit(.|\n)*Received: \{\}"):
            client.predict({}, "f")


def test_types_that_numpy_does_not_have_are_told():
    tensors = {"x": {"dtype": "DT_VARIANT", "tensor_shape": {"dim": [{"size": "-1"}]}}}
    reply = http({"metadata": {"signature_def": {"signature_def": {"f": {"inputs": tensors, "outputs": tensors}}}}})
    with answering(reply) as port, Client(f"127.0.0.1:{port}", "m") as client:
        assert str(client.metadata()["f"].inputs["x"]) == "DT_VARIANT (batch,)"
        with pytest.raises(InputError, match=r"no arrays of the type that x has(.|\n)*DT_VARIANT"):
            client.predict([1], "f")


def test_a_reply_that_breaks_off_is_not_asked_for_again(monkeypatch):
    """The connection was kept, and was good: the request has been computed."""
    asked, heads, original = [], threading.Semaphore(0), HTTPConnection.getresponse

    def getresponse(connection):
        reply = original(connection)
        heads.release()
        return reply

    monkeypatch.setattr(HTTPConnection, "getresponse", getresponse)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            with listening.accept()[0] as one:
                for reply in (http({"outputs": [1.0]}), b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"):
                    asked.append(whole_request(one))
                    one.sendall(reply)
                    heads.acquire(timeout=60)
                # Ended by a reset, as by a server that breaks down.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=answer)
        thread.start()
        with Client(f"127.0.0.1:{listening.getsockname()[1]}", "m") as client:
            client._known = {"f": Signature({"x": Spec("float32", (None,))}, {"y": Spec("float32", (None,))})}
            assert client.predict([1], "f")["y"].tolist() == [1.0]
            with pytest.raises(ServingError, match="cannot be reached"):
                client.predict([1], "f")
            thread.join()
        assert len(asked) == 2
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):  # no other connection waits
            listening.accept()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "no reply of TensorFlow Serving"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "no reply of TensorFlow Serving"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "no reply of TensorFlow Serving"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"outputs":1', "no reply of TensorFlow Serving"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 8\r\n\r\nno proxy", r"\(502\)(.|\n)*no proxy"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n", r"refused(.|\n)*\(302\)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no reply of TensorFlow Serving"),
    ],
)
def test_other_services_are_told_apart(reply, message):
    with answering(reply) as port, Client(f"127.0.0.1:{port}", "digits") as client:
        with pytest.raises(ServingError, match=message) as caught:
            client.metadata()
        assert caught.value.code == next((code for code in ("302", "502") if code.encode() in reply), "UNREADABLE")
