"""What the processes of scripts/bench do: time the methods in one process, weigh each in a process of its own."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kxai.cli.quiet import notices_dropped

with notices_dropped():
    import numpy as np
    import tensorflow as tf

    import kxai
    from scripts import architectures

TAPE = "tape"  # the unit: TensorFlow's own gradient, compiled
CLASS = 0
OPTIONS = {"lrp.alpha_beta": {"alpha": 2.0, "beta": 1.0}}
BOUNDED = ("lrp.epsilon_gamma_box", "deep_taylor")  # they take the range of the inputs

Run = Callable[[np.ndarray], np.ndarray]


def timings(name: str, size: int, batch: int, methods: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds per method and round; in every round each method runs once, so that all share the machine's moods."""
    model = architectures.build(name, size, samples=1)
    x = architectures.sample(model, batch, seed=1)
    runs = {method: runner(model, method, batch) for method in (TAPE, *methods)}
    for run in runs.values():
        run(x)
        run(x)
    seconds: dict[str, list[float]] = {method: [] for method in runs}
    for _ in range(rounds):
        for method, run in runs.items():
            began = time.perf_counter()
            run(x)
            seconds[method].append(time.perf_counter() - began)
    return seconds


def first_result(name: str, size: int, batch: int, method: str) -> dict[str, float]:
    """Seconds until the first result, compilation included, and the peak memory in MB from then on, all included."""
    model = architectures.build(name, size, samples=1)
    x = architectures.sample(model, batch, seed=1)
    forget_peak()
    began = time.perf_counter()
    runner(model, method, batch)(x)
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


def runner(model: Any, method: str, batch: int) -> Run:
    """The method as a function from one array to another."""
    if method == TAPE:
        return tape(model)
    options = dict(OPTIONS.get(method, {}))
    if method in BOUNDED:
        options["low"], options["high"] = architectures.bounds(model)
    analyzer = kxai.create_analyzer(method, model, **options)
    return lambda x: analyzer.explain(x, CLASS, batch, verbose=False).relevance


def tape(model: Any) -> Run:
    """TensorFlow's gradient of one output with respect to the input, compiled once for all batch sizes."""

    @tf.function(input_signature=[tf.TensorSpec((None, *model.inputs[0].shape[1:]), "float32")])
    def gradient(x: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            score = model(x, training=False)[:, CLASS]
        return tape.gradient(score, x)

    return lambda x: gradient(tf.constant(x)).numpy()
