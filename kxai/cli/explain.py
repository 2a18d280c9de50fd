"""``kxai explain``: pictures and numbers for the predictions of a model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.cli import arguments as common
from kxai.cli import checks, images, names, table
from kxai.cli.quiet import library

if TYPE_CHECKING:
    import keras

    from kxai.explanation import Explanation

NAME = "explain"
SUMMARY = "Explain predictions: a heatmap, an overlay and the numbers for every image."
EXAMPLES = f"""{common.PREPROCESS_HELP}

examples:
  kxai explain model.keras cat.png dog.png --preprocess signed --labels names.json -o out
  kxai explain model.keras cat.png --preprocess 127,128 --target tabby --labels names.json -o out
  kxai explain model.keras rows.npy --method lrp.epsilon --set epsilon=0.01 -o out
  kxai explain model.keras rows.npy --method deepshap --set background=training.npy -o out
  kxai explain model.keras rows.npy --method pattern_attribution --fit training.npy -o out

files per image: NAME-heatmap.png, NAME-overlay.png (of the model's input size; up to 128 pixels they are enlarged),
  NAME.npz (kxai.Explanation.load reads it)
files per array file: NAME.png with its first samples, NAME.npz
residual: what relevance leaves of the score; "-" for methods that do not share it out, such as gradient
"""

# One sample in words: predicted, target, score, residual.
Facts = Callable[["Explanation"], list[str]]
_SHOWN = 6
_SEEN = 256  # dots
_ENDINGS = ("-heatmap.png", "-overlay.png", ".npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments.

    Args:
        parser: the command's parser.
    """
    common.add_model(parser)
    common.add_inputs(parser)
    common.add_method(parser)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="DIR", type=Path, help="folder for the results, made if needed")
    common.add_target(parser)
    common.add_preprocess(parser)
    common.add_settings(parser)
    common.add_work(parser)
    add("--reduce", choices=("sum", "abs_max", "l2"), default="sum", help="over channels; default %(default)s")
    percentile = common.number(above=0, most=100, unit="a percentile")
    add("--clip", metavar="P", type=percentile, help="percentile where colours saturate, not for tables; default 99.5")
    opacity = common.number(least=0, most=1)
    add("--overlay-opacity", metavar="A", type=opacity, help="0..1, for images; default 0.85")


def run(arguments: argparse.Namespace) -> None:
    """Explains the inputs and writes the files.

    Args:
        arguments: the parsed arguments.

    Raises:
        KxaiError: anything that a person can put right, said in words.
    """
    pictures = common.are_images(arguments)
    preprocess = common.preprocess(arguments, pictures, {"--overlay-opacity": arguments.overlay_opacity is not None})
    settings = common.settings(arguments)
    labels = None if arguments.labels is None else names.read_labels(arguments.labels)
    target = names.target(arguments.target, labels)
    bases = _bases(arguments, pictures)
    checks.inputs(arguments)
    batches = [] if pictures else [images.read_arrays(path) for path in arguments.inputs]
    fit = None if arguments.fit is None else images.read_arrays(arguments.fit)
    checks.methods([arguments.method])
    model = common.load_model(arguments)
    checks.labels(labels, model)
    [analyzer] = common.fitted(arguments, [library().create_analyzer(arguments.method, model, **settings)], fit)

    def explain(batch: Any) -> Explanation:
        return analyzer.explain(
            batch, target=target, batch_size=arguments.batch_size, verbose=common.verbose(arguments)
        )

    def facts(one: Explanation) -> list[str]:
        return [*_facts(one, labels), f"{one.residual[0]:.2g}" if analyzer.conserves else "-"]

    if pictures:
        rows = _images(arguments, bases, model, explain, preprocess, facts)
    else:
        rows = _arrays(arguments, bases, [explain(batch) for batch in batches], facts)
    table.show(["input", "predicted", "target", "score", "residual", "files"], rows)


def _bases(arguments: argparse.Namespace, pictures: bool) -> list[Path]:
    """Where the files of every input go, without their endings."""
    checks.folder(arguments)
    taken: set[str] = set()
    bases = [arguments.output / common.free_name(Path(path).stem, taken) for path in arguments.inputs]
    endings = _ENDINGS if pictures else (".npz", ".png")
    checks.spared(arguments, [Path(f"{base}{ending}") for base in bases for ending in endings])
    return bases


def _images(
    arguments: argparse.Namespace, bases: list[Path], model: keras.Model, explain: Any, preprocess: Any, facts: Facts
) -> list[list[str]]:
    from PIL import Image

    from kxai.plots import heatmap_rgb, overlay

    pixels = common.read_pixels(arguments, model)
    explanation = explain(preprocess(pixels.astype(np.float64)).astype(np.float32))
    heatmaps = explanation.heatmap(reduce=arguments.reduce)
    clip = 99.5 if arguments.clip is None else arguments.clip
    opacity = 0.85 if arguments.overlay_opacity is None else arguments.overlay_opacity
    parts = list(explanation)
    said = [facts(one) for one in parts]
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (path, base, one) in enumerate(zip(arguments.inputs, bases, parts, strict=True)):
        files = [Path(f"{base}{ending}") for ending in _ENDINGS]
        Image.fromarray(_enlarged(heatmap_rgb(heatmaps[index], clip))).save(files[0])
        Image.fromarray(_enlarged(overlay(pixels[index], heatmaps[index], opacity, clip))).save(files[1])
        one.save(files[2])
        rows.append([path, *said[index], " ".join(map(str, files))])
    return rows


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """A square of dots per pixel: at their own size, small images cannot be seen."""
    factor = max(1, _SEEN // max(pixels.shape[:2]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _arrays(
    arguments: argparse.Namespace, bases: list[Path], explained: list[Explanation], facts: Facts
) -> list[list[str]]:
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for path, base, explanation in zip(arguments.inputs, bases, explained, strict=True):
        said = [facts(explanation[row]) for row in range(len(explanation))]
        files = [Path(f"{base}.npz")]
        explanation.save(files[0])
        files += _draw(explanation, base, arguments)
        named = " ".join(map(str, files))
        rows += [[f"{path}[{i}]", *texts, named if i == 0 else ""] for i, texts in enumerate(said)]
    return rows


def _draw(explanation: Explanation, base: Path, arguments: argparse.Namespace) -> list[Path]:
    """Writes one figure of the first samples per input that has a picture (steps, features or an image)."""
    relevance = explanation.relevance
    keys = list(relevance) if isinstance(relevance, dict) else [None]
    written = []
    for key in keys:
        values = relevance if key is None else relevance[key]
        if not isinstance(values, np.ndarray) or values.ndim not in (2, 3, 4):
            continue
        options = {} if arguments.clip is None else {"clip": arguments.clip}
        drawn = explanation[:_SHOWN].plot(input=key, reduce=arguments.reduce, **options)
        written.append(Path(f"{base}.png" if key is None else f"{base}-{str(key).replace('/', '_')}.png"))
        drawn.savefig(written[-1])
    return written


def _facts(one: Explanation, labels: list[str] | None) -> list[str]:
    """Returns predicted class, target and score of one sample as text."""
    target = one.target
    if not isinstance(target, str):
        target = names.label(int(target[0]), labels) if target.ndim == 1 else "weights"
    return [_predicted(one, labels), target, f"{one.score[0]:.6g}"]


def _predicted(one: Explanation, labels: list[str] | None) -> str:
    outputs = one.outputs
    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2:
        return "-"
    if outputs.shape[1] == 1:
        return f"{outputs[0, 0]:.4g}"
    best = int(outputs[0].argmax())
    return f"{names.label(best, labels)} ({outputs[0, best]:.4g})"
