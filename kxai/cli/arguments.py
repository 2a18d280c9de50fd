"""Arguments that several commands share, and how they are read."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kxai.arguments import check_integer, check_number
from kxai.cli import images
from kxai.cli.quiet import notices_dropped
from kxai.errors import ArgumentError, LoadError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kxai.analyzers import Analyzer

DEFAULT_METHOD = "lrp.epsilon_plus"
BATCH_SIZE = 32
PREPROCESS_HELP = """preprocess, from RGB in 0..255 to what the model was trained on:
  raw as it is | unit 0..1 | signed -1..1 | caffe, torch as in keras.applications | MEAN,STD (x - MEAN) / STD"""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds MODEL, --weights, --endpoint and --unsafe.

    Args:
        parser: the command's parser.
    """
    parser.add_argument("model", metavar="MODEL", help="a .keras, .h5 or .json file, or a SavedModel folder")
    parser.add_argument("--weights", metavar="FILE", help="for a .json file; default that of the same name beside it")
    parser.add_argument("--endpoint", metavar="NAME", help="call this signature of a SavedModel, as a black box")
    parser.add_argument(
        "--unsafe",
        action="store_true",
        help="load Lambda layers, which runs code from the file: only for files whose origin you trust",
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """Adds --method.

    Args:
        parser: the command's parser.
    """
    parser.add_argument(
        "--method", default=DEFAULT_METHOD, metavar="NAME", help="see 'kxai methods'; default %(default)s"
    )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Adds INPUT, one or more.

    Args:
        parser: the command's parser.
    """
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="images, or .npy/.npz batches for other models")


def add_target(parser: argparse.ArgumentParser, which: str = "class to explain; default the predicted class") -> None:
    """Adds --target and --labels, which give one class.

    Args:
        parser: the command's parser.
        which: help of --target.
    """
    parser.add_argument("--target", metavar="N|NAME", help=which)
    add_labels(parser)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds --labels.

    Args:
        parser: the command's parser.
    """
    parser.add_argument("--labels", metavar="FILE", help="names of the classes: JSON, or text with one per line")


def add_work(parser: argparse.ArgumentParser, default: int | None = BATCH_SIZE) -> None:
    """Adds --fit, --batch-size and --quiet.

    Args:
        parser: the command's parser.
        default: of --batch-size; None where only --fit needs it, so that it can be told whether it was given.
    """
    add, when = parser.add_argument, " to fit" if default is None else ""
    add("--fit", metavar="FILE", help="a .npy or .npz file of data, as the model takes them, to fit methods to")
    add(
        "--batch-size",
        metavar="N",
        type=integer(),
        default=default,
        help=f"samples{when} at a time; default {BATCH_SIZE}",
    )
    add_quiet(parser)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds --quiet.

    Args:
        parser: the command's parser.
    """
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def verbose(arguments: argparse.Namespace) -> bool | None:
    """Whether progress bars are shown; None: on a terminal, if it takes long.

    Args:
        arguments: the parsed arguments.
    """
    return False if arguments.quiet else None


def load_model(arguments: argparse.Namespace) -> keras.Model:
    """Loads the model that the arguments name.

    Args:
        arguments: the parsed arguments.

    Returns:
        The model.

    Raises:
        LoadError: it cannot be loaded.
        ArgumentError: --weights or --endpoint has no effect on this kind of file.
    """
    with notices_dropped():
        from kxai.loading import load

    given = {"safe_mode": not arguments.unsafe, "weights": arguments.weights, "endpoint": arguments.endpoint}
    try:
        return load(arguments.model, **given)
    except LoadError as error:
        options = {"safe_mode=False": "--unsafe", "weights=": "--weights FILE", "endpoint=": "--endpoint NAME"}
        named = [option for setting, option in options.items() if setting in str(error)]
        if not named:
            raise
        raise LoadError(f"{error}\n  On the command line: {', '.join(named)}.") from error


def add_settings(parser: argparse.ArgumentParser, given: str = "") -> None:
    """Adds ``--set``, the hyperparameters of the method.

    Args:
        parser: the command's parser.
        given: help; default that of hyperparameters in general.
    """
    given = given or "a hyperparameter; of FILE.npy or .npz its arrays"
    parser.add_argument("--set", metavar="KEY=VALUE", type=setting, action="append", default=[], help=given)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The hyperparameters that were given; of files of arrays the arrays.

    Args:
        arguments: the parsed arguments.

    Raises:
        LoadError: a file is missing or damaged.
    """
    return read_settings(arguments.set, arguments)


def read_settings(pairs: Sequence[tuple[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """The same, of some of them.

    Args:
        pairs: keys and values.
        arguments: the parsed arguments.

    Raises:
        LoadError: a file is missing or damaged.
    """
    found = {key: value_of(value) for key, value in pairs}
    if len(found) < len(pairs):
        arguments.usage_error("--set: the same key is given twice")
    return found


def value_of(value: Any) -> Any:
    """The arrays of a file of arrays that a setting names; any other value is meant as it is.

    Args:
        value: what stands after ``=``.

    Returns:
        The arrays, or the value.

    Raises:
        LoadError: the file is missing or damaged.
    """
    named = isinstance(value, str) and Path(value).suffix.lower() in (".npy", ".npz")
    return images.read_arrays(value) if named else value


def setting(text: str) -> tuple[str, Any]:
    """Reads ``key=value``; the value is a Python literal (number, list, True, None) or else plain text.

    Args:
        text: what stands after ``--set``.

    Returns:
        The key and the value.

    Raises:
        argparse.ArgumentTypeError: there is no key or no ``=``.

    Example:
        >>> setting("epsilon=1e-3"), setting("mode=fast")
        (('epsilon', 0.001), ('mode', 'fast'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE with a Python name as key, received {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def add_preprocess(parser: argparse.ArgumentParser) -> None:
    """Adds --preprocess and --crop.

    Args:
        parser: the command's parser.
    """
    add = parser.add_argument
    add("--preprocess", metavar="NAME", help="for images, required: raw, unit, signed, caffe, torch or MEAN,STD")
    add("--crop", action="store_true", help="cut the centre to the model's aspect ratio instead of distorting")


def are_images(arguments: argparse.Namespace) -> bool:
    """Whether the inputs are images and not files of arrays; a mixture is a usage error.

    Args:
        arguments: the parsed arguments.
    """
    arrays = [Path(path).suffix.lower() in (".npy", ".npz") for path in arguments.inputs]
    if any(arrays) and not all(arrays):
        arguments.usage_error("INPUT: images and array files cannot be mixed in one run")
    return not any(arrays)


def preprocess(
    arguments: argparse.Namespace, pictures: bool, for_images: Mapping[str, bool]
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Reads ``--preprocess``; what is only for images is a usage error for arrays.

    Args:
        arguments: the parsed arguments.
        pictures: whether the inputs are images.
        for_images: other options that are only for images, and whether they were used.

    Returns:
        From images in [0, 255] to the model's input; None for arrays.
    """
    given = {"--preprocess": arguments.preprocess is not None, "--crop": arguments.crop, **for_images}
    for option, used in given.items():
        if used and not pictures:
            arguments.usage_error(f"{option}: only for images; arrays are explained as they are")
    if not pictures:
        return None
    if arguments.preprocess is None:
        arguments.usage_error(
            f"--preprocess is required for images: {', '.join(images.PREPROCESS)} or MEAN,STD, as in the training"
        )
    try:
        return images.preprocessing(arguments.preprocess)
    except ValueError as error:
        arguments.usage_error(f"--preprocess: {error}")
        return None


def read_pixels(arguments: argparse.Namespace, model: keras.Model) -> np.ndarray:
    """The images at the model's size, uint8 ``(batch, height, width, channels)``.

    Args:
        arguments: the parsed arguments.
        model: the model.

    Raises:
        InputError: the model takes no images, or they differ in size. LoadError: a file is no image.
    """
    size = images.input_size(model.input_shape)
    if arguments.preprocess in ("caffe", "torch") and size[2] != 3:
        arguments.usage_error(f"--preprocess {arguments.preprocess}: only for models with 3 channels")
    return images.read_images(arguments.inputs, size, arguments.crop)


def integer(**bounds: Any) -> Callable[[str], int]:
    """How an integer is read.

    Args:
        bounds: of :func:`kxai.arguments.check_integer`; default 1 or more.

    Example:
        >>> integer()("32")
        32
    """
    return lambda text: _number(text, int, check_integer, bounds)


def number(**bounds: Any) -> Callable[[str], float]:
    """How a number is read.

    Args:
        bounds: of :func:`kxai.arguments.check_number`.

    Example:
        >>> number(above=0, most=100)("99.5")
        99.5
    """
    return lambda text: _number(text, float, check_number, bounds)


def _number(text: str, kind: type, check: Callable[..., Any], bounds: Mapping[str, Any]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = text
    try:
        return check("the argument", value, **bounds)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(f"expected {error.expected}, received {text!r}") from None


def fitted(arguments: argparse.Namespace, analyzers: Sequence[Analyzer], data: Any) -> list[Analyzer]:
    """The analyzers, those that read patterns fitted to data; that none does is a usage error.

    Args:
        arguments: the parsed arguments.
        analyzers: of the methods that are asked for.
        data: of --fit, None if it was not given.
    """
    from kxai.analyzers.pattern.methods import PatternAnalyzer

    if data is None:
        return list(analyzers)
    if not any(isinstance(analyzer, PatternAnalyzer) for analyzer in analyzers):
        names = ", ".join(analyzer.name for analyzer in analyzers)
        arguments.usage_error(f"--fit: not fitted to data: {names}; pattern_net and its kin are")
    size, shown = arguments.batch_size or BATCH_SIZE, verbose(arguments)
    return [one.fit(data, size, shown) if isinstance(one, PatternAnalyzer) else one for one in analyzers]


def free_name(stem: str, taken: set[str]) -> str:
    """Chooses a name for one input's files, so that inputs of the same name do not overwrite each other.

    Args:
        stem: the input's name without its ending.
        taken: the names already given in this run; the new one is added.

    Returns:
        ``stem``, or ``stem-2`` and so on.

    Example:
        >>> taken = set()
        >>> [free_name("cat", taken) for _ in range(2)]
        ['cat', 'cat-2']
    """
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name
