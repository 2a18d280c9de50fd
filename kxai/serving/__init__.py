"""Explanations from a running server; neither Keras nor TensorFlow is imported for the client."""

from __future__ import annotations

from kxai.serving.client import Client
from kxai.serving.signature import Signature, Spec

__all__ = ["Client", "Signature", "Spec"]
