"""Explanations as SavedModels: graphs that run in a server, without Keras and kxai."""

from __future__ import annotations

from kxai.exporting.image import Image
from kxai.exporting.write import Exported, Signature, export

__all__ = ["Exported", "Image", "Signature", "export"]
