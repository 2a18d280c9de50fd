"""The process of a peer: python -m scripts.peer_worker REQUEST, in the peer's environment; prints lines of JSON.

The request is a JSON object with peer, model, size, batch, rounds and methods (labels of bench_methods). Lines
{"status": text} say what is being done; the last one, {"answer": ...}, what was found: the framework, the network's
number of parameters and, per method, the seconds or the error; or one error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scripts.bench_methods import FORWARD, SCORE_CAM, TAPE
from scripts.rounds import Run, reason, timed

MODULES = {"captum": "peer_captum", "SHAP": "peer_shap", "tf-keras-vis": "peer_tf_keras_vis"}
GAP = 0.01  # of what is to be distributed; above it, sums are called wrong


@dataclass(frozen=True)
class Prepared:
    """A network and what to call with it.

    Attributes:
        framework: name and version.
        parameters: how many the network has.
        x: the inputs.
        makers: per method, what makes the function from one array to another; also of the units.
        evaluations: per method that evaluates the network several times, how many times.
        sums: per method, what the relevance of each sample must sum to.
    """

    framework: str
    parameters: int
    x: np.ndarray
    makers: dict[str, Callable[[], Run]]
    evaluations: dict[str, int]
    sums: dict[str, Callable[[], np.ndarray]] = field(default_factory=dict)


def answer(request: dict[str, Any], show: Callable[[str], None]) -> dict[str, Any]:
    """Measure, or say why not."""
    try:
        module = importlib.import_module(f"scripts.{MODULES[request['peer']]}")
        prepared: Prepared = module.prepare(request["model"], request["size"], request["batch"])
    except Exception as error:
        return {"error": reason(error)}
    units = [TAPE, FORWARD] if SCORE_CAM.label in request["methods"] else [TAPE]
    makers = {label: prepared.makers[label] for label in (*units, *request["methods"])}
    rows = timed(makers, prepared.x, request["rounds"], prepared.evaluations, show)
    broken = [rows[unit]["error"] for unit in units if "error" in rows[unit]]
    if broken:
        return {"error": broken[0]}
    for label, row in rows.items():
        row["evaluations"] = prepared.evaluations.get(label, 1)
        if label in prepared.sums and "seconds" in row:
            off = gap(makers[label]()(prepared.x), prepared.sums[label]())
            if off > GAP:
                row["note"] = f"its sums are off by {off:.0%}"
    return {"framework": prepared.framework, "parameters": prepared.parameters, "rows": rows}


def gap(relevance: np.ndarray, expected: np.ndarray) -> float:
    """By how much sums per sample miss what they should be, relative to the largest of these."""
    sums = np.asarray(relevance).reshape(len(expected), -1).sum(1)
    return float(np.abs(sums - expected).max() / np.abs(expected).max())


def main() -> None:
    # What libraries print must not come between: it goes to stderr, with all their progress bars.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    send({"answer": answer(json.loads(sys.argv[1]), lambda text: send({"status": text}))})


if __name__ == "__main__":
    main()
