"""How large exports are, and how long explain takes beside serving_default.

A model with random weights is exported with each method alone and loaded as any server does. In every round each
signature runs once, from array to array, and is compared with serving_default of the same round. Sizes are those of
all files; "plain" has serving_default alone. What explanations add does not depend on how many weights there are.

  scripts/bench --export --models digits
  scripts/bench --export --models MobileNetV2 --methods lrp.epsilon grad_cam --batch 1 --rounds 31 --json result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kxai.cli.quiet import notices_dropped  # noqa: E402

with notices_dropped():
    import numpy as np
    import tensorflow as tf

    import kxai
    from kxai.backend.saved_model import Concrete, save
    from kxai.exporting.folder import size_of
    from kxai.exporting.interface import interface
    from scripts import architectures

from scripts.bench import positive, warn_if_busy  # noqa: E402
from scripts.rounds import ratios, reason, timed  # noqa: E402
from scripts.status import status  # noqa: E402

DIGITS = "digits"
MODELS = (DIGITS, "MobileNetV2", "VGG16")
METHODS = ("gradient", "lrp.epsilon", "lrp.epsilon_plus", "grad_cam")
PLAIN = "serving_default"


def main() -> int:
    """Print one table per network, and return the exit code."""
    arguments = parse()
    warn_if_busy()
    results = [measure(name, arguments) for name in arguments.models]
    if arguments.json:
        (arguments.folder / arguments.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any("error" in row for result in results for row in result["rows"]))


def parse() -> argparse.Namespace:
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench --export", description=summary, epilog=details,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    models, methods = f"of keras.applications, or {DIGITS}", "as kxai.methods() lists them"
    add("--models", nargs="+", default=MODELS, metavar="NAME", help=f"{models} ({' '.join(MODELS)})")
    add("--methods", nargs="+", default=METHODS, metavar="NAME", help=f"{methods} ({' '.join(METHODS)})")
    add("--batch", nargs="+", type=positive, default=[1, 8], metavar="N", help="batch sizes (1 8)")
    add("--rounds", type=positive, default=15, metavar="N", help="repetitions (15)")
    add("--size", type=positive, default=224, metavar="N", help="height and width of the input (224)")
    add("--json", type=Path, metavar="FILE", help="write all numbers there")
    add("--folder", type=Path, default=Path(), help=argparse.SUPPRESS)  # where the caller stands
    return parser.parse_args()


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one network, shown as they come."""
    model, x = network(name, arguments.size, max(arguments.batch))
    with tempfile.TemporaryDirectory() as folder:
        status(f"{name}: plain")
        plain = size_of(written(model, Path(folder, "plain")))
        exports: dict[str, Any] = {}
        for method in arguments.methods:
            status(f"{name}: {method}")
            try:
                exports[method] = kxai.export(kxai.create_analyzer(method, model), f"{folder}/{method}", warmup=False)
            except kxai.KxaiError as error:
                exports[method] = reason(error)
        rows = [row for batch in arguments.batch for row in latencies(exports, x[:batch], arguments.rounds)]
    status()
    result = {
        "model": name, "parameters": model.count_params(), "plain": plain, "rounds": arguments.rounds,
        "sizes": {method: done if isinstance(done, str) else done.size for method, done in exports.items()},
        "rows": rows,
    }  # fmt: skip
    print(table(result), flush=True)
    return result


def network(name: str, size: int, count: int) -> tuple[Any, np.ndarray]:
    """A model and inputs for it."""
    if name == DIGITS:
        images = np.load(ROOT / "model_zoo" / "digits_samples.npz")["images"] / 16
        return kxai.load(ROOT / "model_zoo" / "digits_cnn.keras"), np.resize(images, (count, *images.shape[1:]))
    model = architectures.build(name, size, samples=1)
    return model, architectures.sample(model, count, seed=1)


def latencies(exports: dict[str, Any], x: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """Seconds of each signature, and how many times those of serving_default of the same round they are."""
    loaded = {method: tf.saved_model.load(done.path) for method, done in exports.items() if not isinstance(done, str)}
    makers = {PLAIN: lambda: runner(next(iter(loaded.values())), PLAIN)}
    makers |= {method: lambda one=one: runner(one, "explain") for method, one in loaded.items()}
    found = timed(makers, np.asarray(x, "float32"), rounds, show=lambda text: status(f"batch {len(x)}: {text}"))
    rows = []
    for method in (PLAIN, *exports):
        row = {"batch": len(x), "signature": method, **found.get(method, {"error": exports.get(method)})}
        if "seconds" in row:
            times = row["seconds"]
            row |= {
                "time": statistics.median(times),
                "best": min(times),
                **ratios(row["seconds"], found[PLAIN]["seconds"]),
            }
        rows.append(row)
    return rows


def runner(loaded: Any, signature: str) -> Callable[[np.ndarray], Any]:
    """A signature as a function of a batch, explaining the predicted classes."""
    function = loaded.signatures[signature]
    (name,) = (key for key in function.structured_input_signature[1] if key != "target")

    def run(x: np.ndarray) -> Any:
        target = {} if signature == PLAIN else {"target": tf.fill([len(x)], -1)}
        return [tensor.numpy() for tensor in function(**{name: tf.constant(x)}, **target).values()]

    return run


def written(model: Any, folder: Path) -> Path:
    """The folder, with serving_default alone in it."""
    names = interface(model, None)
    function = Concrete(
        lambda tensors: {f"output_{i}": y for i, y in enumerate(names.predicted(tensors))}, names.inputs
    )
    save(str(folder), {PLAIN: function}, [])
    return folder


def table(result: dict[str, Any]) -> str:
    """The numbers of one network as text."""
    title = f"{result['model']}, {result['parameters']} parameters, {result['rounds']} rounds"
    lines = [title, f"{'size':<24}{result['plain']:>14} bytes plain"]
    for method, size in result["sizes"].items():
        if not isinstance(size, str):
            lines.append(f"{method:<24}{size:>14} bytes{size - result['plain']:>+12}")
    lines.append(f"{'latency':<24}{'batch':>6}{'best':>12}{'median':>12}{'ratio':>8}{'min-max':>14}")
    for row in result["rows"]:
        head = f"{row['signature']:<24}{row['batch']:>6}"
        if "error" in row:
            lines.append(f"{head}   fails: {row['error']}")
        else:
            spread = f"{row['min']:.2f}-{row['max']:.2f}"
            lines.append(
                f"{head}{1000 * row['best']:>9.2f} ms{1000 * row['time']:>9.2f} ms{row['median']:>8.2f}{spread:>14}"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
