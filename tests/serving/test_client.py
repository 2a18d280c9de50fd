"""The client, against test doubles of TensorFlow Serving on loopback: replies, batches, errors, threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kxai.errors import (
    ArgumentError,
    InputError,
    MissingDependencyError,
    ServingError,
    TargetError,
    UnknownNameError,
)
from kxai.serving import Client, Signature, Spec
from kxai.serving.signature import fitting
from tests.serving import served

ROOT = Path(__file__).parent.parent.parent
PROTOCOLS = ["rest", "rows", "grpc"]


@pytest.fixture(scope="module")
def rest(folder):
    with served.rest_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def grpc(folder):
    if not os.environ.get("CI"):
        for name in ("grpc", "tensorflow_serving"):
            pytest.importorskip(name, reason=f"{name} is not installed")
    with served.grpc_server(folder) as server:
        yield server


@pytest.fixture
def connect(request):
    """Makes clients of one of the doubles, and closes them."""
    made = []

    def client(protocol, **options):
        if protocol == "grpc":
            port = request.getfixturevalue("grpc").port
        else:
            port = request.getfixturevalue("rest").server_port
            options = {"layout": "rows" if protocol == "rows" else None, **options}
        kind = "grpc" if protocol == "grpc" else "rest"
        made.append(Client(f"127.0.0.1:{port}", options.pop("model", "digits"), protocol=kind, **options))
        return made[-1]

    yield client
    for one in made:
        one.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [1, 5])
def test_replies_are_those_of_the_live_model(protocol, count, model, connect):
    client = connect(protocol, batch_size=2, version=1)
    x = served.images(count)
    predicted = client.predict(x)
    assert list(predicted) == ["logits"]
    # float32: the SavedModel may sum in another order than Keras.
    np.testing.assert_allclose(predicted["logits"], model.predict(x, verbose=0), atol=1e-6)
    best = predicted["logits"].argmax(axis=1)
    odd = np.arange(count) % 2 == 1
    cases = [
        (None, None, None),
        ("gradient_x_input", 2, 2),
        ("gradient", np.where(odd, -1, 3), np.where(odd, best, 3)),
    ]
    for method, target, meant in cases:
        got = client.explain(x, target=target, method=method)
        expected = served.live(model, method or "gradient").explain(x, target=meant)
        for name in ("relevance", "outputs", "target", "score", "residual", "base"):
            np.testing.assert_allclose(getattr(got, name), getattr(expected, name), atol=2e-6, err_msg=name)
        assert got.relevance.dtype == np.float32
        assert dict(got.config) == {
            "model": "digits",
            "signature": "explain" if method is None else f"explain_{method}",
            "server": client._place.address,
            **({"method": method} if method else {}),
        }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_are_bit_identical(protocol, connect, folder):
    x, target = served.images(3), np.int32([-1, 0, 3])
    direct = served.load_signatures(str(folder / "1"))["explain"]({"image": x, "target": target})
    for name, array in connect(protocol).predict({"image": x, "target": target}, "explain").items():
        assert array.dtype == direct[name].dtype
        np.testing.assert_array_equal(array, direct[name], err_msg=name)


def test_fields_of_tensors_are_read(connect, grpc):
    try:
        grpc.content = False
        listed = connect("grpc").explain(served.images(3))
    finally:
        grpc.content = True
    np.testing.assert_array_equal(listed.relevance, connect("grpc").explain(served.images(3)).relevance)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bytes_pass_unchanged(protocol, connect):
    values = [b"\x00\xff\x89PNG\x00", b"", "ä".encode()]
    returned = connect(protocol).predict(values, "echo")
    assert returned["same_bytes"].tolist() == values
    assert returned["length"].tolist() == [7, 0, 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_predictions_may_hold_nan(protocol, connect):
    x = served.images(2)
    x[1, 0, 0] = np.inf
    logits = connect(protocol).predict(x)["logits"]
    assert np.isfinite(logits[0]).all()
    assert not np.isfinite(logits[1]).all()


def test_requests_are_as_tensorflow_serving_documents_them(connect, rest):
    rest.seen.clear()
    x = served.images(2)
    connect("rest", headers={"Authorization": "Bearer t"}).explain(x, [1, -1])
    path, headers, body = rest.seen[-1]
    assert path == "/v1/models/digits:predict"
    assert headers["Authorization"] == "Bearer t"
    assert headers["Content-Type"] == "application/json"
    sent = json.loads(body)
    np.testing.assert_array_equal(np.float32(sent["inputs"].pop("image")), x)
    assert sent == {"signature_name": "explain", "inputs": {"target": [1, -1]}}
    connect("rows", version=1).explain(x)
    path, _, body = rest.seen[-1]
    assert path == "/v1/models/digits/versions/1:predict"
    sent = json.loads(body)
    np.testing.assert_array_equal(np.float32([row.pop("image") for row in sent["instances"]]), x)
    assert sent == {"signature_name": "explain", "instances": [{"target": -1}] * 2}


def test_headers_are_metadata_of_grpc(connect, grpc):
    connect("grpc", headers={"Authorization": "Bearer t"}, version=1).predict(served.images(1))
    request, metadata = grpc.seen[-1]
    assert metadata["authorization"] == "Bearer t"
    assert request.model_spec.version.value == 1
    assert request.model_spec.signature_name == "serving_default"


def test_batches_are_split(connect, rest):
    rest.sizes.clear()
    connect("rest", batch_size=3).predict(served.images(8))
    assert rest.sizes == [3, 3, 2]


def test_large_messages_pass(connect):
    # 40000 samples are 5.8 MB of relevance; gRPC takes 4 MiB by default.
    x = np.repeat(served.images(1), 40_000, axis=0)
    explanation = connect("grpc", batch_size=len(x)).explain(x)
    assert explanation.relevance.nbytes > 4 * 2**20
    np.testing.assert_array_equal(explanation.relevance[0], explanation.relevance[-1])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metadata_and_readiness(protocol, connect):
    client = connect(protocol)
    assert client.ready()
    signatures = client.metadata()
    assert set(signatures) == {"serving_default", "explain", "explain_gradient", "explain_gradient_x_input", "echo"}
    assert signatures["explain"].inputs == {
        "image": Spec("float32", (None, 6, 6, 1)),
        "target": Spec("int32", (None,)),
    }
    assert str(signatures["explain"].inputs["image"]) == "float32 (batch, 6, 6, 1)"
    assert str(signatures["explain"].inputs["target"]) == "int32 (batch,)"
    assert not connect(protocol, model="other").ready()
    assert not connect(protocol, version=7).ready()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_versions_have_labels(protocol, connect):
    x, client = served.images(2), connect(protocol, version=served.LABEL)
    assert client.ready()
    np.testing.assert_array_equal(client.explain(x, 1).relevance, connect(protocol).explain(x, 1).relevance)
    assert "version='stable'" in repr(client)
    other = connect(protocol, version="a/b")
    assert not other.ready()  # servers tell the states of versions whatever the label
    with pytest.raises(ServingError, match=r"Unrecognized servable version label: (labels/a%2Fb|a/b)"):
        other.explain(x)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_threads_share_a_client(protocol, connect, rest):
    client = connect(protocol, batch_size=1)
    x = served.images(12)
    expected = client.explain(x).relevance
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: client.explain(x[i : i + 1]).relevance, [*range(12)] * 4))
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate([expected] * 4))
    if protocol == "rest":
        assert 1 <= len(client._transport._idle) <= 8


def test_connections_are_kept(connect, rest):
    client = connect("rest")
    accepted = []
    process = rest.process_request
    rest.process_request = lambda *a: (accepted.append(a[1]), process(*a))[1]
    try:
        for _ in range(4):
            client.predict(served.images(1))
    finally:
        del rest.process_request
    assert len(accepted) == 1


def test_a_kept_connection_that_was_closed_is_opened_again(connect, rest):
    client = connect("rest")
    client.predict(served.images(1))
    rest.drop = 1
    rest.seen.clear()
    client.predict(served.images(1))
    assert len(rest.seen) == 2  # the one that was lost, and its repetition
    rest.drop = 2
    try:
        with pytest.raises(ServingError, match="cannot be reached"):
            client.predict(served.images(1))
    finally:
        rest.drop = 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_model_is_the_servers_message(protocol, connect):
    client = connect(protocol, model="other")
    client._known = {"serving_default": Signature({"image": Spec("float32", (None, 6, 6, 1))}, {})}
    with pytest.raises(ServingError, match="Servable not found") as caught:
        client.predict(served.images(1))
    assert "refused a request for the model 'other'" in str(caught.value)
    assert caught.value.code in ("404", "NOT_FOUND")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_servers_own_refusal(protocol, connect):
    client = connect(protocol)
    client._known = {"gone": Signature({"image": Spec("float32", (None, 6, 6, 1))}, {})}
    with pytest.raises(ServingError, match="gone") as caught:
        client.predict(served.images(1), "gone")
    assert caught.value.code in ("400", "INVALID_ARGUMENT")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bad_input(protocol, connect):
    client = connect(protocol)
    x = served.images(2)
    with pytest.raises(UnknownNameError, match=r"Unknown method 'explain_lrp_zero'"):
        client.explain(x, method="lrp.zero")
    with pytest.raises(UnknownNameError, match=r"Unknown signature 'other'"):
        client.predict(x, "other")
    with pytest.raises(
        InputError, match=r"not those of the signature(.|\n)*Expected: image, target(.|\n)*Received: image"
    ):
        client.predict({"image": x}, "explain")
    with pytest.raises(InputError, match=r"Received: picture"):
        client.predict({"picture": x})
    with pytest.raises(ArgumentError, match=r"several inputs(.|\n)*image, target"):
        client.predict(x, "explain")
    with pytest.raises(InputError, match=r"wrong shape(.|\n)*float32 \(batch, 6, 6, 1\)(.|\n)*\(2, 6, 6\)"):
        client.predict(x[..., 0])
    with pytest.raises(InputError, match=r"wrong type(.|\n)*Received: text"):
        client.predict(x.astype(str))
    with pytest.raises(InputError, match="one number of samples"):
        client.predict(x[:0])
    with pytest.raises(InputError, match=r"not finite(.|\n)*first in sample 1"):
        client.explain(np.where(np.arange(2)[:, None, None, None] == 1, np.nan, x))
    with pytest.raises(InputError, match=r"not the model's(.|\n)*Expected: image(.|\n)*Received: image, target"):
        client.explain({"image": x, "target": [1, 2]})
    with pytest.raises(InputError, match=r"not the model's(.|\n)*Received: none"):
        client.explain({})
    with pytest.raises(InputError, match="image has the wrong shape"):
        client.explain(3.0)
    for method in (3, ("gradient",), ""):
        with pytest.raises(UnknownNameError, match=r"Unknown method ('|\")explain_"):
            client.explain(x, method=method)
    with pytest.raises(UnknownNameError, match=r"Unknown signature '3'"):
        client.predict(x, 3)
    with pytest.raises(InputError, match="target is no array"):
        client.explain(x, [[1], [1, 2]])
    for target in (-2, [1, 2, 3], 1.5, "cat", [[1, 2]], True):
        with pytest.raises(TargetError, match="A server explains classes"):
            client.explain(x, target)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1, 2], "float32", np.float32([1, 2])),
        (np.float64([0.1]), "float32", np.float32([0.1])),
        (np.int64([7]), "int32", np.int32([7])),
        ([True], "bool", np.array([True])),
    ],
)
def test_numbers_become_the_type_of_the_signature(value, dtype, expected):
    got = fitting("x", value, Spec(dtype, (None,)), finite=True)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ([1.5], "int32", r"wrong type(.|\n)*Received: float64"),
        ([2**31], "int32", r"does not hold(.|\n)*2147483648"),
        ([-1], "uint8", "wrong type|does not hold"),
        ([1e39], "float32", r"does not hold(.|\n)*1e\+39"),
        ([True], "float32", r"wrong type(.|\n)*bool"),
        ([1], "bool", "wrong type"),
        ([None], "float32", "something else than numbers"),
        ([[1], [1, 2]], "float32", "no array"),
        ([1j], "float32", r"wrong type(.|\n)*complex"),
        ([1], "string", "text or bytes"),
        ([1], "bfloat16", "NumPy has no arrays of the type"),
        (3.0, "float32", "wrong shape"),
    ],
)
def test_what_does_not_fit_is_refused(value, dtype, message):
    with pytest.raises(InputError, match=message):
        fitting("x", value, Spec(dtype, (None,)), finite=True)


def test_bad_arguments():
    for url in (
        "",
        "ftp://a",
        "http://",
        "a:b",
        "http://u:p@host",
        "host?x",
        None,
        "host:99999",
        "a b",
        "host:0",
        "a" * 300,
    ):
        with pytest.raises(ArgumentError, match="no address of a server"):
            Client(url, "digits")
    with pytest.raises(ArgumentError, match="gRPC has no paths"):
        Client("localhost:1/api", "digits", protocol="grpc")
    with pytest.raises(UnknownNameError, match="Unknown protocol 'soap'"):
        Client("localhost", "digits", protocol="soap")
    for name, value, message in [
        ("version", "", r"version is out of range(.|\n)*or a label or None"),
        ("version", -1, "version is out of range"),
        ("version", True, "version is out of range"),
        ("timeout", 0, "timeout is out of range"),
        ("timeout", float("nan"), "timeout is out of range"),
        ("timeout", 1e7, r"seconds in \(0, 1e\+06\]"),
        ("version", 2**63, "version is out of range"),
        ("headers", {"A": "b\nc"}, r"no headers of a request(.|\n)*Received: 'A'$"),
        ("headers", {"A": 3}, "printable ASCII in one line"),
        ("headers", {"A b": "c"}, "no headers of a request"),
        ("headers", {"A": "\u20ac"}, "no headers of a request"),
        ("headers", "a: b", r"no headers of a request(.|\n)*Received: str"),
        ("batch_size", 0, "batch_size is out of range"),
        ("layout", "cells", "one of columns, rows"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            Client("localhost", "digits", **{name: value})
    with pytest.raises(ArgumentError, match="gRPC has no JSON"):
        Client("localhost", "digits", protocol="grpc", layout="rows")
    with pytest.raises(ArgumentError, match="model names a model"):
        Client("localhost", "")
    with pytest.raises(ArgumentError, match="model names a model"):
        Client("localhost", "\ud800")
    with pytest.raises(UnknownNameError, match="Unknown protocol"):
        Client("localhost", "digits", protocol=["rest"])


@pytest.mark.parametrize(
    ("url", "protocol", "address"),
    [
        ("host", "rest", "host:8501"),
        ("host", "grpc", "host:8500"),
        ("https://host/api/", "rest", "host:443"),
        ("http://[::1]:5", "rest", "[::1]:5"),
    ],
)
def test_addresses(url, protocol, address):
    with Client(url, "digits", protocol=protocol) as client:
        assert client._place.address == address
        assert repr(client) == f"Client('{address}', 'digits', protocol='{protocol}')"


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_no_server(protocol):
    with served.quiet_port() as port, Client(f"127.0.0.1:{port}", "digits", protocol=protocol) as client:
        assert not client.ready()
        with pytest.raises(
            ServingError, match=rf"127.0.0.1:{port} cannot be reached(.|\n)*Fix: is it running"
        ) as caught:
            client.predict(served.images(1))
        assert caught.value.code == ""


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_late_replies(protocol, connect, folder):
    known = connect(protocol).metadata()  # of the same model, and not in a hurry
    serve = served.grpc_server if protocol == "grpc" else served.rest_server
    with serve(folder) as server:
        port = server.port if protocol == "grpc" else server.server_port
        with Client(f"127.0.0.1:{port}", "digits", protocol=protocol, timeout=0.3) as client:
            client._known = known
            server.may_answer.clear()
            with pytest.raises(ServingError, match=r"did not answer in time(.|\n)*within 0.3 s"):
                client.predict(served.images(1))
            server.may_answer.set()
            client._transport._place = replace(client._transport._place, timeout=60.0)
            # Of two samples: it is not the late reply that is read.
            assert client.predict(served.images(2))["logits"].shape == (2, served.CLASSES)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_closed_clients_say_so(protocol, connect):
    client = connect(protocol)
    client.predict(served.images(1))
    client.close()
    with pytest.raises(ServingError, match="This client was closed"):
        client.predict(served.images(1))
    with pytest.raises(ServingError, match="This client was closed"):
        client.ready()


def test_a_client_that_is_closed_while_it_waits_says_so(connect, folder):
    known = connect("grpc").metadata()
    with (
        served.grpc_server(folder) as server,
        Client(f"127.0.0.1:{server.port}", "digits", protocol="grpc") as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client._known = known
        server.seen.clear()
        server.may_answer.clear()
        waiting = pool.submit(client.predict, served.images(1))
        while not server.seen and not waiting.done():
            time.sleep(0.01)
        client.close()
        with pytest.raises(ServingError, match="This client was closed"):
            waiting.result()


def test_several_inputs_and_outputs():
    from kxai.serving.client import _explanation

    arrays = {"a": np.ones((2, 3)), "b": np.ones((2, 1))}
    got = _explanation(
        {
            "relevance_left": arrays["a"],
            "relevance_right_side": arrays["b"],
            "one": np.zeros((2, 4)),
            "two": np.zeros((2, 5)),
            "target": np.array([0, 1]),
            "score": np.array([7.0, 8.0]),
            "residual": np.array([1.0, 1.0]),
        },
        {},
    )
    assert list(got.relevance) == ["left", "right_side"]
    assert {name: part.shape for name, part in got.outputs.items()} == {"one": (2, 4), "two": (2, 5)}
    np.testing.assert_array_equal(got.residual, [1, 1])
    np.testing.assert_array_equal(got.base, [2, 3])  # what is left: of a method that explains a difference


def test_the_client_needs_neither_keras_nor_tensorflow():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['keras', 'tensorflow', 'grpc', 'google.protobuf', 'matplotlib', 'h5py']))\n"
        "from kxai.serving import Client\n"
        "print(Client('127.0.0.1:9', 'digits', timeout=1).ready())\n"
        "try: Client('127.0.0.1:9', 'digits', protocol='grpc')\n"
        "except ImportError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.stderr == ""
    assert run.stdout.startswith("False\nThe package grpcio cannot be imported.")
    assert 'pip install "kxai[serving]"' in run.stdout
    assert issubclass(MissingDependencyError, ImportError)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_signatures_that_others_wrote_do_not_explain(protocol, connect):
    client = connect(protocol)
    signatures = client.metadata()
    client._known = {"explain": signatures["serving_default"]}
    with pytest.raises(ServingError, match=r"'explain' is none that kxai.export wrote(.|\n)*Received: logits"):
        client.explain(served.images(1))
