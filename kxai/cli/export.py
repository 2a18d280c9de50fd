"""``kxai export``: a model with its explanations as a SavedModel."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kxai.cli import arguments as common
from kxai.cli import checks, images, names, table
from kxai.cli.quiet import library

if TYPE_CHECKING:
    from kxai.exporting import Exported, Image

NAME = "export"
SUMMARY = "Write a model with its explanations as a SavedModel, as TensorFlow Serving loads it."
EXAMPLES = """signatures:
  serving_default  the model
  explain          the first method
  explain_NAME     each of several methods, with "_" for "." in its name
  explain_image    with --image, from the bytes of JPEG and PNG files

examples:
  kxai export model.keras --method lrp.epsilon_plus -o served/digits
  kxai export model.keras --method lrp.epsilon --set epsilon=0.01 --method grad_cam -o served/digits --version 2
  kxai export model.keras --method pattern_attribution --fit training.npy -o served/digits
  kxai export photos.keras --image signed --warmup some.npy -o served/photos
"""

METHOD, SET = "method", "set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments.

    Args:
        parser: the command's parser.
    """
    common.add_model(parser)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="DIR", help="folder of all versions of the model, made if needed")
    add("--version", metavar="N", type=common.integer(least=0), default=1, help="of the model; default %(default)s")
    add("--overwrite", action="store_true", help="replace the version if it is there")
    # One list, because a hyperparameter belongs to the method before it.
    chosen = f"a method, once or more, see 'kxai methods'; default {common.DEFAULT_METHOD}"
    add("--method", dest="chosen", metavar="NAME", type=_method, action="append", default=[], help=chosen)
    given = "a hyperparameter of the method before it; of FILE.npy or .npz its arrays"
    add("--set", dest="chosen", metavar="KEY=VALUE", type=_setting, action="append", help=given)
    common.add_target(parser, "the only class to explain; default: the class is an input")
    add("--output-name", metavar="NAME", help="which output is explained, for models of several")
    add("--example", metavar="FILE", help="a .npy or .npz batch of the size to serve, where the model leaves it open")
    add(
        "--image",
        metavar="NAME",
        help="explain JPEG and PNG files, preprocessed: raw, unit, signed, caffe, torch or MEAN,STD",
    )
    add("--size", metavar="HEIGHTxWIDTH", type=_size, help="of the images, where the model leaves it open")
    add("--warmup", metavar="FILE", help="a .npy or .npz batch that a server explains at its start; default zeros")
    add("--no-warmup", action="store_true", help="write no requests that warm a server up")
    common.add_work(parser, default=None)


def run(arguments: argparse.Namespace) -> None:
    """Writes the export and says what is in it.

    Args:
        arguments: the parsed arguments.

    Raises:
        KxaiError: anything that a person can put right, said in words.
    """
    _check(arguments)
    methods = [(name, common.read_settings(pairs, arguments)) for name, pairs in _methods(arguments)]
    labels = None if arguments.labels is None else names.read_labels(arguments.labels)
    target = names.target(arguments.target, labels)
    files = {key: images.read_arrays(path) for key in ("fit", "example", "warmup") if (path := getattr(arguments, key))}
    checks.methods(name for name, _ in methods)
    kxai = library()
    model = common.load_model(arguments)
    checks.labels(labels, model)
    analyzers = [kxai.create_analyzer(name, model, **settings) for name, settings in methods]
    analyzers = common.fitted(arguments, analyzers, files.get("fit"))
    done = kxai.export(
        analyzers[0] if len(analyzers) == 1 else analyzers,
        arguments.output,
        arguments.version,
        target=target,
        output=arguments.output_name,
        example=files.get("example"),
        image=_image(arguments),
        warmup=False if arguments.no_warmup else files.get("warmup"),
        overwrite=arguments.overwrite,
    )
    _show(done)


def _check(arguments: argparse.Namespace) -> None:
    checks.folder(arguments)
    if arguments.size is not None and arguments.image is None:
        arguments.usage_error("--size: only together with --image; other inputs take their size from --example")
    if arguments.no_warmup and arguments.warmup is not None:
        arguments.usage_error("--no-warmup: contradicts --warmup")
    if arguments.batch_size is not None and arguments.fit is None:
        arguments.usage_error("--batch-size: only together with --fit; a server takes batches of any size")
    if arguments.labels is not None and arguments.target is None:
        arguments.usage_error("--labels: only together with --target")


def _methods(arguments: argparse.Namespace) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Methods, each with the hyperparameters that stand behind it."""
    found: list[tuple[str, list[tuple[str, Any]]]] = []
    if not any(kind == METHOD for kind, _ in arguments.chosen):
        found.append((common.DEFAULT_METHOD, []))
    for kind, value in arguments.chosen:
        if kind == METHOD:
            found.append((value, []))
        elif not found:
            arguments.usage_error(f"--set {value[0]}: stands before the --method that it belongs to")
        else:
            found[-1][1].append(value)
    return found


def _image(arguments: argparse.Namespace) -> Image | None:
    from kxai.exporting import Image

    if arguments.image is None:
        return None
    try:
        images.preprocessing(arguments.image)
    except ValueError as error:
        arguments.usage_error(f"--image: {error}")
    return Image(arguments.image, size=arguments.size)


def _show(done: Exported) -> None:
    rows = [[name, _tensors(one.inputs), _tensors(one.outputs)] for name, one in done.signatures.items()]
    table.show(["signature", "takes", "returns"], rows)
    print(f"{done.path}: {done.size} bytes")


def _tensors(tensors: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {facts.dtype}[{','.join('batch' if size is None else str(size) for size in facts.shape)}]"
        for name, facts in sorted(tensors.items())
    )


def _method(text: str) -> tuple[str, Any]:
    return METHOD, text


def _setting(text: str) -> tuple[str, Any]:
    return SET, common.setting(text)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    with contextlib.suppress(ValueError):
        if int(height) > 0 and int(width) > 0:
            return int(height), int(width)
    raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 224x224, received {text!r}")
