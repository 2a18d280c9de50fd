"""What TensorFlow's servers read and write, without TensorFlow: messages, tensors, files of records."""

from __future__ import annotations

from kxai.wire.messages import addressed, message
from kxai.wire.records import framed, warmup_records
from kxai.wire.tensors import DTYPES, from_tensor, predict_request, to_tensor

__all__ = ["DTYPES", "addressed", "framed", "from_tensor", "message", "predict_request", "to_tensor", "warmup_records"]
