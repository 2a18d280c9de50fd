"""What the caller of ``load`` allows and adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras


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

    def knows(self, name: str) -> bool:
        """Whether the caller gave or registered something under this name.

        Args:
            name: as it stands in the file.
        """
        if keras.saving.get_registered_object(name, custom_objects=dict(self.custom_objects)) is not None:
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
        return keras.saving.deserialize_keras_object(
            config, custom_objects=dict(self.custom_objects), safe_mode=self.safe_mode
        )
