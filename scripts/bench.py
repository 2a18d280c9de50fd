"""How fast the methods are, in units of one gradient of the same network.

The unit is one compiled tf.GradientTape gradient with respect to the input, from array to array in NumPy; a method is
timed as analyzer.explain on the same array. In every round each method runs once, A B C A B C, and is compared with
the gradient of the same round. The table shows the median and the range of these ratios and, from a process per
method, the seconds until the first result (compilation included) and the peak memory. With --targets the exit code is
1 if a median misses its target.

examples:
  scripts/bench
  scripts/bench --models VGG16 --batch 8 --targets
  scripts/bench --methods lrp.epsilon lrp.z_plus --rounds 15 --json result.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TAPE = "tape"
CONVOLUTIONAL = {
    "gradient": None,
    "lrp.epsilon": 1.15,
    "lrp.epsilon_plus": 1.7,
    "lrp.z_plus": 1.7,
    "lrp.gamma": 1.8,
    "lrp.epsilon_gamma_box": 1.8,
    "lrp.alpha_beta": 2.3,
    "deep_taylor": None,
    "guided_backprop": None,
}
# Per network what is measured, with the project's targets.
NETWORKS = {
    "VGG16": CONVOLUTIONAL,
    "ResNet50": {method: target and target + 0.4 for method, target in CONVOLUTIONAL.items()},
    "ViT": {"gradient": None, "lrp.attn": 2.0, "lrp.cp": None},
    "LSTM": {"gradient": None, "lrp.epsilon": 4.0},
}
BUSY = 0.3  # load per core above which timings mean little


def main() -> int:
    """Print one table per network and batch size, and return the exit code."""
    arguments = parse()
    warn_if_busy()
    results = []
    for name in arguments.models:
        for batch in arguments.batch:
            result = measure(name, batch, arguments)
            print(table(result, arguments.targets), flush=True)
            results.append(result)
    if arguments.json:
        (arguments.folder / arguments.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    missed = [row for result in results for row in result["rows"] if row["target"] and row["median"] > row["target"]]
    return int(arguments.targets and bool(missed))


def parse() -> argparse.Namespace:
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=summary, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", default=list(NETWORKS), metavar="NAME",
        help="of keras.applications, ViT or LSTM (VGG16 ResNet50 ViT LSTM)",
    )  # fmt: skip
    parser.add_argument("--batch", nargs="+", type=positive, default=[8, 1], metavar="N", help="batch sizes (8 1)")
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="as kxai.methods() lists them (those with targets)"
    )
    parser.add_argument("--rounds", type=positive, default=9, metavar="N", help="repetitions (9)")
    parser.add_argument(
        "--size", type=positive, default=224, metavar="N", help="height and width, or length, of the input (224)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--targets", action="store_true", help="show the targets and fail where one is missed")
    parser.add_argument("--folder", type=Path, default=Path(), help=argparse.SUPPRESS)  # where the caller stands
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def warn_if_busy() -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        print(f"warning: load {load:.1f} on {cores} cores; other programs disturb the timings", file=sys.stderr)


def measure(name: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one network and batch size."""
    targets = NETWORKS.get(name, CONVOLUTIONAL)
    methods = arguments.methods or list(targets)
    seconds = apart("timings", name, arguments.size, batch, methods, arguments.rounds)
    unit = seconds[TAPE]
    rows = []
    for method, times in seconds.items():
        ratios = [t / u for t, u in zip(times, unit, strict=True)]
        target = targets.get(method) if name in NETWORKS else None
        row = {"method": method, "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
        row |= {"seconds": times, "target": target, **apart("first_result", name, arguments.size, batch, method)}
        rows.append(row)
    return {"model": name, "size": arguments.size, "batch": batch, "unit": statistics.median(unit), "rows": rows}


def apart(function: str, *values: Any) -> Any:
    """Call a function of bench_worker in a fresh process, whose memory and caches are its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(call, function, values).result()


def call(function: str, values: tuple[Any, ...]) -> Any:
    warnings.simplefilter("ignore")
    from scripts import bench_worker

    return getattr(bench_worker, function)(*values)


def table(result: dict[str, Any], targets: bool) -> str:
    """The numbers of one network and batch size as text."""
    rounds = len(result["rows"][0]["seconds"])
    size = result["size"]
    title = f"{result['model']}, size {size}, batch {result['batch']}, {rounds} rounds; 1 = {result['unit']:.3f} s"
    head = f"{'method':<24}{'median':>8}{'min-max':>14}{'first':>9}{'peak':>10}" + f"{'target':>10}" * targets
    lines = [title, head]
    for row in result["rows"]:
        spread = f"{row['min']:.2f}-{row['max']:.2f}"
        line = f"{row['method']:<24}{row['median']:>8.2f}{spread:>14}{row['first']:>7.1f} s{row['peak']:>7.0f} MB"
        if targets and row["target"]:
            line += f"   <= {row['target']:.2f}" + (" MISSED" if row["median"] > row["target"] else "")
        lines.append(line)
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
