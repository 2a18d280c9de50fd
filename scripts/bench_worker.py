"""What the processes of scripts/bench do: time the methods in one process, weigh each in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kxai.cli.quiet import notices_dropped

with notices_dropped():
    import numpy as np

    import kxai
    from scripts import architectures, units

from scripts.bench_methods import (
    DEEPLIFT,
    DEEPLIFT_PAIRED,
    FORWARD,
    INTEGRATED_GRADIENTS,
    REVEAL_CANCEL,
    SAMPLES,
    SCORE_CAM,
    SMOOTHGRAD,
    TAPE,
    Method,
)
from scripts.rounds import timed
from scripts.status import status
from scripts.units import CLASS, Run

UNITS = {TAPE: units.gradient, FORWARD: units.forward}


def in_bounds(model: Any, x: np.ndarray) -> dict[str, Any]:
    """The range of the inputs."""
    return dict(zip(("low", "high"), architectures.bounds(model), strict=True))


# Per row what makes its arguments from the model and the inputs.
OPTIONS: dict[str, Callable[[Any, np.ndarray], dict[str, Any]]] = {
    "lrp.alpha_beta": lambda model, x: {"alpha": 2.0, "beta": 1.0},
    "lrp.epsilon_gamma_box": in_bounds,
    "deep_taylor": in_bounds,
    DEEPLIFT.label: lambda model, x: {"reference": 0.0},
    DEEPLIFT_PAIRED.label: lambda model, x: {"reference": x / 2},
    REVEAL_CANCEL.label: lambda model, x: {"reference": 0.0},
    INTEGRATED_GRADIENTS.label: lambda model, x: {"num_steps": SAMPLES},
    SMOOTHGRAD.label: lambda model, x: {"num_samples": SAMPLES},
    SCORE_CAM.label: lambda model, x: {"layer": architectures.first_map(model).name},
}


def timings(name: str, size: int, batch: int, methods: Sequence[Method], rounds: int) -> dict[str, Any]:
    """Seconds per row and round, how many evaluations a row divides its ratio by; the network's parameters."""
    model = architectures.build(name, size, samples=1)
    x = architectures.sample(model, batch, seed=1)
    makers = {TAPE: functools.partial(units.gradient, model)}
    if any(method.unit == FORWARD for method in methods):
        makers[FORWARD] = functools.partial(units.forward, model)
    makers |= {method.label: functools.partial(runner, model, method, x) for method in methods}
    seldom = {method.label for method in methods if method.per}
    rows = timed(makers, x, rounds, seldom, lambda text: status(f"{name}, batch {batch}: {text}"))
    status()
    for method in methods:
        if "seconds" in rows[method.label]:
            rows[method.label]["evaluations"] = evaluations(model, method)
    return {"rows": rows, "parameters": model.count_params(), "framework": units.FRAMEWORK}


def first_result(name: str, size: int, batch: int, method: Method) -> dict[str, float]:
    """Seconds until the first result, compilation included, and the peak memory in MB from then on, all included."""
    model = architectures.build(name, size, samples=1)
    x = architectures.sample(model, batch, seed=1)
    forget_peak()
    began = time.perf_counter()
    runner(model, method, x)(x)
    return {"first": time.perf_counter() - began, "peak": peak()}


def forget_peak() -> None:
    """Let the peak count from here, not from building the model; only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def runner(model: Any, method: Method, x: np.ndarray) -> Run:
    """The row as a function from one array, shaped as ``x``, to another."""
    if method.name in UNITS:
        return UNITS[method.name](model)
    options = OPTIONS[method.label](model, x) if method.label in OPTIONS else {}
    analyzer = kxai.create_analyzer(method.name, model, **options)
    return lambda x: analyzer.explain(x, CLASS, len(x), verbose=False).relevance


def evaluations(model: Any, method: Method) -> int:
    """How many evaluations of the network the method takes by its definition."""
    if method.per == "channel":
        return int(architectures.first_map(model).output.shape[-1])
    return SAMPLES if method.per else 1
