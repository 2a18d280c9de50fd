"""Explain what a trained network sees in photographs with six methods, and write the heatmaps as PNG files.

Run it with ``scripts/demo [photograph ...]``; without arguments it explains scikit-image's cup of coffee.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kxai.cli.quiet import library  # noqa: E402

kxai = library()
from model_zoo import efficientnet_lite0  # noqa: E402
from model_zoo.efficientnet_lite0 import HIGH, LOW  # noqa: E402

# Methods that compare two inputs are told what to take away: the detail.
BLURRED = kxai.references.Blur(sigma=12.0)
METHODS: dict[str, Callable[[Any], Any]] = {
    "LRP": lambda model: kxai.LRP(model, composite="epsilon_gamma_box", low=LOW, high=HIGH),
    "Deep Taylor": lambda model: kxai.DeepTaylor(model, low=LOW, high=HIGH),
    "DeepLIFT": lambda model: kxai.DeepLIFT(model, reference=BLURRED),
    "Integrated Gradients": lambda model: kxai.IntegratedGradients(model, baseline=BLURRED, num_steps=50),
    "Gradient x Input": lambda model: kxai.GradientTimesInput(model),
    "Grad-CAM": lambda model: kxai.GradCAM(model),
}
# They can say at which node relevance is lost.
AUDITED = ("LRP", "Deep Taylor")
# What adds up to nothing has no residual.
MAPS = ("Grad-CAM",)


def main() -> None:
    """Load, predict, explain, draw; every number goes to the terminal, every picture to the output folder."""
    arguments = parse()
    console = Console(highlight=False)
    names, photographs = read(arguments.photographs)
    images = np.stack([efficientnet_lite0.preprocess(photograph) for photograph in photographs])

    with console.status("loading EfficientNet-Lite0 (built on the first run)"):
        model = efficientnet_lite0.load()
    console.print(predictions(names, model(images).numpy()))

    explanations, seconds = {}, {}
    for method, analyzer_of in METHODS.items():
        with console.status(f"explaining with {method}"):
            start = time.perf_counter()
            explanations[method] = analyzer_of(model).explain(images, audit=method in AUDITED, verbose=False)
            seconds[method] = time.perf_counter() - start
    for row, name in enumerate(names):
        console.print(conservation(row, name, explanations, seconds))

    arguments.output.mkdir(parents=True, exist_ok=True)
    for path in draw(names, images, explanations, arguments.output):
        console.print(f"-- {path}", soft_wrap=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", nargs="*", type=Path, help="picture files (default: a cup of coffee)")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_output", help="folder for the heatmaps")
    arguments = parser.parse_args()
    for path in arguments.photographs:
        if not path.is_file():
            parser.error(f"there is no file {path}")
    return arguments


def read(paths: list[Path]) -> tuple[list[str], list[np.ndarray]]:
    """Read the photographs: a name and uint8 RGB pixels each."""
    if paths:
        return [path.stem for path in paths], [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    from skimage import data

    return ["coffee"], [data.coffee()]


def predictions(names: list[str], probabilities: np.ndarray) -> Table:
    table = Table("photograph", "class", "probability", title="What EfficientNet-Lite0 sees")
    for name, row in zip(names, probabilities, strict=True):
        for rank, index in enumerate(np.argsort(-row)[:3]):
            table.add_row("" if rank else name, efficientnet_lite0.class_names()[index], f"{row[index]:.3f}")
    return table


def conservation(row: int, name: str, explanations: dict[str, Any], seconds: dict[str, float]) -> Table:
    """Say how much of a photograph's score its pixels do not account for, and which layer absorbed most of that."""
    columns = ("method", "score", "compared with", "residual", "most lost at", "seconds")
    table = Table(*columns, title=f"{name}: relevance that arrives")
    for method, explanation in explanations.items():
        score, base, residual = (float(a[row]) for a in (explanation.score, explanation.base, explanation.residual))
        absorbed = {path: abs(lost[row]) for path, lost in explanation.absorbed.items()}
        where = max(absorbed, key=absorbed.__getitem__, default="").split(" + ")[0]
        share = "-" if method in MAPS else f"{residual:+.3g} ({residual / (score - base):.0%})"
        table.add_row(method, f"{score:.4g}", f"{base:.4g}" if base else "", share, where, f"{seconds[method]:.1f}")
    table.caption = (
        "compared with: the score of the blurred photograph\n"
        "residual: what biases (of merged batch normalisation, above all) and dead ends absorb, or a sum leaves out\n"
        "seconds: all photographs, with compilation, which happens once"
    )
    return table


def draw(names: list[str], images: np.ndarray, explanations: dict[str, Any], folder: Path) -> list[Path]:
    """Draw all methods side by side, then each by itself; return the files."""
    pixels = np.rint(images * 128 + 127).astype(np.uint8)
    heatmaps = {method: explanation.heatmap() for method, explanation in explanations.items()}
    sheets = {"all methods": heatmaps} | {method: {method: heatmap} for method, heatmap in heatmaps.items()}
    paths = []
    for name, sheet in sheets.items():
        path = folder / f"{name.lower().replace(' ', '_')}.png"
        kxai.plots.figure(sheet, images=pixels, titles=names, size=3.0).savefig(path, dpi=150)
        paths.append(path)
    return paths


if __name__ == "__main__":
    main()
