"""All that a page knows: facts in JSON's types, and the arrays that they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import tree

from kxai.explanation import Explanation
from kxai.plots.color import diverging
from kxai.reports.columns import Column
from kxai.reports.pack import Blobs, Precision, maps
from kxai.reports.parts import Part
from kxai.reports.samples import agreement, predictions, target_names
from kxai.version import __version__

_STEPS = 513  # of kxai.plots' colour map


def facts_of(
    columns: Sequence[Column], parts: Sequence[Part], names: Sequence[str], labels: Sequence[str] | None
) -> dict[str, Any]:
    """Everything but the arrays.

    Args:
        columns: the methods; at least one with an explanation.
        parts: the model's inputs.
        names: of the samples.
        labels: names of the output units, or None.

    Returns:
        JSON-able facts.

    Raises:
        ArgumentError: the labels fit no output.
    """
    explained = [column.explanation for column in columns if column.explanation is not None]
    outputs = predictions(explained[0].outputs, labels)
    agreed = agreement(explained)
    samples = [
        {"name": name, "outputs": said, "agreement": agrees}
        for name, said, agrees in zip(names, outputs, agreed, strict=True)
    ]
    return {
        "samples": samples,
        "methods": [_method(column, labels) for column in columns],
        "parts": [_part(part) for part in parts],
        "colors": diverging(np.linspace(-1.0, 1.0, _STEPS)).ravel().tolist(),
        "versions": {"kxai": __version__, **explained[0].config.get("versions", {})},
    }


def _method(column: Column, labels: Sequence[str] | None) -> dict[str, Any]:
    config = {} if column.explanation is None else dict(column.explanation.config)
    return {
        "name": column.name,
        "method": column.method,
        "about": column.about,
        "error": column.error,
        "notes": [*column.warnings, *config.pop("notes", [])],
        "plan": column.plan,
        "withoutPlan": column.without_plan,
        "config": config,
        "samples": [] if column.explanation is None else _numbers(column.explanation, labels),
    }


def _numbers(explanation: Explanation, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    rows = zip(
        explanation.score.tolist(),
        explanation.base.tolist(),
        explanation.residual.tolist(),
        target_names(explanation, labels),
        strict=True,
    )
    return [{"score": score, "base": base, "residual": rest, "target": target} for score, base, rest, target in rows]


def _part(part: Part) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": part.name, "kind": part.kind, "features": list(part.features)}
    # Slices of a volume stand below each other; a reader is told which one it is.
    slices = list(part.values.shape[1:-3]) if part.kind == "image" else []
    return {**facts, "words": [list(one) for one in part.words], "slices": slices, "pictured": part.pictured}


def store(columns: Sequence[Column], parts: Sequence[Part], precision: Precision, blobs: Blobs) -> dict[str, Any]:
    """Stores the arrays, of every sample by itself so that a page decodes what it shows.

    Args:
        columns: the methods.
        parts: the model's inputs.
        precision: of the numbers.
        blobs: receives the arrays.

    Returns:
        What finds them: ``relevance`` per method and sample, ``values`` and ``pictures`` per sample, all by input.
    """
    count = range(len(parts[0].values))
    # Whole numbers, such as those of tokens, are kept as they are.
    sizes = [4 if part.values.dtype.kind in "iub" else precision.size for part in parts]
    values = [
        [blobs.numbers(grid(part.values[row]), size) for part, size in zip(parts, sizes, strict=True)] for row in count
    ]
    pictures = [[_picture(part, row, blobs) for part in parts] for row in count]
    relevance = [
        [] if column.explanation is None else [_relevance(column.explanation, row, precision, blobs) for row in count]
        for column in columns
    ]
    about = {"name": precision.name, "stated": precision.stated}
    return {"relevance": relevance, "values": values, "pictures": pictures, "precision": about}


def _picture(part: Part, row: int, blobs: Blobs) -> dict[str, Any] | None:
    if part.pictures is None:
        return None
    picture = part.pictures[row]
    gray = bool((picture[..., :1] == picture).all())
    flat = picture.reshape(-1, *picture.shape[-2:])
    return blobs.bytes(flat[..., :1] if gray else flat)


def _relevance(explanation: Explanation, row: int, precision: Precision, blobs: Blobs) -> list[dict[str, Any]]:
    arrays = [grid(array[row]) for array in tree.flatten(explanation.relevance)]
    return [
        {**blobs.numbers(maps(array) if mapped else array, precision.size), "maps": mapped}
        for array in arrays
        for mapped in [not precision.channels and array.shape[-1] > 2]
    ]


def grid(sample: np.ndarray) -> np.ndarray:
    """Any sample as ``(rows, columns, channels)``: a table or a text is one row, slices stand below each other.

    Args:
        sample: without the batch axis.

    Returns:
        The same numbers.

    Example:
        >>> [grid(np.zeros(shape)).shape for shape in [(), (5,), (9, 4), (8, 8, 3), (2, 8, 8, 1)]]
        [(1, 1, 1), (1, 5, 1), (1, 9, 4), (8, 8, 3), (16, 8, 1)]
    """
    return sample.reshape(1, -1, 1) if sample.ndim < 2 else sample.reshape(-1, *sample.shape[-2:])


def stored_bytes(columns: Sequence[Column], parts: Sequence[Part], precision: Precision) -> int:
    """Bytes of the arrays in a page: the relevance, which is nearly all of it, and the inputs.

    Args:
        columns: the methods.
        parts: the model's inputs.
        precision: of the numbers.

    Returns:
        The number of bytes, up to a few per array.
    """
    numbers = sum(part.values.size for part in parts)
    pictures = sum(0 if part.pictures is None else part.pictures.size // 3 for part in parts)  # at least
    for column in columns:
        for array in [] if column.explanation is None else tree.flatten(column.explanation.relevance):
            channels = array.shape[-1] if array.ndim > 2 else 1
            kept = channels if precision.channels else min(channels, 2)
            numbers += array.size // channels * kept
    return (numbers * precision.size + pictures) * 4 // 3
