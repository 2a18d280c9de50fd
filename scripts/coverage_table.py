"""Which methods work on which architectures: one row per network, printed as soon as it is known.

A cell says "works", the residual (score minus total relevance, relative to the score, for DeepLIFT to its difference
from the score of zeros, median over the samples; of class activation maps the layer instead) and the seconds until the
first result, compilation included. The column "gradient" is the tracer's self-test: the largest difference between a
composite of plain gradients and TensorFlow's gradient, relative to the largest gradient. Networks of keras.applications
carry random weights and calibrated normalisation. Each network has a process of its own, and a cell that fails does not
stop the table; its message follows the row. The exit code is 1 if any cell failed.

examples:
  scripts/coverage
  scripts/coverage --only 'EfficientNet*' --only 'ResNet50*'
  scripts/coverage --only VGG16 --size 224
  scripts/coverage --methods grad_cam layer_cam
  scripts/coverage my_model.keras old.h5
  scripts/coverage --kerashub --only 'GPT*'

With --kerashub the rows are tiny networks of KerasHub (scripts/kerashub_models.py). A column counts their nodes and
names those that stay closed though relevance should pass; lrp.cp and lrp.attn explain the strongest unit at one
position. For lrp.cp everything that is added to a signal is 0, so that the residual has to vanish.
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kxai.cli.quiet import notices_dropped  # noqa: E402

with notices_dropped():
    import numpy as np
    import tensorflow as tf

    import kxai
    from kxai.graph.graph import Kind
    from scripts import architectures, kerashub_models, tape

METHODS = (
    "lrp.epsilon_plus", "lrp.epsilon", "lrp.epsilon_gamma_box", "deep_taylor", "guided_backprop",
    "deeplift", "deeplift.reveal_cancel",
)  # fmt: skip
BOUNDED = ("lrp.epsilon_gamma_box", "deep_taylor")  # they take the range of the inputs
SELF_TEST = "gradient"
OPENED = "opened"
KERASHUB = "kerashub/"  # such names start with it
KERASHUB_METHODS = ("lrp.cp", "lrp.attn")
KERASHUB_TOLERANCE = 1e-5  # many of these networks compute their norms in float32, whatever their precision
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
    print(row("", columns(names[0], arguments.methods)), flush=True)
    failures = 0
    for name in names:
        cells, shown = cover(name, arguments.size, arguments.methods), Path(name).name
        print(row(shown, (cell.text for cell in cells.values())), flush=True)
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
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="instead of those of the table, such as grad_cam"
    )
    parser.add_argument("--kerashub", action="store_true", help="tiny networks of KerasHub instead")
    arguments = parser.parse_args()
    if arguments.kerashub and (arguments.models or arguments.size or arguments.methods):
        parser.error("--kerashub has its own models and methods: it takes no FILE and no --size, nor --methods")
    unknown = sorted(set(arguments.methods or ()) - set(kxai.methods()))
    if unknown:
        parser.error(f"no such method: {', '.join(unknown)} (kxai methods lists them)")
    if arguments.kerashub and not kerashub_models.installed():
        parser.error("KerasHub is not installed: pip install --no-deps keras-hub (see scripts/environment.sh)")
    if arguments.only and not chosen(arguments):
        parser.error(f"no architecture matches; there are {', '.join(offered(arguments))}")
    return arguments


def offered(arguments: argparse.Namespace) -> list[str]:
    return kerashub_models.names() if arguments.kerashub else architectures.names()


def chosen(arguments: argparse.Namespace) -> list[str]:
    patterns = arguments.only or ([] if arguments.models else ["*"])
    names = [name for name in offered(arguments) if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    return [KERASHUB + name for name in names] if arguments.kerashub else names


def columns(name: str, methods: Sequence[str] | None = None) -> tuple[str, ...]:
    """The columns of a network's row."""
    if name.startswith(KERASHUB):
        return (OPENED, SELF_TEST, *KERASHUB_METHODS)
    return (SELF_TEST, *METHODS) if methods is None else tuple(methods)


def row(name: str, cells: Iterable[str]) -> str:
    return f"{name:<24} " + " ".join(f"{cell:<{WIDTH}}" for cell in cells).rstrip()


def cover(name: str, size: int | None, methods: Sequence[str] | None = None) -> dict[str, Cell]:
    """All cells of one network, computed in a process of its own: its memory goes with it, and so does a crash."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender, name, size, methods))
    process.start()
    sender.close()
    cells = {}
    with contextlib.suppress(EOFError):
        for column in columns(name, methods):
            cells[column] = receiver.recv()
    process.join()
    for column in columns(name, methods)[len(cells) :]:
        cells[column] = Cell("crashed", f"the process died with exit code {process.exitcode}")
    return cells


def work(sender: Any, name: str, size: int | None, methods: Sequence[str] | None) -> None:
    """Send the cells of one network, each as soon as it is known."""
    warnings.simplefilter("ignore")
    tf.get_logger().setLevel("ERROR")
    hub = name.startswith(KERASHUB)
    for compute in kerashub_cells(name, size) if hub else cells_of(name, size, methods):
        sender.send(attempt(compute))
    sender.close()


def cells_of(name: str, size: int | None, methods: Sequence[str] | None) -> list[Callable[[], Cell]]:
    """What computes the cells of a network of keras.applications, or of a file."""
    built = functools.cache(lambda: model_of(name, size, "float32"))
    test = lambda: self_test(model_of(name, size, architectures.exact_dtype(name)))  # noqa: E731
    chosen = METHODS if methods is None else methods
    cells = [functools.partial(lambda method: explained(built(), method), method) for method in chosen]
    return [test, *cells] if methods is None else cells


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
    x = architectures.sample(model, 2, seed=1)
    return compared(model, x)


def compared(model: Any, x: Any, tolerance: float | None = None) -> Cell:
    began = time.perf_counter()
    found, expected = tape.both(model, x, tape.weighted_sum)
    error = tape.error(found, expected)
    text = f"{error:.0e} {time.perf_counter() - began:.1f}s"
    if error <= (TOLERANCE[expected[0].dtype.name] if tolerance is None else tolerance):
        return Cell(f"works {text}")
    return Cell(f"differs {text}", f"differs from TensorFlow's gradient by {error:.2e}")


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
        if not method.startswith("guided_"):
            raise
        # By design it refuses other activations than ReLUs unless told what to do there.
        note = " (other_activations=gradient)"
        result = kxai.create_analyzer(method, model, other_activations="gradient").explain(x, target)
    seconds = time.perf_counter() - began
    layers = "".join(f" {path}" for path in result.layers)
    if method == "deep_taylor" and np.all(result.score <= 0):
        return Cell(f"works (score <= 0) {seconds:.1f}s")
    if not any(np.any(array) for array in tf.nest.flatten(result.relevance)):
        return Cell("all zero", "the relevance is zero everywhere")
    conserves = not layers and method != "guided_backprop"
    gap = np.median(np.abs(result.residual / (result.score - result.base)))
    residual = f" {gap:.0e}" if conserves else ""
    return Cell(f"works{note}{residual} {seconds:.1f}s{layers}")


def kerashub_cells(name: str, size: int | None) -> list[Callable[[], Cell]]:
    """What computes the cells of a network of KerasHub."""
    built = functools.cache(lambda shifts: kerashub_models.build(name.removeprefix(KERASHUB), shifts=shifts))
    return [
        lambda: opened(built(True)),
        lambda: compared(built(True), kerashub_models.sample(built(True), 3, seed=1), KERASHUB_TOLERANCE),
        lambda: strongest_explained(built(False), "lrp.cp", KERASHUB_TOLERANCE),
        lambda: strongest_explained(built(True), "lrp.attn", np.inf),  # its softmax rule does not conserve
    ]


def opened(model: Any) -> Cell:
    """How many nodes the graph has, and which are closed though relevance should pass them."""
    graph = kxai.plan(model, "gradient", kerashub_models.sample(model, 3, seed=1)).graph
    closed = [node for node in graph.nodes if node.kind is Kind.OPAQUE and graph.active.intersection(node.outputs)]
    if not closed:
        return Cell(f"{len(graph.nodes)} nodes")
    return Cell(f"{len(closed)} closed", "; ".join(f"{node.path}: {node.reason}" for node in closed))


def strongest_explained(model: Any, method: str, tolerance: float) -> Cell:
    x = kerashub_models.sample(model, 3, seed=1)
    began = time.perf_counter()
    result = kxai.create_analyzer(method, model).explain(x, target=kerashub_models.strongest)
    residual = np.max(np.abs(result.residual / result.score))
    text = f"{residual:.0e} {time.perf_counter() - began:.1f}s"
    if residual <= tolerance:
        return Cell(f"works {text}")
    return Cell(f"leaks {text}", f"{residual:.2e} of the score is not handed on")


if __name__ == "__main__":
    sys.exit(main())
