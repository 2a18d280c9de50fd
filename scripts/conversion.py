"""Does a method name the pixels that make a digit this one and not that one? Erase them and watch the log-odds.

The experiment of the DeepLIFT paper (Shrikumar et al. 2017, section 4.1). For a conversion a -> b, every test image of
class a is explained twice, for logit a and for logit b. The difference of the two explanations ranks the pixels; up to
157 of them, 20 %, are set to 0: those above the 158th largest difference, and above 0. The change is logit a minus
logit b before, minus the same after. A cell of the table says the median change and the share of images whose logit a
falls below logit b; then "=" if the ten images of the largest change are those that the paper's authors published,
"DIFFERS" if they are not, nothing if they published none.

The folder holds mnist_w.npz, the weights in Keras' layout (conv2d_1_kernel, conv2d_1_bias, conv2d_2_..., dense_1_...,
dense_2_...); MNIST's t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, packed with gzip or not; and, if there is
anything to compare with, the published lists in expected.json.

examples:
  scripts/conversion FOLDER
  scripts/conversion FOLDER --methods rescale revealcancel
  scripts/conversion FOLDER --conversions '8->3' '7->1' --json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kxai.cli.quiet import library  # noqa: E402

kxai = library()
import numpy as np  # noqa: E402

from kxai.cli import table  # noqa: E402
from kxai.progress import track  # noqa: E402
from scripts.digits import Digits, DigitsError, read  # noqa: E402

BATCH = 256
ERASED = 157  # a fifth of 28 x 28
LISTED = 10


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        title: as people call it.
        make: the analyzer of a model; methods that share one share its explanations.
        score: (relevance, images) -> what ranks the pixels.
        published: the name in the authors' notebook; "" if it is not there.
        complete: whether explanations add up to the difference from the black image.
    """

    title: str
    make: Callable[[Any], Any]
    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda relevance, images: relevance
    published: str = ""
    complete: bool = False


def _gradient(model: Any) -> Any:
    return kxai.Gradient(model)


def _guided(model: Any) -> Any:
    return kxai.GuidedBackprop(model)


METHODS = {
    "gradient_masked": Method("|gradient|, masked", _gradient, lambda r, x: np.abs(r) * (x > 0), "simonyan_masked"),
    "guided_masked": Method("guided backprop, masked", _guided, lambda r, x: r * (x > 0), "guided_backprop_masked"),
    "guided_x_input": Method("guided backprop x input", _guided, lambda r, x: r * x, "guided_backprop_times_inp"),
    "gradient_x_input": Method("gradient x input", _gradient, lambda r, x: r * x, "grad_times_inp"),
    "ig_5": Method(
        "integrated gradients, 5 steps",
        lambda model: kxai.IntegratedGradients(model, num_steps=5, grid="midpoint"),
        published="integrated_grads_5",
        complete=True,
    ),
    "ig_10": Method(
        "integrated gradients, 10 steps",
        lambda model: kxai.IntegratedGradients(model, num_steps=10, grid="midpoint"),
        published="integrated_grads_10",
        complete=True,
    ),
    "rescale": Method("DeepLIFT, Rescale", lambda model: kxai.DeepLIFT(model, rule="rescale"), complete=True),
    "revealcancel": Method(
        "DeepLIFT, RevealCancel",
        lambda model: kxai.DeepLIFT(model, rule="reveal_cancel"),
        published="revealcancel",
        complete=True,
    ),
}
CONVERSIONS = ("8->3", "8->6", "9->1", "4->1")


@dataclass(frozen=True, eq=False)
class Result:
    """What one method did to the images of one conversion.

    Attributes:
        change: (images,), of the log-odds.
        flipped: share of the images whose logit a fell below logit b.
        largest: the test images of the largest change, the largest first.
        published: those that the authors found; () if unknown.
        gap: the largest |residual| of the explanations over the mean |difference from the black image|; nan for
            methods that do not promise completeness.
    """

    change: np.ndarray
    flipped: float
    largest: tuple[int, ...]
    published: tuple[int, ...]
    gap: float

    @property
    def verdict(self) -> str:
        if not self.published:
            return ""
        return "=" if self.largest == self.published else "DIFFERS"

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        quarters = dict(zip(("q25", "median", "q75"), np.percentile(self.change, (25, 50, 75)).tolist(), strict=True))
        lists = {"largest": list(self.largest), "published": list(self.published) or None}
        gap = {} if np.isnan(self.gap) else {"gap": self.gap}
        mean = float(self.change.mean())
        return {"images": len(self.change), "mean": mean, **quarters, "flipped": self.flipped, **gap, **lists}


class Experiment:
    """The protocol on one set of digits: what two methods or two conversions share is computed once."""

    def __init__(self, digits: Digits) -> None:
        self.digits = digits
        self._analyzers: dict[Callable[[Any], Any], Any] = {}
        self._explanations: dict[tuple[Callable[[Any], Any], int, int], Any] = {}

    @cached_property
    def logits(self) -> np.ndarray:
        """Of all images."""
        return self._logits(self.digits.images)

    @property
    def accuracy(self) -> tuple[int, int]:
        """(images classified right, images)."""
        return int((self.logits.argmax(axis=1) == self.digits.labels).sum()), len(self.digits.labels)

    def run(self, method: Method, conversion: str) -> Result:
        """Explain, erase, measure."""
        a, b = digits_of(conversion)
        (chosen,) = np.nonzero(self.digits.labels == a)
        images = self.digits.images[chosen]
        found = [self._explained(method, a, target) for target in (a, b)]
        for_a, for_b = (method.score(one.relevance, images) for one in found)
        after = self._logits(erased(images, for_a - for_b))
        before = self.logits[chosen]
        change = (before[:, a] - before[:, b]) - (after[:, a] - after[:, b])
        order = np.argsort(-change, kind="stable")[:LISTED]
        published = self.digits.published.get(conversion, {}).get(method.published, [])
        gap = max(map(_gap, found)) if method.complete else np.nan
        flipped = float(np.mean(after[:, a] < after[:, b]))
        return Result(change, flipped, tuple(chosen[order].tolist()), tuple(published), gap)

    def _explained(self, method: Method, label: int, target: int) -> Any:
        """All images of a class, explained for a target."""
        key = (method.make, label, target)
        if method.make not in self._analyzers:
            self._analyzers[method.make] = method.make(self.digits.model)
        if key not in self._explanations:
            images = self.digits.images[self.digits.labels == label]
            explain = self._analyzers[method.make].explain
            self._explanations[key] = explain(images, target, batch_size=BATCH, verbose=False)
        return self._explanations[key]

    def _logits(self, images: np.ndarray) -> np.ndarray:
        return self.digits.model.predict(images, batch_size=1024, verbose=0)


def _gap(explanation: Any) -> float:
    return float(np.abs(explanation.residual).max() / np.abs(explanation.score - explanation.base).mean())


def digits_of(conversion: str) -> tuple[int, int]:
    """Both classes of "8->3"."""
    a, b = conversion.split("->")
    return int(a), int(b)


def erased(images: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Images without the pixels whose difference is above the 158th largest and above 0."""
    flat = difference.reshape(len(images), -1)
    threshold = np.maximum(-np.partition(-flat, ERASED, axis=1)[:, ERASED], 0)
    return np.where((flat > threshold[:, None]).reshape(images.shape), 0, images)


def main() -> int:
    """Print the table and return the exit code."""
    began = time.perf_counter()
    arguments = parse()
    try:
        experiment = Experiment(read(arguments.folder))
    except DigitsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    jobs = [(name, conversion) for name in arguments.methods for conversion in arguments.conversions]
    results = {job: experiment.run(METHODS[job[0]], job[1]) for job in track(jobs, description="erasing pixels")}
    right, count = experiment.accuracy
    if arguments.json:
        nested = {c: {name: results[name, c].numbers() for name in arguments.methods} for c in arguments.conversions}
        print(json.dumps({"right": right, "images": count, "conversions": nested}, indent=1))
    else:
        print(f"accuracy {right / count:.2%}: {right} of {count} test images")
        table.show(*cells(arguments.methods, arguments.conversions, results))
        print(f"{summary(results.values())}; {time.perf_counter() - began:.0f} s")
    return int(any(found.verdict == "DIFFERS" for found in results.values()))


def parse() -> argparse.Namespace:
    head, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/conversion", description=head, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with the weights and the test images, see below")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD",
        help="some of " + ", ".join(METHODS) + "; default all",
    )  # fmt: skip
    parser.add_argument(
        "--conversions", nargs="+", type=_conversion, default=list(CONVERSIONS), metavar="A->B",
        help="pairs of digits; default " + " ".join(CONVERSIONS),
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="all numbers, for a program, instead of a table")
    parser.add_argument("--here", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder = arguments.here / arguments.folder
    return arguments


def _conversion(text: str) -> str:
    if not re.fullmatch(r"\d->\d", text) or text[0] == text[-1]:
        raise argparse.ArgumentTypeError(f"expected two different digits as in '8->3', got {text!r}")
    return text


def cells(
    methods: Sequence[str], conversions: Sequence[str], results: dict[tuple[str, str], Result]
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table."""
    heads = ["median change, flipped", *(f"{c} ({len(results[methods[0], c].change)})" for c in conversions), "gap"]
    rows = []
    for name in methods:
        found = [results[name, conversion] for conversion in conversions]
        shown = [f"{np.median(one.change):7.1f} {one.flipped:.3f} {one.verdict}".rstrip() for one in found]
        gap = max(one.gap for one in found)
        rows.append([METHODS[name].title, *shown, "-" if np.isnan(gap) else f"{gap:.0e}"])
    return heads, rows


def summary(results: Any) -> str:
    verdicts = [found.verdict for found in results if found.verdict]
    if not verdicts:
        return "no published lists to compare with"
    return f"{verdicts.count('=')} of {len(verdicts)} published lists equal"


if __name__ == "__main__":
    sys.exit(main())
