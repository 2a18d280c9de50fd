"""Which methods work on which architectures: one row per network, printed as soon as it is known.

A cell says "works", the residual (score minus total relevance, relative to the score, median over the samples) and the
seconds until the first result, compilation included. The column "gradient" is the tracer's self-test: the largest
difference between a composite of plain gradients and TensorFlow's gradient, relative to the largest gradient. Networks
of keras.applications carry random weights and calibrated normalisation. Each network has a process of its own, and a
cell that fails does not stop the table; its message follows the row. The exit code is 1 if any cell failed.

examples:
  scripts/coverage
  scripts/coverage --only 'EfficientNet*' --only 'ResNet50*'
  scripts/coverage --only VGG16 --size 224
  scripts/coverage my_model.keras old.h5
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import functools
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kxai.cli.quiet import notices_dropped  # noqa: E402

with notices_dropped():
    import numpy as np
    import tensorflow as tf
    from keras import ops

    import kxai
    from scripts import architectures

METHODS = ("lrp.epsilon_plus", "lrp.epsilon", "lrp.epsilon_gamma_box", "deep_taylor", "guided_backprop")
BOUNDED = ("lrp.epsilon_gamma_box", "deep_taylor")  # they take the range of the inputs
SELF_TEST = "gradient"
WIDTH = 21
# In float32 a few ReLUs of a model from a file may fall on the other side of 0, see architectures.exact_dtype.
TOLERANCE = {"float64": 1e-9, "float32": 5e-2}


@dataclass(frozen=True)
class Cell:
    """One method on one network: what to print, and the message if it failed."""

    text: str
    problem: str = ""


def main() -> int:
    """Print the table and return the exit code."""
    arguments = parse()
    names = [*arguments.models, *chosen(arguments)]
    print(row("", [SELF_TEST, *METHODS]), flush=True)
    failures = 0
    for name in names:
        cells, shown = cover(name, arguments.size), Path(name).name
        print(row(shown, [cell.text for cell in cells.values()]), flush=True)
        for column, cell in cells.items():
            if cell.problem:
                failures += 1
                print(f"    {shown}, {column}: {cell.problem}", flush=True)
    print(f"{len(names)} networks, {failures} failures")
    return int(failures > 0)


def parse() -> argparse.Namespace:
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/coverage", description=summary, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="FILE", help=".keras or .h5 files")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="architectures by shell pattern; repeatable")
    parser.add_argument("--size", type=int, help="height and width of the input (default: small, 32 to 96)")
    arguments = parser.parse_args()
    if arguments.only and not chosen(arguments):
        parser.error(f"no architecture matches; there are {', '.join(architectures.names())}")
    return arguments


def chosen(arguments: argparse.Namespace) -> list[str]:
    patterns = arguments.only or ([] if arguments.models else ["*"])
    return [name for name in architectures.names() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def row(name: str, cells: list[str]) -> str:
    return f"{name:<24} " + " ".join(f"{cell:<{WIDTH}}" for cell in cells).rstrip()


def cover(name: str, size: int | None) -> dict[str, Cell]:
    """All cells of one network, computed in a process of its own: its memory goes with it, and so does a crash."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender, name, size))
    process.start()
    sender.close()
    cells = {}
    with contextlib.suppress(EOFError):
        for column in (SELF_TEST, *METHODS):
            cells[column] = receiver.recv()
    process.join()
    for column in (SELF_TEST, *METHODS)[len(cells) :]:
        cells[column] = Cell("crashed", f"the process died with exit code {process.exitcode}")
    return cells


def work(sender: Any, name: str, size: int | None) -> None:
    """Send the cells of one network, each as soon as it is known."""
    warnings.simplefilter("ignore")
    tf.get_logger().setLevel("ERROR")
    sender.send(attempt(lambda: self_test(model_of(name, size, architectures.exact_dtype(name)))))
    built = functools.cache(lambda: model_of(name, size, "float32"))
    for method in METHODS:
        sender.send(attempt(lambda method=method: explained(built(), method)))
    sender.close()


def model_of(name: str, size: int | None, dtype: str) -> Any:
    """An architecture by name, or the model of a file (in the precision it was saved in)."""
    return architectures.build(name, size, dtype) if name in architectures.names() else kxai.load(name)


def attempt(compute: Callable[[], Cell]) -> Cell:
    """The cell that ``compute`` returns, or one that tells its error."""
    try:
        return compute()
    except Exception as error:  # whatever it is, it belongs into the table
        return failed(error)


def failed(error: Exception) -> Cell:
    name = type(error).__name__
    return Cell(name, f"{name}: {str(error).partition(chr(10))[0]}")


def self_test(model: Any) -> Cell:
    """Compare a composite of plain gradients with TensorFlow's gradient of the same score."""
    if any("int" in tensor.dtype for tensor in model.inputs):
        return Cell("- (integer inputs)")
    x = architectures.sample(model, 2, seed=1)
    began = time.perf_counter()
    found = tf.nest.flatten(kxai.Gradient(model, strip_softmax=False).explain(x, target=weighted_sum).relevance)
    seconds = time.perf_counter() - began
    expected = tape_gradient(model, x)
    error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True))
    text = f"{error:.0e} {seconds:.1f}s"
    if error <= TOLERANCE[expected[0].dtype.name]:
        return Cell(f"works {text}")
    return Cell(f"differs {text}", f"differs from TensorFlow's gradient by {error:.2e}")


def weighted_sum(outputs: Any) -> Any:
    """A score that depends on every output differently: one number per sample."""
    rows = [ops.reshape(y, (ops.shape(y)[0], -1)) for y in tf.nest.flatten(outputs)]
    return sum(ops.sum(y * ops.cos(ops.cumsum(ops.ones_like(y), axis=1)), axis=1) for y in rows)


def tape_gradient(model: Any, x: Any) -> list[np.ndarray]:
    """Gradient of :func:`weighted_sum` with respect to every input.

    In a graph, because eager TensorFlow also computes the kernel's gradient, and on CPUs that of a strided 1x1
    convolution writes beyond its memory (seen with 2.21).
    """

    @tf.function
    def gradient(inputs: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            score = weighted_sum(model(inputs, training=False))
        return tape.gradient(score, inputs)

    return [g.numpy() for g in tf.nest.flatten(gradient(tf.nest.map_structure(tf.constant, x)))]


def explained(model: Any, method: str) -> Cell:
    """Explain two samples, from making the analyzer to the arrays."""
    x = architectures.sample(model, 2, seed=1)
    low, high = architectures.bounds(model)
    options = {"low": low, "high": high} if method in BOUNDED else {}
    target = model.output_names[0] if len(model.outputs) > 1 else None
    began = time.perf_counter()
    note = ""
    try:
        result = kxai.create_analyzer(method, model, **options).explain(x, target)
    except kxai.errors.RuleError:
        if method != "guided_backprop":
            raise
        # By design it refuses other activations than ReLUs unless told what to do there.
        note = " (other_activations=gradient)"
        result = kxai.create_analyzer(method, model, other_activations="gradient").explain(x, target)
    seconds = time.perf_counter() - began
    if method == "deep_taylor" and np.all(result.score <= 0):
        return Cell(f"works (score <= 0) {seconds:.1f}s")
    if not any(np.any(array) for array in tf.nest.flatten(result.relevance)):
        return Cell("all zero", "the relevance is zero everywhere")
    residual = "" if method == "guided_backprop" else f" {np.median(np.abs(result.residual / result.score)):.0e}"
    return Cell(f"works{note}{residual} {seconds:.1f}s")


if __name__ == "__main__":
    sys.exit(main())
