"""Times functions in turns, so that all share the machine's moods."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection
from typing import Any

SELDOM = 3  # what takes many evaluations of the network runs in every third round
LONGEST = 160  # characters of a reason

Run = Callable[[Any], Any]


def timed(
    makers: dict[str, Callable[[], Run]],
    x: Any,
    rounds: int,
    seldom: Collection[str] = (),
    show: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Any]]:
    """Per function the seconds of each round, None where it sits the round out, or why it fails.

    Args:
        makers: by name, what makes the function; warmed up by two calls, the seldom ones by one.
        x: what the functions are called with.
        rounds: how many.
        seldom: names of functions that run in the rounds 0, ``SELDOM``, ... alone.
        show: is told what happens next.
    """
    runs: dict[str, Run] = {}
    failures: dict[str, str] = {}
    for name, make in makers.items():
        show(f"{name}, first call")
        try:
            run = make()
            for _ in range(1 if name in seldom else 2):
                run(x)
        except Exception as error:
            failures[name] = reason(error)
        else:
            runs[name] = run
    seconds: dict[str, list[float | None]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            if name in seldom and turn % SELDOM:
                seconds[name].append(None)
                continue
            show(f"{name}, round {turn + 1} of {rounds}")
            began = time.perf_counter()
            run(x)
            seconds[name].append(time.perf_counter() - began)
    return {name: {"error": failures[name]} if name in failures else {"seconds": seconds[name]} for name in makers}


def ratios(seconds: list[float | None], unit: list[float], evaluations: int = 1) -> dict[str, float]:
    """Median and range of what a function takes, per evaluation, in units of the same round."""
    found = [t / u / evaluations for t, u in zip(seconds, unit, strict=True) if t is not None]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def reason(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # TensorFlow quotes the code first and says at the end what is wrong with it.
    text = lines[-1] if lines[0].startswith("in user code") else lines[0]
    return shortened(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
