"""The messages of TensorFlow Serving that kxai sends and reads.

They are byte for byte those of ``tensorflow_serving.apis``, whose package requires all of TensorFlow. Fields that kxai
never uses are left out; protobuf keeps them unread. A descriptor pool of their own keeps them apart from TensorFlow's
messages of the same process.
"""

from __future__ import annotations

import functools
import importlib
import re
import threading
from typing import Any

from kxai.errors import MissingDependencyError

PACKAGE = "kxai.wire"
_LOCK = threading.Lock()
MODEL_METADATA = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
"""The type of what ``GetModelMetadataResponse.metadata["signature_def"]`` holds."""

# Message -> its fields, each `type name = number`, as in a .proto file.
_SCHEMA = """
Dim                      : int64 size = 1; string name = 2
TensorShapeProto         : repeated Dim dim = 2; bool unknown_rank = 3
TensorProto              : int32 dtype = 1; TensorShapeProto tensor_shape = 2; bytes tensor_content = 4;
                           repeated int32 half_val = 13; repeated float float_val = 5; repeated double double_val = 6;
                           repeated int32 int_val = 7; repeated bytes string_val = 8; repeated float scomplex_val = 9;
                           repeated int64 int64_val = 10; repeated bool bool_val = 11;
                           repeated double dcomplex_val = 12; repeated uint32 uint32_val = 16;
                           repeated uint64 uint64_val = 17
Int64Value               : int64 value = 1
Any                      : string type_url = 1; bytes value = 2
ModelSpec                : string name = 1; Int64Value version = 2; string version_label = 4; string signature_name = 3
PredictRequest           : ModelSpec model_spec = 1; map TensorProto inputs = 2; repeated string output_filter = 3
PredictResponse          : ModelSpec model_spec = 2; map TensorProto outputs = 1
TensorInfo               : string name = 1; int32 dtype = 2; TensorShapeProto tensor_shape = 3
SignatureDef             : map TensorInfo inputs = 1; map TensorInfo outputs = 2; string method_name = 3
SignatureDefMap          : map SignatureDef signature_def = 1
GetModelMetadataRequest  : ModelSpec model_spec = 1; repeated string metadata_field = 2
GetModelMetadataResponse : ModelSpec model_spec = 1; map Any metadata = 2
StatusProto              : int32 error_code = 1; string error_message = 2
ModelVersionStatus       : int64 version = 1; int32 state = 2; StatusProto status = 3
GetModelStatusRequest    : ModelSpec model_spec = 1
GetModelStatusResponse   : repeated ModelVersionStatus model_version_status = 1
PredictLog               : PredictRequest request = 1; PredictResponse response = 2
PredictionLog            : PredictLog predict_log = 6
"""


def message(name: str) -> Any:
    """Returns the class of a message.

    Args:
        name: as in TensorFlow Serving, for example ``PredictRequest``.

    Returns:
        The class; its objects have protobuf's interface.

    Raises:
        MissingDependencyError: the package protobuf is not installed.

    Example:
        >>> request = message("PredictRequest")()
        >>> request.model_spec.name = "digits"
        >>> request.SerializeToString()
        b'\\n\\x08\\n\\x06digits'
    """
    with _LOCK:  # messages of one pool do not go into those of another
        return _classes()[name]


def addressed(spec: Any, model: str, version: int | str | None) -> None:
    """Fills a ``ModelSpec``.

    Args:
        spec: the message.
        model: name of the model.
        version: its number, or its label; None: what the server takes as newest.

    Example:
        >>> spec = message("ModelSpec")()
        >>> addressed(spec, "digits", "stable")
        >>> spec.version_label
        'stable'
    """
    spec.name = model
    if isinstance(version, str):
        spec.version_label = version
    elif version is not None:
        spec.version.value = version


@functools.cache
def _classes() -> dict[str, Any]:
    try:
        pb2 = importlib.import_module("google.protobuf.descriptor_pb2")
        pools = importlib.import_module("google.protobuf.descriptor_pool")
        factory = importlib.import_module("google.protobuf.message_factory")
    except ImportError as error:
        raise MissingDependencyError(
            "The package protobuf cannot be imported.", received=str(error), fix='pip install "kxai[serving]"'
        ) from error
    file = pb2.FileDescriptorProto(name="kxai/wire.proto", package=PACKAGE, syntax="proto3")
    for name, fields in re.findall(r"^(\w+) +: ([^:]*)$", _SCHEMA, re.MULTILINE):
        _add_message(pb2, file.message_type.add(name=name), fields)
    pool = pools.DescriptorPool()
    pool.Add(file)
    names = [described.name for described in file.message_type]
    return {name: factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in names}


def _add_message(pb2: Any, described: Any, fields: str) -> None:
    for field in fields.split(";"):
        *label, kind, name, _, number = field.split()
        if label == ["map"]:
            # protobuf's own form of a map: repeated entries, each a message of key and value.
            entry = described.nested_type.add(name="".join(map(str.capitalize, name.split("_"))) + "Entry")
            entry.options.map_entry = True
            _add_message(pb2, entry, f"string key = 1; {kind} value = 2")
            label, kind = ["repeated"], f"{described.name}.{entry.name}"
        added = described.field.add(name=name, number=int(number))
        added.label = added.LABEL_REPEATED if label else added.LABEL_OPTIONAL
        if kind.islower() or kind in ("int32", "int64"):
            added.type = pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
        else:
            added.type, added.type_name = added.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
