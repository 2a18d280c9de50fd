"""KServe's model server, a process of its own on loopback: many clients at once, bad requests, a clean end."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import kxai
from kxai.errors import MissingDependencyError
from kxai.serving import kserve
from tests.serving import served

ROOT = Path(__file__).parent.parent.parent
EXPLAIN = "/v1/models/digits:explain"
MAX_BODY = 2**17
BODY_TIMEOUT = 3  # s; what one test waits for, and what a body that is sent at once never takes
PATIENCE = 300  # s, for what should take less than one
METHODS = {"lrp_epsilon": lambda model: kxai.LRP(model, "epsilon"), "gradient": kxai.Gradient}


def started(port, folder, log, *options):
    command = [sys.executable, "-m", "kxai.serving.kserve", "--model_name", "digits", "--model_dir", str(folder)]
    command += ["--host", "127.0.0.1", "--http_port", str(port), *options]
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=out, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        )


@pytest.fixture(scope="module")
def port(model, tmp_path_factory):
    """The port of a server that runs; afterwards it is stopped, and has to end by itself."""
    if not os.environ.get("CI"):
        pytest.importorskip("kserve", reason="KServe is not installed")
    folder = tmp_path_factory.mktemp("digits")
    log = folder / "log"
    kxai.export([analyzer(model) for analyzer in METHODS.values()], folder)
    limits = "--max_body_mb", str(MAX_BODY / 2**20), "--body_timeout", str(BODY_TIMEOUT)
    with served.quiet_port() as port:
        process = started(port, folder, log, *limits)
        try:
            begin = time.monotonic()
            while not listens(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() - begin < PATIENCE
                time.sleep(0.1)
            yield port
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, log.read_text()
            assert not listens(port)
        finally:
            process.kill()
            process.wait()


def listens(port):
    try:
        return asked(port, "GET", "/v1/models/digits")[0] == 200
    except ConnectionRefusedError:
        return False


def asked(port, method, path, body=None, headers=None, connection=None):
    own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        own.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        response = own.getresponse()
        return response.status, json.loads(response.read())
    finally:
        if connection is None:
            own.close()


def raw(port, data, *, end=False):
    """Sends bytes as they are and returns the status and the body of the reply; none if there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
            head, _, body = received.partition(b"\r\n\r\n")
            if b"content-length" in head.lower() and len(body) >= int(
                head.lower().split(b"content-length:")[1].split()[0]
            ):
                break
        return (int(received.split()[1]), body) if received else None


def good(port, model):
    x = served.images(1, seed=9)
    status, reply = asked(port, "POST", EXPLAIN, json.dumps({"instances": x.tolist()}))
    assert status == 200
    expected = METHODS["lrp_epsilon"](model).explain(x)
    np.testing.assert_allclose(reply["explanations"][0]["relevance"], expected.relevance[0], atol=1e-6)


@pytest.mark.slow
def test_eight_clients_lose_nothing(port, model):
    count = 200
    x = np.stack([served.images(1 + i % 3, seed=i)[0] for i in range(count)])
    targets = [i % (served.CLASSES + 1) - 1 for i in range(count)]
    methods = [list(METHODS)[i % 2] for i in range(count)]

    def client(worker):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        replies = {}
        for i in range(worker, count, 8):
            body = {"instances": x[i : i + 1].tolist(), "target": targets[i], "signature_name": f"explain_{methods[i]}"}
            replies[i] = asked(port, "POST", EXPLAIN, json.dumps(body), connection=connection)
        connection.close()
        return replies

    with ThreadPoolExecutor(8) as pool:
        replies = {i: reply for part in pool.map(client, range(8)) for i, reply in part.items()}
    assert [replies[i][0] for i in range(count)] == [200] * count
    best = model.predict(x, verbose=0).argmax(axis=1)
    meant = np.where(np.array(targets) < 0, best, targets)
    for method, analyzer in METHODS.items():
        expected = analyzer(model).explain(x, meant)
        for i in [i for i in range(count) if methods[i] == method]:
            (got,) = replies[i][1]["explanations"]
            assert got["target"] == meant[i]
            # float32: the SavedModel may sum in another order than Keras.
            np.testing.assert_allclose(got["relevance"], expected.relevance[i], atol=1e-6)
            np.testing.assert_allclose(got["score"], expected.score[i], atol=1e-6)
            np.testing.assert_allclose(got["logits"], expected.outputs[i], atol=1e-6)


ROW = np.zeros((6, 6, 1)).tolist()
BAD = {
    "malformed": (b'{"instances": [[[', 400, "Unrecognized request format"),
    "no JSON": (b"\xff\xfe\x00", 400, "Unrecognized request format"),
    "NaN": (b'{"instances": [[[[NaN]]]]}', 400, "Unrecognized request format"),
    "deep": (b"[" * 50_000, 400, "depth limit"),
    "empty": (b"", 400, "Unrecognized request format"),
    "list": (b"[1, 2]", 400, "no request of the V1 protocol"),
    "no instances": (b'{"signature_name": "explain"}', 400, "no request of the V1 protocol"),
    "shape": (json.dumps({"instances": [ROW[:3]]}).encode(), 400, "(batch, 6, 6, 1)"),
    "ragged": (json.dumps({"instances": [ROW, ROW[:3]]}).encode(), 400, "image is no array"),
    "type": (json.dumps({"instances": [[[["a"]]]]}).encode(), 400, "wrong type"),
    "null": (json.dumps({"instances": [[[[None]]]]}).encode(), 400, "something else than numbers"),
    "infinite": (json.dumps({"instances": [ROW]}).replace("0.0", "1e999").encode(), 400, "number is infinity"),
    "name": (json.dumps({"instances": [{"picture": ROW}]}).encode(), 400, "Received: picture"),
    "unknown": (json.dumps({"instances": [{"image": ROW, "mask": 1}]}).encode(), 400, "mask"),
    "target": (json.dumps({"instances": [ROW], "target": "cat"}).encode(), 400, "target has values of the wrong type"),
    "class": (json.dumps({"instances": [ROW], "target": served.CLASSES}).encode(), 400, "target"),
    "signature": (json.dumps({"instances": [ROW], "signature_name": "explain_x"}).encode(), 400, "Unknown signature"),
    "no character": (rb'{"instances": [{"\ud800": 1}]}', 400, "Unrecognized request format"),
    "long name": (json.dumps({"instances": [ROW], "signature_name": "x" * 10**5}).encode(), 400, "Unknown signature"),
    "long keys": (json.dumps({"instances": [{"x" * 10**5: 1}]}).encode(), 400, "x ..."),
    "oversized": (b" " * (MAX_BODY + 1), 413, f"larger than {MAX_BODY} bytes"),
    "far oversized": (b" " * (3 * MAX_BODY), 413, f"larger than {MAX_BODY} bytes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_requests_get_a_message(case, port, model):
    body, status, message = BAD[case]
    got, reply = asked(port, "POST", EXPLAIN, body)
    assert got == status, reply
    assert 0 < len(reply["error"].strip()) < 2100
    assert message in reply["error"]
    good(port, model)


@pytest.mark.slow
def test_other_paths_and_types(port, model):
    assert asked(port, "POST", "/v1/models/other:explain", b'{"instances": [1]}')[0] == 404
    assert asked(port, "GET", EXPLAIN)[0] == 404
    body = json.dumps({"instances": [ROW]})
    assert asked(port, "POST", EXPLAIN, body, {"Content-Type": "text/plain"})[0] == 200
    odd = b'{"instances": [{"\\ud800": 1}]}'  # JSON of a character that no encoding has
    status, reply = asked(port, "POST", EXPLAIN, odd, {"Content-Type": "text/plain"})
    assert (status, "\\ud800" in reply["error"]) == (400, True), reply
    status, reply = asked(port, "POST", "/v1/models/digits:predict", body)
    assert status == 200
    np.testing.assert_allclose(reply["predictions"], model.predict(np.zeros((1, 6, 6, 1)), verbose=0), atol=1e-6)
    for path in ("/v2/models/digits/infer", "/v2/repository/models/digits/unload"):
        status, reply = asked(port, "POST", path, b'{"inputs": []}')
        assert (status, "nothing at this path" in reply["error"]) == (404, True), reply
    assert asked(port, "POST", EXPLAIN, gzip.compress(body.encode()), {"Content-Encoding": "gzip"})[0] == 415
    good(port, model)


@pytest.mark.slow
def test_the_requests_headers_do_not_come_back(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    # Sent in chunks: a reply that says so of itself could not be read.
    connection.request("POST", EXPLAIN, iter([json.dumps({"instances": [ROW]}).encode()]), {"Cookie": "secret"})
    response = connection.getresponse()
    assert response.status == 200
    assert len(json.loads(response.read())["explanations"]) == 1
    assert "cookie" not in {name.lower() for name, _ in response.getheaders()}
    connection.close()


@pytest.mark.slow
def test_truncated_requests(port, model):
    head = (
        f"POST {EXPLAIN} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n".encode()
    )
    status, body = raw(port, head + b'{"instances": [[')  # the rest does not come
    assert status == 408
    assert f"not complete within {BODY_TIMEOUT} s" in json.loads(body)["error"]
    status, body = raw(port, head + b'{"instances": [[', end=True)  # the client says that the rest does not come
    assert status == 400
    assert json.loads(body)["error"] == "The body was cut off: 16 of 500 bytes came."
    whole = json.dumps({"instances": [ROW]}).encode()
    for left in (0, 1):  # a client that only reads after a whole body, and one that leaves out its last byte
        start = head.replace(b"500", str(len(whole)).encode())
        assert raw(port, start + whole[: len(whole) - left], end=True)[0] == (400 if left else 200)
    assert raw(port, b"POST /v1/mod", end=True) is None
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b'{"inst')  # a client that is gone
    with contextlib.suppress(ConnectionError):  # of a header without an end, whose client still sends
        assert raw(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 2**20)[0] == 400
    status, _ = raw(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert status == 400
    good(port, model)


@pytest.mark.slow
def test_the_server_listens_while_it_computes():
    if not os.environ.get("CI"):
        pytest.importorskip("kserve", reason="KServe is not installed")
    code = (
        "import asyncio, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import kserve\n"
        "from kxai.serving.kserve import _model_class\n"
        "others_ran = threading.Event()\n"
        "class Slow:\n"
        "    def explain(self, payload):\n"
        "        return others_ran.wait(60)\n"
        "async def main():\n"
        "    with ThreadPoolExecutor(1) as pool:\n"
        "        model = _model_class(kserve)('digits', Slow(), pool)\n"
        "        headers = {'cookie': 'secret', 'ce-id': '1', 'content-type': 'text/plain'}\n"
        "        task = asyncio.create_task(model.explain({}, headers))\n"
        "        await asyncio.sleep(0)\n"
        "        others_ran.set()\n"
        "        print(await task, sorted(headers))\n"
        "asyncio.run(main())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert run.stdout.splitlines()[-1:] == ["True ['ce-id', 'content-type']"], run.stderr


@pytest.mark.slow
def test_a_folder_without_a_model_is_named(tmp_path):
    if not os.environ.get("CI"):
        pytest.importorskip("kserve", reason="KServe is not installed")
    with served.quiet_port() as port:
        process = started(port, tmp_path, tmp_path / "log")
        try:
            assert process.wait(PATIENCE) == 1
        finally:
            process.kill()
    assert f"error: There is no SavedModel in {tmp_path}" in (tmp_path / "log").read_text()


def test_without_kserve(monkeypatch):
    monkeypatch.setitem(sys.modules, "kserve", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "kxai\[kserve\]"'):
        kserve.main()
