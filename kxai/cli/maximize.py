"""``kxai maximize``: pictures of what excites a class, or a channel of a layer, the most."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.cli import arguments as common
from kxai.cli import checks, images, names, table
from kxai.cli.quiet import library

if TYPE_CHECKING:
    from kxai.maximization import Maximization

NAME = "maximize"
SUMMARY = "Draw images that excite a class, or a channel of a layer, the most."
EXAMPLES = """needs: pip install "kxai[actmax]"

range, what the model takes for black and white:
  --range LOW HIGH, or as in the training: --preprocess raw, unit, signed, caffe, torch or MEAN,STD

examples:
  kxai maximize model.keras --target 3 --range 0 1 -o out.png
  kxai maximize model.keras --target cat dog --labels names.json --preprocess signed -o out.png \\
      --set jitter=16 --set total_variation=100
  kxai maximize model.keras --layer block1_conv1 --target 0 1 2 --preprocess caffe -o out.npy

files: a .png with all images, or a .npy with their numbers as the model takes them
"""

_SETTINGS = ("num_steps", "learning_rate", "total_variation", "l2_norm", "jitter", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments.

    Args:
        parser: the command's parser.
    """
    common.add_model(parser)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="FILE", type=Path, help="a .png or a .npy file")
    add("--target", required=True, nargs="+", metavar="N|NAME", help="classes by index or label, or channels by index")
    common.add_labels(parser)
    add("--layer", metavar="NAME", help="a layer whose channels are meant; default the model's output")
    ranges = parser.add_mutually_exclusive_group(required=True)
    ranges.add_argument("--range", nargs=2, metavar=("LOW", "HIGH"), type=float, help="bounds of the input")
    ranges.add_argument("--preprocess", metavar="NAME", type=_preprocessed, help="what makes the input of 0..255")
    common.add_settings(parser, ", ".join(_SETTINGS))
    common.add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    """Climbs and writes the file.

    Args:
        arguments: the parsed arguments.

    Raises:
        KxaiError: anything that a person can put right, said in words.
    """
    settings = _checked(arguments)
    labels = None if arguments.labels is None else names.read_labels(arguments.labels)
    targets = [names.target(text, labels) for text in arguments.target]
    titles = [names.label(index, labels) for index in targets if index is not None]
    model = common.load_model(arguments)
    checks.labels(labels, model)
    reverse, bounds = (False, tuple(arguments.range)) if arguments.range is not None else arguments.preprocess
    maximizer = library().ActivationMaximization(model, layer=arguments.layer, input_range=bounds, **settings)
    found = maximizer.maximize(targets, verbose=common.verbose(arguments))
    lines = [f"{title}  {score:.4g}" for title, score in zip(titles, found.score, strict=True)]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if arguments.output.suffix.lower() == ".png":
        (_reversed(found) if reverse else found).plot(titles=lines).savefig(arguments.output)
    else:
        np.save(arguments.output, found.images)
    rows = [[title, f"{before:.6g}", f"{score:.6g}"]
            for title, before, score in zip(titles, found.history[0], found.score, strict=True)]  # fmt: skip
    table.show(["target", "score at first", "score"], rows)
    print(arguments.output)


def _checked(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.output.suffix.lower() not in (".png", ".npy"):
        arguments.usage_error(f"--output: expected a .png or a .npy file, received {arguments.output}")
    if arguments.labels is not None and arguments.layer is not None:
        arguments.usage_error("--labels: channels of a layer have no labels")
    if arguments.range is not None and not -np.inf < arguments.range[0] < arguments.range[1] < np.inf:
        arguments.usage_error("--range: expected two finite numbers, LOW < HIGH")
    settings = common.settings(arguments)
    unknown = ", ".join(key for key in settings if key not in _SETTINGS)
    if unknown:
        arguments.usage_error(f"--set: expected {', '.join(_SETTINGS)}, received {unknown}")
    return settings


def _reversed(found: Maximization) -> Maximization:
    """With red and blue in the order of pictures."""
    low, high = (np.broadcast_to(bound, found.images.shape[-1:])[::-1] for bound in (found.low, found.high))
    return replace(found, images=found.images[..., ::-1], low=low, high=high)


def _preprocessed(text: str) -> tuple[bool, tuple[Any, Any]]:
    """Whether red and blue change places, and what black and white become: a number, or one per channel."""
    try:
        function = images.preprocessing(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    per_channel = text in ("caffe", "torch")
    black, white = (function(np.full(3, value)) for value in (0.0, 255.0))
    bounds = (np.minimum(black, white), np.maximum(black, white))
    return text == "caffe", bounds if per_channel else (float(bounds[0][0]), float(bounds[1][0]))
