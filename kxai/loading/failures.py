"""Whatever goes wrong, told in one way: what the file is and what can be done about it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from kxai.errors import LoadError
from kxai.loading.request import Request


@contextmanager
def of_archive(path: Path) -> Iterator[None]:
    """Explains what is wrong with an archive.

    Args:
        path: of the archive.

    Raises:
        LoadError: anything was.
    """
    try:
        yield
    except KeyError as error:
        raise LoadError(
            f"{path} is a zip archive without a Keras model in it.",
            expected="config.json and model.weights.h5 in the archive",
            received=_first_line(error),
            fix="save the model with model.save('name.keras').",
        ) from error
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


@contextmanager
def told(request: Request, kind: str, by: str = "") -> Iterator[None]:
    """Turns any error of Keras, which raises nearly every kind of exception, into one that says what can be done.

    Args:
        request: what is asked for.
        kind: of the file.
        by: the version of Keras that wrote the file, default "": not known.

    Raises:
        LoadError: anything went wrong.
    """
    try:
        yield
    except LoadError:
        raise
    except Exception as error:
        raise _explained(request, kind, by, error) from error


def weights_only(path: Path) -> LoadError:
    """The error of an HDF5 file without a model.

    Args:
        path: of the file.
    """
    return LoadError(
        f"{path} holds no model, at most weights.",
        expected="an .h5 file written by model.save",
        received="HDF5 without the attribute model_config",
        fix="give the configuration, too: kxai.load('model.json', weights='name.weights.h5'); or build the model in "
        "code and call model.load_weights(path), then give kxai the model.",
    )


def _explained(request: Request, kind: str, by: str, error: Exception) -> LoadError:
    path = request.path
    if isinstance(error, OSError) and kind == "hdf5":
        return _damaged(path, error)
    if missing := re.findall(r"(?:Could not locate (?:class|function)|Unknown layer:) '([^']+)'", str(error)):
        return LoadError(
            f"{path} uses objects that are not part of Keras: {', '.join(dict.fromkeys(missing))}.",
            expected="their classes or functions",
            received=f"custom_objects with {', '.join(sorted(request.custom_objects)) or 'nothing in it'}",
            fix=f"import them and pass custom_objects={{{missing[0]!r}: ...}}, "
            "or register them with keras.saving.register_keras_serializable before loading.",
        )
    return LoadError(
        f"Keras could not load {path}.",
        expected=f"a model that keras {keras.__version__} can rebuild",
        received=f"{type(error).__name__}: {_first_line(error)}",
        fix=_advice(by)
        + (" As a black box, without its layers: endpoint='serving_default'." if kind == "saved_model" else ""),
    )


def _advice(by: str) -> str:
    wrote, reads = _release(by), _release(keras.__version__)
    if wrote > reads:
        newer = ".".join(map(str, wrote))
        return (
            f"the file is of Keras {newer}, which may write what an older one does not know: install keras>={newer}; "
            "otherwise see the original error above this one."
        )
    return "see the original error above this one; a file of an older Keras is best saved again there as .h5."


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, whatever a file says of itself."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})\b", version, re.ASCII)
    return tuple(map(int, found.groups())) if found else ()


def _damaged(path: Path, error: Exception) -> LoadError:
    return LoadError(
        f"{path} is damaged.",
        expected=f"a complete {path.suffix} file",
        received=f"{path.stat().st_size} bytes; {_first_line(error)}",
        fix="copy or download the file again; it was probably cut off.",
    )


def _first_line(error: Exception) -> str:
    # Keras quotes the configuration, which may be long, and then the error that there was at first.
    line = str(error).rpartition("Exception encountered: ")[2].strip().split("\n")[0]
    return line if len(line) <= 300 else line[:300] + "..."
