"""How many steps do integrated gradients need? The gap in their sum, by grid and number of points on the path.

A cell is |score - base - sum of the relevance| / |score - base|, the median over the samples, for a path from zeros.
Networks of keras.applications carry random weights and calibrated normalisation, and get random inputs.

examples:
  scripts/completeness
  scripts/completeness MobileNetV2 my_model.keras --png gaps.png
  scripts/completeness --steps 10 100 --grids midpoint gauss_legendre
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kxai.cli.quiet import library  # noqa: E402

kxai = library()
import numpy as np  # noqa: E402

from kxai.cli import table  # noqa: E402
from kxai.progress import track  # noqa: E402
from scripts import architectures  # noqa: E402

GRIDS = ("midpoint", "gauss_legendre", "trapezoid", "right", "left")
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Curve:
    """The gaps of one grid on one network, by number of steps; nan where the grid takes no such number."""

    network: str
    grid: str
    gaps: tuple[float, ...]


def main() -> None:
    """Print a row per network and grid."""
    began = time.perf_counter()
    arguments = parse()
    curves = []
    for network, model in zip(arguments.networks, map(built, arguments.networks), strict=True):
        x = architectures.sample(model, arguments.samples, seed=1)
        jobs = [(grid, steps) for grid in arguments.grids for steps in arguments.steps]
        found = {job: gap(model, x, *job) for job in track(jobs, description=f"explaining {Path(network).name}")}
        for grid in arguments.grids:
            curves.append(Curve(Path(network).name, grid, tuple(found[grid, steps] for steps in arguments.steps)))
    rows = [[c.network, c.grid, *("-" if np.isnan(g) else f"{g:.1e}" for g in c.gaps)] for c in curves]
    table.show(["network", "grid", *map(str, arguments.steps)], rows)
    if arguments.png:
        draw(curves, arguments.steps, arguments.png)
        print(f"-- {arguments.png}")
    print(f"{arguments.samples} samples; {time.perf_counter() - began:.0f} s")


def parse() -> argparse.Namespace:
    head, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/completeness", description=head, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", default=[str(ROOT / "model_zoo" / "digits_cnn.keras")],
        help="of keras.applications, or .keras or .h5 files; default model_zoo/digits_cnn.keras",
    )  # fmt: skip
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS), metavar="N", help=f"default {STEPS}")
    parser.add_argument(
        "--grids", nargs="+", choices=GRIDS, default=list(GRIDS), metavar="GRID",
        help="some of " + ", ".join(GRIDS) + "; default all",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=4, help="how many inputs; default %(default)s")
    parser.add_argument("--png", type=Path, help="draw the curves into this file")
    parser.add_argument("--here", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.steps) < 1 or arguments.samples < 1:
        parser.error("--steps and --samples: expected at least 1")
    arguments.networks = [
        name if name in architectures.names() else str(arguments.here / name) for name in arguments.networks
    ]
    for name in arguments.networks:
        if name not in architectures.names() and not Path(name).is_file():
            offered = ", ".join(architectures.names())
            parser.error(f"{name} is neither a file nor a network of keras.applications; there are {offered}")
    if arguments.png:
        arguments.png = arguments.here / arguments.png
    return arguments


def built(network: str) -> Any:
    """An architecture by name, or the model of a file."""
    return architectures.build(network) if network in architectures.names() else kxai.load(network)


def gap(model: Any, x: Any, grid: str, steps: int) -> float:
    """How much of the difference is missing, or too much, relative to it; the median over the samples."""
    if grid == "trapezoid" and steps == 1:
        return float("nan")  # it has two ends
    found = kxai.IntegratedGradients(model, num_steps=steps, grid=grid).explain(x, verbose=False)
    return float(np.median(np.abs(found.residual / (found.score - found.base))))


def draw(curves: list[Curve], steps: list[int], path: Path) -> None:
    """One panel per network, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(curve.network for curve in curves))
    figure = Figure(figsize=(4.6 * len(networks) + 1.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        for number, curve in enumerate(curve for curve in curves if curve.network == network):
            axes.plot(steps, curve.gaps, color=f"C{number}", marker="o", markersize=3, label=curve.grid)
        axes.set(xscale="log", yscale="log", xlabel="points on the path", title=network)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("gap in the sum, relative")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
