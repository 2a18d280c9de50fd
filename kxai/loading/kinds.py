"""What kind of file or folder a path names."""

from __future__ import annotations

import os
from pathlib import Path

from kxai.errors import LoadError

_CONTENTS = {b"PK\x03\x04": "keras", b"\x89HDF\r\n\x1a\n": "hdf5"}
_ENDINGS = {".keras": "keras", ".h5": "hdf5", ".hdf5": "hdf5", ".json": "json"}
_NAMES = {"keras": "a zip archive", "hdf5": "HDF5", "json": "JSON"}


def kind(path: Path) -> str:
    """Tells what is at a path.

    Args:
        path: of something that exists.

    Returns:
        ``"keras"``, ``"hdf5"``, ``"json"`` or ``"saved_model"``.

    Raises:
        LoadError: it is none of these, or a file's ending and content differ.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
        raise _folder_error(path)
    with open(path, "rb") as stream:
        begin = stream.read(512)
    content = next((kind for magic, kind in _CONTENTS.items() if begin.startswith(magic)), None)
    if content is None and begin.lstrip().startswith(b"{"):
        content = "json"
    if content is not None and content == _ENDINGS.get(path.suffix.lower()):
        return content
    if content is not None:
        endings = " or ".join(ending for ending, of in _ENDINGS.items() if of == content)
        raise LoadError(
            f"{path} does not have the ending of its content.",
            expected=f"a name that ends in {endings}, because the content is {_NAMES[content]}",
            received=f"the ending {path.suffix!r}",
            fix="rename the file if it is a Keras model.",
        )
    raise LoadError(
        f"{path} is no Keras model.",
        expected="a .keras file (a zip archive), an .h5 file (HDF5), a .json file with weights beside it, or a "
        "SavedModel folder",
        received=f"{path.stat().st_size} bytes that are neither",
        fix="save the model with model.save('name.keras').",
    )


def check_folder(folder: Path) -> None:
    """Refuses a folder with links to other places, or with anything that is no file.

    Args:
        folder: of a SavedModel.

    Raises:
        LoadError: it has such entries.
    """
    root = _root(folder.resolve())
    for place, folders, names in os.walk(folder):
        for entry in (Path(place) / name for name in (*folders, *names)):
            if not entry.resolve().is_relative_to(root) or not (entry.is_file() or entry.is_dir()):
                raise LoadError(
                    f"{folder} reaches out of itself.",
                    expected="files and folders",
                    received=f"{entry.relative_to(folder)}, a link to elsewhere, a device, pipe or socket",
                    fix="do not use this folder, unless you trust its origin: then safe_mode=False loads it.",
                )


def _root(folder: Path) -> Path:
    # The cache of Hugging Face keeps the files of repository/snapshots/<revision> in repository/blobs, by links.
    return next((parent.parent for parent in folder.parents if parent.name == "snapshots"), folder)


def _folder_error(path: Path) -> LoadError:
    models = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in _ENDINGS)
    return LoadError(
        f"{path} is a folder, not a model.",
        expected="a .keras, .h5 or .json file, or a SavedModel folder",
        received="a folder without saved_model.pb",
        fix=f"take one of its models: {', '.join(models[:10])}." if models else "give the path of the file.",
    )
