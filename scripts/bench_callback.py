"""What explanations cost during a training: seconds per epoch with and without the callback.

The network is that of model_zoo/digits_cnn.py, an epoch has as many samples as its training. All variants train in
turns, round by round, each with its own copy of the network and after one warm-up, so that they share the machine's
moods. The table shows how long an epoch takes and how much of it is the callback: medians and ranges.

examples:
  scripts/bench --callback
  scripts/bench --callback --rounds 15 --samples 256 --json callback.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TRAINING_SAMPLES = 1347  # of scikit-learn's digits
BATCH = 32
WITHOUT = "without"


def main() -> int:
    """Print the table and return the exit code."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench --callback", description=summary, epilog=details,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="repetitions (9)")
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="samples that are explained (64)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--folder", type=Path, default=Path(), help=argparse.SUPPRESS)  # where the caller stands
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = measured(arguments.rounds, arguments.samples)
    print(table(found))
    if arguments.json:
        (arguments.folder / arguments.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def variants(x: Any, y: Any, samples: int, folder: Path) -> dict[str, Callable[[], list[Any]]]:
    """By name, what makes the callbacks."""
    from kxai.callbacks import ExplanationCallback

    def one(method: Any, name: str, **options: Any) -> list[Any]:
        return [
            ExplanationCallback((x, y), method, samples=samples, log_dir=folder / name, on_error="raise", **options)
        ]

    both = ["lrp.epsilon_plus", "gradient_x_input"]
    return {
        WITHOUT: list,
        "numbers": lambda: one("lrp.epsilon_plus", "numbers", max_images=0),
        "numbers and pictures": lambda: one("lrp.epsilon_plus", "pictures"),
        "the same, two methods": lambda: one(both, "two"),
    }


def measured(rounds: int = 9, samples: int = 64) -> dict[str, Any]:
    """Seconds per epoch, by variant and round.

    Args:
        rounds: how many.
        samples: that are explained after each epoch.

    Returns:
        "samples"; "first", by variant the seconds of the first fit, compilation included; and "seconds" and "callback",
        by variant a list of one number per round: of the epoch, and of what of it the callback took.
    """
    import numpy as np

    from model_zoo import digits_cnn

    random = np.random.default_rng(0)
    x, y = random.random((TRAINING_SAMPLES, 8, 8, 1), np.float32), random.integers(0, 10, TRAINING_SAMPLES)
    found: dict[str, Any] = {"samples": samples, "first": {}, "seconds": {}, "callback": {}}
    trainings = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in variants(x, y, samples, Path(folder)).items():
            model = digits_cnn.architecture()
            model.compile("adam", "sparse_categorical_crossentropy")
            trainings[name] = model, make()
            began = time.perf_counter()
            epoch(*trainings[name], x, y)
            found["first"][name] = time.perf_counter() - began
            found["seconds"][name], found["callback"][name] = [], []
        for _ in range(rounds):
            for name, training in trainings.items():
                whole, own = epoch(*training, x, y)
                found["seconds"][name].append(whole)
                found["callback"][name].append(own)
    return found


def epoch(model: Any, callbacks: list[Any], x: Any, y: Any) -> tuple[float, float]:
    """Seconds of an epoch, and of what of it the callbacks take at its end."""
    import keras

    begins, learned, ends = [], [], []

    def clock(**into: list[float]) -> Any:
        ticks = {name: lambda *_, ticks=ticks: ticks.append(time.perf_counter()) for name, ticks in into.items()}
        return keras.callbacks.LambdaCallback(**ticks)

    clocks = clock(on_epoch_begin=begins, on_epoch_end=learned), clock(on_epoch_end=ends)
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[clocks[0], *callbacks, clocks[1]])
    return ends[0] - begins[0], ends[0] - learned[0]


def table(found: dict[str, Any]) -> str:
    """The numbers as text."""
    lines = [f"{'':24}{'epoch, ms':>22}{'of it the callback, ms':>28}{'first fit, s':>14}"]
    for name, seconds in found["seconds"].items():
        own = "" if name == WITHOUT else spread(found["callback"][name])
        lines.append(f"{name:24}{spread(seconds):>22}{own:>28}{found['first'][name]:>14.2f}")
    return "\n".join(
        [*lines, f"{found['samples']} samples explained per epoch of {TRAINING_SAMPLES}; medians (ranges)"]
    )


def spread(seconds: list[float]) -> str:
    """Median and range in milliseconds."""
    return f"{1e3 * statistics.median(seconds):.0f} ({1e3 * min(seconds):.0f}..{1e3 * max(seconds):.0f})"


if __name__ == "__main__":
    sys.exit(main())
