"""What stands before a server's application: limits on the size, the duration and the number of requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, final

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

DRAINED = 4
"""How many times the largest body is read and thrown away, so that a client that still sends gets its reply."""


@final
class Gate:
    """An ASGI application that hands complete, small enough requests on to another one, a few at a time.

    Others get a status and ``{"error": ...}``: 404 another path, 415 compressed, 413 too large, 400 cut off, 408 not
    complete in time, 503 too many at once. All but POST passes untouched. What waits is bytes: the application parses a
    body when its turn has come, if the client is still there.

    Args:
        app: the application.
        paths: regular expression of the paths that a POST may have, as whole.
        max_body: bytes of a body.
        max_running: requests at once in the application, until it starts to reply.
        max_requests: requests at once, with those that wait.
        body_timeout: seconds until a body has to be complete.
    """

    def __init__(
        self, app: App, *, paths: str, max_body: int, max_running: int, max_requests: int, body_timeout: float
    ) -> None:
        self._app, self._paths, self._max_body, self._body_timeout = app, re.compile(paths), max_body, body_timeout
        self._max_requests, self._requests = max_requests, 0
        self._turns = asyncio.Semaphore(max_running)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal:
            # A connection that ends while its client still sends may lose the reply.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._body(receive, keep=0), self._body_timeout)
            await _refuse(send, *refusal)
            return
        self._requests += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self._requests -= 1

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        encoding = dict(scope["headers"]).get(b"content-encoding", b"identity").decode("latin-1")
        if not self._paths.fullmatch(scope["path"]):
            return 404, "There is nothing at this path that takes a POST."
        if encoding.lower() != "identity":
            return 415, f"Bodies are read as they come; send this one without the encoding {encoding[:40]!r}."
        if self._requests >= self._max_requests:
            return 503, f"All {self._max_requests} places are taken; try again later, or with fewer requests at once."
        return None

    async def _pass(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            body = await asyncio.wait_for(self._body(receive, keep=self._max_body + 1), self._body_timeout)
        except asyncio.TimeoutError:
            await _refuse(send, 408, f"The body was not complete within {self._body_timeout:g} s.")
            return
        if body is None:
            return  # the client is gone
        if len(body) > self._max_body:
            await _refuse(send, 413, f"The body is larger than {self._max_body} bytes; send fewer instances at once.")
            return
        declared = int(dict(scope["headers"]).get(b"content-length", len(body)))
        if len(body) < declared:
            await _refuse(send, 400, f"The body was cut off: {len(body)} of {declared} bytes came.")
            return
        await self._turns.acquire()
        turn = contextlib.ExitStack()
        turn.callback(self._turns.release)
        with turn:
            if await _gone(receive):
                return
            waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]
            del body

            async def replayed() -> Message:
                return waiting.pop() if waiting else await receive()

            async def replied(message: Message) -> None:
                turn.close()  # a client that reads slowly keeps its place, but nobody's turn
                await send(message)

            await self._app(scope, replayed, replied)

    async def _body(self, receive: Receive, *, keep: int) -> bytearray | None:
        """The first bytes of the body, at most so many; None if the client ends the connection."""
        body, count = bytearray(), 0
        while count <= DRAINED * self._max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            count += len(part)
            body += part[: keep - len(body)]
            if not message.get("more_body", False):
                break
        return body


async def _gone(receive: Receive) -> bool:
    """Whether the client of a request that is complete has ended the connection."""
    message = asyncio.ensure_future(receive())
    await asyncio.wait({message}, timeout=0)
    if not message.done():
        message.cancel()
        return False
    return message.result()["type"] == "http.disconnect"


async def _refuse(send: Send, status: int, text: str) -> None:
    data = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    # What a client still sends is not read, so nothing may follow on this connection.
    headers += [(b"connection", b"close")] + [(b"retry-after", b"1")] * (status == 503)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
