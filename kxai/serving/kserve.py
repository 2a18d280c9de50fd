"""``python -m kxai.serving.kserve``: KServe's model server with an exported model, answering ``:explain``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kxai.errors import KxaiError, MissingDependencyError, NumericalError
from kxai.serving.explainer import Explainer
from kxai.serving.gate import Gate

PATHS = "/v1/models/[^/]+:(explain|predict)"
"""What answers a POST; others of KServe's take models off the server, for one."""

LONGEST = 2000
"""Characters of an error; texts quote what was sent."""

ECHOED = ("ce-", "content-type")
"""Headers of a request that KServe needs for its reply to a cloud event."""


def main() -> None:
    """Serves, as the command line says, until SIGTERM or SIGINT; ``--help`` lists the arguments.

    Raises:
        MissingDependencyError: KServe is not installed. LoadError: there is no model that explains.
    """
    kserve = _kserve()
    options = _parser(kserve).parse_args()
    explainer = Explainer(options.model_dir, options.batch_size)
    app = importlib.import_module("kserve.model_server").app
    app.add_middleware(
        Gate, paths=PATHS, max_body=math.ceil(options.max_body_mb * 2**20), max_running=options.threads,
        max_requests=options.threads + options.max_waiting, body_timeout=options.body_timeout,
    )  # fmt: skip
    with ThreadPoolExecutor(options.threads, "explain") as pool:
        # KServe reads its own arguments from the command line, too.
        server = _server_class(kserve, options.host)(enable_grpc=False)
        server.start([_model_class(kserve)(options.model_name, explainer, pool)])


def _kserve() -> Any:
    try:
        return importlib.import_module("kserve")
    except ImportError as error:
        raise MissingDependencyError(
            "The package kserve cannot be imported.", received=str(error), fix='pip install "kxai[kserve]"'
        ) from error


def _parser(kserve: Any) -> argparse.ArgumentParser:
    def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
        def read(text: str) -> float:
            value = kind(text)
            if not 0 < value < math.inf:
                raise argparse.ArgumentTypeError(f"{text} is not above 0")
            return value

        return read

    parser = argparse.ArgumentParser(
        prog="python -m kxai.serving.kserve", parents=[kserve.model_server.parser], conflict_handler="resolve",
        description="KServe's model server, with explanations from what kxai.export wrote.",
    )  # fmt: skip
    add = parser.add_argument
    add("--model_dir", required=True, help="folder of the exported model, or of one of its versions")
    add("--host", default="0.0.0.0", help="address that is listened at (default: all)")
    add("--threads", type=positive(int), default=2, help="requests computed at a time (default: 2)")
    add("--max_waiting", type=positive(int), default=32, help="requests that wait; more get a 503 (default: 32)")
    add("--batch_size", type=positive(int), default=32, help="samples computed at once (default: 32)")
    add("--max_body_mb", type=positive(float), default=32.0, help="larger requests get a 413 (default: 32)")
    add("--body_timeout", type=positive(float), default=60.0, help="s; slower requests get a 408 (default: 60)")
    add("--workers", type=int, choices=[1], default=1, help="one; further copies of the model are replicas")
    add("--enable_grpc", choices=["false"], default="false", help="KServe's gRPC has no explanations")
    return parser


def _server_class(kserve: Any, host: str) -> Any:
    class Server(kserve.ModelServer):
        async def _serve(self) -> None:
            # KServe has no arguments for these.
            self._rest_server.config.host = host
            self._rest_server.config.http = _protocol_class()
            await super()._serve()

    return Server


def _protocol_class() -> Any:
    # The one of uvicorn's protocols that bounds headers.
    http: Any = importlib.import_module("uvicorn.protocols.http.h11_impl").H11Protocol

    class Protocol(http):
        """Answers, too, where the client has said that it sends no more; uvicorn would close."""

        def eof_received(self) -> bool:
            if self.cycle is None or self.cycle.response_complete or self.scheme == "https":
                return False
            # The body ends here, if it did not before: the gate sees how much of it is missing.
            self.cycle.more_body, self.cycle.keep_alive = False, False
            self.cycle.message_event.set()
            return True

    return Protocol


def _model_class(kserve: Any) -> Any:
    errors = importlib.import_module("kserve.errors")

    class Model(kserve.Model):
        """Hands payloads to threads, so that the server goes on listening, and errors to the client."""

        def __init__(self, name: str, explainer: Explainer, pool: ThreadPoolExecutor) -> None:
            super().__init__(name)
            self._explainer, self._pool = explainer, pool
            self.ready = True

        def validate(self, payload: Any) -> Any:
            return payload  # the explainer says more about what is wrong

        async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
            # KServe sends the request's headers back; its encoding, for one, is not that of the reply.
            received = headers if headers is not None else {}
            for name in [name for name in received if not name.startswith(ECHOED)]:
                del received[name]
            return await self._answer(self._explainer.explain, payload)

        async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
            return await self._answer(self._explainer.predict, payload)

        async def _answer(self, function: Callable[[Any], Any], payload: Any) -> Any:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, function, payload)
            except NumericalError as error:
                raise errors.InferenceError(_message(error)) from error
            except KxaiError as error:
                raise errors.InvalidInput(_message(error)) from error

    return Model


def _message(error: KxaiError) -> str:
    # JSON may name characters that no encoding has.
    text = str(error).encode(errors="backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


if __name__ == "__main__":
    try:
        main()
    except KxaiError as error:
        sys.exit(f"error: {error}")
