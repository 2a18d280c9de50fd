"""``kxai report``: methods side by side, as a page to look at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from kxai.cli import arguments as common
from kxai.cli import checks, images, names, table
from kxai.cli.quiet import library

NAME = "report"
SUMMARY = "Explain predictions with several methods, as one HTML file to look at."
EXAMPLES = f"""{common.PREPROCESS_HELP}

examples:
  kxai report model.keras cat.png dog.png --preprocess signed --labels names.json -o report.html
  kxai report model.keras cat.png --preprocess unit --methods lrp.epsilon_plus,grad_cam,deepshap \\
      --set deepshap:background=training.npy -o report.html
  kxai report model.keras cat.png --preprocess unit --methods fine=lrp.epsilon,coarse=lrp.epsilon \\
      --set coarse:epsilon=0.25 -o report.html
  kxai report model.keras rows.npy --features columns.txt -o report.html
  kxai report model.keras ids.npy --tokens sentences.txt --methods lrp.cp,gradient_x_input -o report.html

A method that refuses the model becomes a column that says why. The file needs no network.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments.

    Args:
        parser: the command's parser.
    """
    common.add_model(parser)
    common.add_inputs(parser)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="FILE", type=Path, help="the .html file")
    add(
        "--methods", metavar="A,B,...", type=_methods,
        help="names, see 'kxai methods', or SHOWN=NAME; default lrp.epsilon_plus,gradient_x_input,integrated_gradients",
    )  # fmt: skip
    add(
        "--set", metavar="METHOD:KEY=VALUE", type=_setting, action="append", default=[],
        help="a hyperparameter of a method; of FILE.npy or .npz its arrays",
    )  # fmt: skip
    common.add_target(parser)
    common.add_preprocess(parser)
    add("--features", metavar="FILE", help="names of a table's columns: JSON, or text with one per line")
    add("--tokens", metavar="FILE", help="tokens of the samples: JSON lists, or text with a line per sample")
    add("--title", metavar="TEXT", help="of the page; default the model's name")
    add(
        "--max-megabytes", metavar="N", type=common.number(above=0), default=64.0,
        help="size of the file, from which on numbers lose precision; default %(default)g",
    )  # fmt: skip
    common.add_work(parser)


def run(arguments: argparse.Namespace) -> None:
    """Explains the inputs and writes the page.

    Args:
        arguments: the parsed arguments.

    Raises:
        KxaiError: anything that a person can put right, said in words.
    """
    pictures = common.are_images(arguments)
    preprocess = common.preprocess(arguments, pictures, {})
    settings = _settings(arguments)
    if arguments.output.suffix.lower() not in (".html", ".htm") or arguments.output.is_dir():
        arguments.usage_error(f"--output: expected an .html file, received {arguments.output}")
    labels = None if arguments.labels is None else names.read_labels(arguments.labels)
    target = names.target(arguments.target, labels)
    options = {
        "feature_names": None if arguments.features is None else names.read_labels(arguments.features),
        "tokens": None if arguments.tokens is None else names.read_tokens(arguments.tokens),
        "fit": None if arguments.fit is None else images.read_arrays(arguments.fit),
    }
    checks.inputs(arguments)
    checks.methods((arguments.methods or {}).values())
    kxai = library()
    model = common.load_model(arguments)
    if preprocess is not None:
        pixels = common.read_pixels(arguments, model)
        inputs: Any = preprocess(pixels.astype(np.float64)).astype(np.float32)
        options |= {"images": pixels, "names": list(arguments.inputs)}
    else:
        inputs, options["names"] = _arrays(arguments.inputs)
    if arguments.methods is not None:
        options["methods"] = arguments.methods
    report = kxai.report(
        model, inputs, target=target, settings=settings, labels=labels, title=arguments.title,
        batch_size=arguments.batch_size, max_megabytes=arguments.max_megabytes,
        verbose=common.verbose(arguments), **options,
    )  # fmt: skip
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    report.save(arguments.output)
    for name, error in report.errors.items():
        print(f"refused: {name}: {error.splitlines()[0]}")
    size = f"{len(report.html.encode('utf-8')) / 1e6:.2f} MB"
    table.show(["file", "size", "precision"], [[str(arguments.output), size, report.precision]])


def _methods(text: str) -> dict[str, str]:
    """``a,b`` or ``shown=a,other=b`` -> methods by the name to be shown."""
    pairs = [part.rpartition("=") for part in text.split(",")]
    found = {(shown or name).strip(): name.strip() for shown, _, name in pairs}
    if len(found) < len(pairs) or not all(found) or not all(found.values()):
        raise argparse.ArgumentTypeError(
            f"expected names with commas between them, each once (the same method twice as A=NAME,B=NAME), got {text!r}"
        )
    return found


def _setting(text: str) -> tuple[str, str, Any]:
    method, colon, rest = text.partition(":")
    if not colon or not method or "=" in method:
        raise argparse.ArgumentTypeError(f"expected METHOD:KEY=VALUE, received {text!r}")
    return method, *common.setting(rest)


def _settings(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for method, key, value in arguments.set:
        if arguments.methods is not None and method not in arguments.methods:
            arguments.usage_error(f"--set {method}:{key}: {method} is not among --methods")
        if key in found.setdefault(method, {}):
            arguments.usage_error(f"--set: {method}:{key} is given twice")
        found[method][key] = common.value_of(value)
    return found


def _arrays(paths: list[str]) -> tuple[Any, list[str]]:
    """The batches of all files as one, and the samples' names."""
    from kxai import nest

    batches = [images.read_arrays(path) for path in paths]
    counts = [len(nest.leaves(batch)[0]) if np.ndim(nest.leaves(batch)[0]) else 0 for batch in batches]
    names = [f"{path}[{row}]" for path, count in zip(paths, counts, strict=True) for row in range(count)]
    return (batches[0] if len(batches) == 1 else nest.concatenate(batches)), names
