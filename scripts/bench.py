"""How fast the methods are, in units of one gradient of the same network.

The unit is one compiled tf.GradientTape gradient with respect to the input, from array to array in NumPy; a method is
timed as analyzer.explain on the same array. In every round each method runs once, A B C A B C, and is compared with
the gradient of the same round. The table shows the median and the range of these ratios and, from a process per
method, the seconds until the first result (compilation included) and the peak memory. With --targets the exit code is
1 if a median misses its target; it always is where a method fails.

Ratios of methods that evaluate the network many times are divided by the number of steps, samples or channels (column
"/") and taken in every third round. score_cam is compared with one forward pass. It masks with the channels of the
first layer that is smaller than the image: 64 of VGG16 and ResNet50.

--peers measures captum (PyTorch), SHAP and tf-keras-vis (TensorFlow) on the same networks afterwards, each in a process
and an environment of its own, which is made on first use (3.5 GB in all, some minutes). A second table shows them
beside kxai: in gradients of the same batch by their own framework, and in seconds.

examples:
  scripts/bench
  scripts/bench --models VGG16 --batch 8 --targets
  scripts/bench --methods lrp.epsilon lrp.z_plus --rounds 15 --json result.json
  scripts/bench --models VGG16 ResNet50 --batch 8 --peers --json peers.json
  scripts/bench --models Small --size 32 --batch 2 --rounds 1 --peers captum

other measurements, each with a --help of its own:
  scripts/bench --export      the size of exports, and the latency of explain beside serving_default
  scripts/bench --callback    what explanations add to an epoch of training
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

from scripts import bench_peers  # noqa: E402
from scripts.bench_methods import FORWARD, NETWORKS, TAPE, Method, chosen  # noqa: E402
from scripts.rounds import ratios  # noqa: E402
from scripts.status import status  # noqa: E402

BUSY = 0.3  # load per core above which timings mean little


def main() -> int:
    """Print one table per network and batch size, and one with the peers, and return the exit code."""
    arguments = parse()
    warn_if_busy()
    peers = [] if arguments.peers is None else bench_peers.chosen(arguments.peers)
    pythons = bench_peers.environments(peers, arguments.folder / arguments.environments)
    results = []
    for name in arguments.models:
        for batch in arguments.batch:
            result = measure(name, batch, arguments)
            print(table(result, arguments.targets), flush=True)
            if peers:
                result["peers"] = bench_peers.measure(result, peers, pythons)
                if result["peers"]:
                    print(bench_peers.table(result), flush=True)
            results.append(result)
    if arguments.json:
        (arguments.folder / arguments.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    rows = [row for result in results for row in result["rows"]]
    missed = any(row["target"] and row["median"] > row["target"] for row in rows if "error" not in row)
    return int(any("error" in row for row in rows) or (arguments.targets and missed))


def parse() -> argparse.Namespace:
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=summary, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", default=list(NETWORKS), metavar="NAME",
        help="of keras.applications, ViT, LSTM or Small (VGG16 ResNet50 ViT LSTM)",
    )  # fmt: skip
    parser.add_argument("--batch", nargs="+", type=positive, default=[8, 1], metavar="N", help="batch sizes (8 1)")
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="as kxai.methods() lists them (those with targets, and some more)"
    )
    parser.add_argument("--rounds", type=positive, default=9, metavar="N", help="repetitions (9)")
    parser.add_argument(
        "--size", type=positive, default=224, metavar="N", help="height and width, or length, of the input (224)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--targets", action="store_true", help="show the targets and fail where one is missed")
    parser.add_argument(
        "--peers", nargs="*", choices=list(bench_peers.PEERS), metavar="NAME",
        help=f"measure these too ({' '.join(bench_peers.PEERS)})",
    )  # fmt: skip
    parser.add_argument(
        "--environments", type=Path, default=bench_peers.FOLDER, metavar="FOLDER",
        help="where the peers' environments are kept (kxai-bench in the user's cache)",
    )  # fmt: skip
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
    methods = chosen(name, arguments.methods)
    found = apart("timings", name, arguments.size, batch, methods, arguments.rounds)
    timed = found["rows"]
    if "error" in timed[TAPE]:
        sys.exit(f"error: no gradient of {name} to compare with: {timed[TAPE]['error']}")
    units = {unit: timed[unit]["seconds"] for unit in (TAPE, FORWARD) if unit in timed}
    rows = []
    for method in (*map(Method, units), *methods):
        row = {"method": method.label, "target": method.target, "evaluations": 1, **timed[method.label]}
        if "error" not in row:
            row |= ratios(row["seconds"], units[method.unit], row["evaluations"])
            status(f"{name}, batch {batch}: {method.label}, memory")
            row |= apart("first_result", name, arguments.size, batch, method)
        rows.append(row)
    status()
    return {
        "model": name, "size": arguments.size, "batch": batch, "rounds": arguments.rounds,
        "framework": found["framework"], "parameters": found["parameters"], "unit": statistics.median(units[TAPE]),
        "rows": rows,
    }  # fmt: skip


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
    title = f"{result['model']}, size {result['size']}, batch {result['batch']}, {result['rounds']} rounds"
    head = f"{'method':<29}{'median':>8}{'min-max':>14}{'/':>5}{'first':>9}{'peak':>10}" + f"{'target':>10}" * targets
    lines = [f"{title}; 1 = {result['unit']:.3f} s", head]
    for row in result["rows"]:
        if "error" in row:
            lines.append(f"{row['method']:<29}   fails: {row['error']}")
            continue
        spread = f"{row['min']:.2f}-{row['max']:.2f}"
        divisor = row["evaluations"] if row["evaluations"] > 1 else ""
        line = f"{row['method']:<29}{row['median']:>8.2f}{spread:>14}{divisor:>5}"
        line += f"{row['first']:>7.1f} s{row['peak']:>7.0f} MB"
        if targets and row["target"]:
            line += f"   <= {row['target']:.2f}" + (" MISSED" if row["median"] > row["target"] else "")
        lines.append(line)
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
