"""Everything of a model that an explanation must leave as it was."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
from keras import layers

from kxai import nest
from kxai.graph.trace import call_counts
from kxai.testing.compare import require, require_close
from kxai.testing.models import Case


@final
@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a case's model is now; :meth:`check` compares it with what it is later.

    Example:
        >>> from kxai.testing import models
        >>> case = models.mlp()
        >>> Snapshot.of(case).check(case)
    """

    weights: list[np.ndarray]
    predictions: Any
    facts: dict[str, Any]

    @classmethod
    def of(cls, case: Case) -> Snapshot:
        """The model as it is now.

        Args:
            case: the model and its inputs.
        """
        model = case.model
        facts = {
            "variables (as objects)": [id(variable) for variable in model.variables],
            "configuration": json.dumps(model.get_config(), default=str, sort_keys=True),
            "names of layers": [layer.name for layer in model.layers],
            "calls that Keras has recorded": call_counts(model),
            "trainable": [layer.trainable for layer in model.layers],
            "compiled": (model.compiled, id(model.optimizer) if model.compiled else None, id(model.loss)),
        }
        predictions = model(case.inputs, training=False)
        return cls([w.copy() for w in model.get_weights()], nest.map_leaves(np.asarray, predictions), facts)

    def check(self, case: Case) -> None:
        """Raise AssertionError, naming what has changed.

        Args:
            case: the same case, later.
        """
        now = Snapshot.of(case)
        for what, before in self.facts.items():
            require(now.facts[what] == before, "the model is untouched", f"{case.name}, {what}",
                    expected=str(before)[:500], received=str(now.facts[what])[:500])  # fmt: skip
        same = len(now.weights) == len(self.weights) and all(map(np.array_equal, now.weights, self.weights))
        require(same, "the model is untouched", f"{case.name}, weights", expected="the same", received="others")
        require_close("the model is untouched", f"{case.name}, predictions", self.predictions, now.predictions, 1e-6)


def name_counters() -> dict[str, int]:
    """How far Keras has counted in names such as ``dense_7``; asking counts one further.

    Example:
        >>> before, after = name_counters(), name_counters()
        >>> after["dense"] - before["dense"]
        1
    """
    made = [layers.Dense(1), layers.ReLU(), layers.Add(), layers.InputLayer((1,)), keras.Sequential()]
    named = [re.fullmatch(r"(\w+?)(?:_(\d+))?", thing.name) for thing in (*made, keras.KerasTensor((1,)))]
    return {match[1]: int(match[2] or 0) for match in named if match}
