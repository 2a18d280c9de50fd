"""What stands before a server's application: limits on the size, the duration and the number of requests."""

from __future__ import annotations

import asyncio
import json
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
    """An ASGI application that hands complete, small enough requests on to another one.

    Others get a status and ``{"error": ...}``: 413 too large, 400 cut off, 408 not complete in time, 503 too many at
    once. All but POST passes untouched.

    Args:
        app: the application.
        max_body: bytes of a body.
        max_requests: requests at once.
        body_timeout: seconds until a body has to be complete.
    """

    def __init__(self, app: App, max_body: int, max_requests: int, body_timeout: float) -> None:
        self._app, self._max_body, self._body_timeout = app, max_body, body_timeout
        self._max_requests, self._requests = max_requests, 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._requests >= self._max_requests:
            text = f"All {self._max_requests} places are taken; try again later, or with fewer requests at once."
            await _refuse(send, 503, text)
            return
        self._requests += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self._requests -= 1

    async def _pass(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            body = await asyncio.wait_for(self._body(receive), self._body_timeout)
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
        waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replayed() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replayed, send)

    async def _body(self, receive: Receive) -> bytearray | None:
        """The body, or one byte more than the most; None if the client ends the connection."""
        body, count = bytearray(), 0
        while count <= DRAINED * self._max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            count += len(part)
            body += part[: self._max_body + 1 - len(body)]
            if not message.get("more_body", False):
                break
        return body


async def _refuse(send: Send, status: int, text: str) -> None:
    data = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    # What a client still sends is not read, so nothing may follow on this connection.
    headers += [(b"connection", b"close")] + [(b"retry-after", b"1")] * (status == 503)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
