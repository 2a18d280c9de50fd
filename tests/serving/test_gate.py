"""Limits before an application: what passes is unchanged, what does not gets a status and a message."""

from __future__ import annotations

import asyncio
import json

import pytest

from kxai.serving.gate import DRAINED, Gate


class Application:
    """Collects the bodies that reach it, and waits until it may answer."""

    def __init__(self):
        self.bodies = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def messages(*parts):
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": i < last} for i, part in enumerate(parts)]


async def ask(gate, received, method="POST", headers=(), path="/a:explain", ends=None, reads=None):
    """Returns the status and the data of the reply, and how many messages were not read; None without a reply.

    The client ends the connection when ``ends`` is set, and reads nothing before ``reads`` is.
    """
    sent, left = [], list(received)

    async def receive():
        if not left and ends is not None:
            await ends.wait()
            return {"type": "http.disconnect"}
        if not left:
            await asyncio.sleep(60)  # a client that says nothing more
        return left.pop(0)

    async def send(message):
        sent.append(message)
        if reads is not None:
            await reads.wait()

    await gate({"type": "http", "method": method, "headers": headers, "path": path}, receive, send)
    return (sent[0]["status"], json.loads(sent[1]["body"]), len(left)) if sent else None


def gate_of(application, max_body=10, max_running=2, max_requests=2, body_timeout=5.0):
    return Gate(
        application, paths="/[a-z]:explain", max_body=max_body, max_running=max_running, max_requests=max_requests,
        body_timeout=body_timeout,
    )  # fmt: skip


def gated(**options):
    application = Application()
    return gate_of(application, **options), application


async def until(condition):
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("this does not come true")


@pytest.mark.parametrize("parts", [(b"",), (b"0123456789",), (b"01234", b"", b"56789")])
def test_what_is_small_enough_passes_as_one_body(parts):
    async def check():
        gate, application = gated()
        assert await ask(gate, messages(*parts)) == (200, {}, 0)
        assert application.bodies == [b"".join(parts)]

    asyncio.run(check())


@pytest.mark.parametrize("parts", [(b"0123456789a",), (b"01234567", b"89a"), (b"0" * 39,)])
def test_what_is_too_large_is_read_to_its_end_and_refused(parts):
    async def check():
        gate, application = gated()
        status, reply, left = await ask(gate, messages(*parts))
        assert (status, left) == (413, 0)
        assert "larger than 10 bytes" in reply["error"]
        assert application.bodies == []

    asyncio.run(check())


def test_endless_bodies_are_not_read_to_their_end():
    async def check():
        gate, _ = gated()
        status, _, left = await ask(gate, messages(*[b"0123456789"] * 100))
        assert status == 413
        assert left == 100 - DRAINED - 1

    asyncio.run(check())


def test_a_body_that_does_not_come_is_given_up():
    async def check():
        gate, application = gated(body_timeout=0.05)
        status, reply, _ = await ask(gate, messages(b"01", b"")[:1])
        assert status == 408
        assert "not complete within 0.05 s" in reply["error"]
        assert application.bodies == []

    asyncio.run(check())


@pytest.mark.parametrize(("length", "status"), [(b"4", 200), (b"5", 400)])
def test_a_body_that_is_cut_off_is_refused(length, status):
    async def check():
        gate, application = gated()
        got, reply, _ = await ask(gate, messages(b"01", b"23"), headers=[(b"content-length", length)])
        assert got == status
        assert len(application.bodies) == (status == 200)
        if status == 400:
            assert reply["error"] == "The body was cut off: 4 of 5 bytes came."

    asyncio.run(check())


def test_a_client_that_leaves_gets_no_reply():
    async def check():
        gate, application = gated()
        assert await ask(gate, [messages(b"01", b"")[0], {"type": "http.disconnect"}]) is None
        assert application.bodies == []

    asyncio.run(check())


def test_places_are_counted_and_free_again():
    async def check():
        gate, application = gated(max_requests=2)
        application.may_answer.clear()
        running = [asyncio.create_task(ask(gate, messages(b"1"))) for _ in range(2)]
        await until(lambda: len(application.bodies) == 2)
        status, reply, left = await ask(gate, messages(b"2", b"3", b"4"))
        assert (status, left) == (503, 0)  # a client that still sent could lose the reply
        assert "All 2 places are taken" in reply["error"]
        assert await asyncio.wait_for(ask_health(gate, application), 5) == 200
        application.may_answer.set()
        assert [status for status, *_ in await asyncio.gather(*running)] == [200, 200]
        assert (await ask(gate, messages(b"3")))[0] == 200

    async def ask_health(gate, application):
        application.may_answer.set()
        status, *_ = await ask(gate, messages(b""), method="GET")
        return status

    asyncio.run(check())


def test_places_are_free_after_errors():
    async def failing(scope, receive, send):
        raise RuntimeError("a fault of the application")

    async def check():
        gate = gate_of(failing, max_running=1, max_requests=1)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="a fault"):
                await ask(gate, messages(b"1"))

    asyncio.run(check())


def test_the_application_has_a_few_at_a_time():
    async def check():
        gate, application = gated(max_running=1, max_requests=3)
        application.may_answer.clear()
        running = [asyncio.create_task(ask(gate, messages(body))) for body in (b"1", b"2", b"3")]
        await until(lambda: application.bodies)
        await asyncio.sleep(0.01)
        assert application.bodies == [b"1"]
        application.may_answer.set()
        assert [status for status, *_ in await asyncio.gather(*running)] == [200] * 3
        assert application.bodies == [b"1", b"2", b"3"]

    asyncio.run(check())


def test_a_client_that_leaves_while_it_waits_is_not_computed():
    async def check():
        gate, application = gated(max_running=1)
        application.may_answer.clear()
        first = asyncio.create_task(ask(gate, messages(b"1")))
        await until(lambda: application.bodies)
        ends = asyncio.Event()
        second = asyncio.create_task(ask(gate, messages(b"2"), ends=ends))
        await asyncio.sleep(0.01)
        ends.set()
        application.may_answer.set()
        assert (await first)[0] == 200
        assert await second is None
        assert application.bodies == [b"1"]
        assert (await ask(gate, messages(b"3")))[0] == 200

    asyncio.run(check())


def test_a_client_that_reads_slowly_does_not_hold_others_up():
    async def check():
        gate, application = gated(max_running=1)
        reads = asyncio.Event()
        slow = asyncio.create_task(ask(gate, messages(b"1"), reads=reads))
        await until(lambda: application.bodies)
        assert (await asyncio.wait_for(ask(gate, messages(b"2")), 5))[0] == 200
        reads.set()
        assert (await slow)[0] == 200

    asyncio.run(check())


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"path": "/v2/repository/models/a/unload"}, 404, "nothing at this path"),
        ({"path": "/a:explain/more"}, 404, "nothing at this path"),
        ({"headers": [(b"content-encoding", b"gzip")]}, 415, "without the encoding 'gzip'"),
    ],
)
def test_other_requests_are_read_and_refused(options, status, message):
    async def check():
        gate, application = gated()
        got, reply, left = await ask(gate, messages(b"1", b"2"), **options)
        assert (got, left) == (status, 0)
        assert message in reply["error"]
        assert application.bodies == []
        assert (await ask(gate, messages(b"1"), headers=[(b"content-encoding", b"identity")]))[0] == 200

    asyncio.run(check())
