"""Callbacks for ``model.fit``: explanations of the model as it learns."""

from kxai.callbacks.explanation import ExplanationCallback

__all__ = ["ExplanationCallback"]
