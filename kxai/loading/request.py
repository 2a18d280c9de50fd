"""What the caller of ``load`` allows and adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

HARD_SIGMOID = "kxai>hard_sigmoid_of_keras2"


def hard_sigmoid(x: Any) -> Any:
    """What Keras 2 calls hard_sigmoid, ``clip(0.2 x + 0.5, 0, 1)``; that of Keras 3 is ``clip(x / 6 + 0.5, 0, 1)``.

    Args:
        x: a tensor.

    Example:
        >>> float(hard_sigmoid(keras.ops.convert_to_tensor(1.5)))
        0.800000011920929
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Request:
    """What a caller asks of a load.

    Args:
        path: the file or folder.
        safe_mode: whether nothing of it is trusted.
        custom_objects: the caller's layers and functions by their saved names; default none.
    """

    path: Path
    safe_mode: bool = True
    custom_objects: Mapping[str, Any] = field(default_factory=dict)

    @property
    def objects(self) -> dict[str, Any]:
        """The caller's objects, those of a ``custom_object_scope``, and what Keras 2 had and Keras 3 has not."""
        with keras.saving.custom_object_scope({}) as inner:
            return {HARD_SIGMOID: hard_sigmoid, **(inner.backup or {}), **self.custom_objects}

    def knows(self, name: str) -> bool:
        """Whether the caller gave or registered something under this name.

        Args:
            name: as it stands in the file.
        """
        if keras.saving.get_registered_object(name, custom_objects=self.objects) is not None:
            return True
        # Files of Keras 3.6 and before name a function without its package.
        return ">" not in name and any(known.endswith(f">{name}") for known in self.custom_objects)

    def build(self, config: dict[str, Any]) -> Any:
        """Builds what a configuration describes, with fresh weights.

        Args:
            config: the JSON data; Keras may change it.

        Returns:
            The model, or whatever else it is.
        """
        return keras.saving.deserialize_keras_object(config, custom_objects=self.objects, safe_mode=self.safe_mode)
