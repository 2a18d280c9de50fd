"""TensorFlow: functions of named tensors, and the SavedModel that holds some of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

# What a graph raises while it runs.
GraphError = tf.errors.OpError
# Operations that call the Python interpreter that made them.
_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
_XLA = "_XlaMustCompile"

Named = dict[str, Any]


@final
@dataclass(frozen=True)
class TensorFacts:
    """Shape (None for a free size) and dtype of a tensor of a signature."""

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """The known sizes: without the batch."""
        return tuple(size for size in self.shape if size is not None)


@final
class Concrete:
    """A function of named tensors, traced once for all batch sizes.

    Args:
        function: tensors by name -> tensors by name.
        inputs: shape and dtype of each; the names are identifiers.
    """

    def __init__(self, function: Callable[[Named], Named], inputs: Mapping[str, TensorFacts]) -> None:
        names = list(inputs)
        specs = [tf.TensorSpec(facts.shape, facts.dtype, name) for name, facts in inputs.items()]

        def flat(*tensors: Any) -> Named:
            # A graph takes whatever it can compute with: an image of another size, or one sample without its batch.
            checked = [tf.ensure_shape(tensor, spec.shape) for tensor, spec in zip(tensors, specs, strict=True)]
            return function(dict(zip(names, checked, strict=True)))

        self.inputs = dict(inputs)
        self.traced: Any = tf.function(flat, input_signature=specs, autograph=False).get_concrete_function()

    @property
    def outputs(self) -> dict[str, TensorFacts]:
        """Shape and dtype of each output."""
        specs = self.traced.structured_outputs
        return {name: TensorFacts(tuple(spec.shape), spec.dtype.name) for name, spec in specs.items()}

    def __call__(self, tensors: Mapping[str, Any]) -> Named:
        """Outputs by name, as arrays."""
        given = [tf.convert_to_tensor(tensors[name], facts.dtype) for name, facts in self.inputs.items()]
        return {name: tensor.numpy() for name, tensor in self.traced(*given).items()}

    def within(self, tensors: Mapping[str, Any]) -> Named:
        """Outputs by name, as tensors of the function that is being traced."""
        return dict(self.traced(*(tensors[name] for name in self.inputs)))

    def foreign(self) -> list[str]:
        """What would not run in a server: calls of Python, and functions that XLA has to compile."""
        graph = self.traced.graph.as_graph_def()
        functions = graph.library.function
        nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
        python = [f"{node.op} {node.name!r}" for node in nodes if node.op in _PYTHON]
        compiled = [f.signature.name for f in functions if f.attr[_XLA].b] or [n.name for n in nodes if n.attr[_XLA].b]
        # Functions have the name that they were written with, and a number for every trace.
        names = [re.sub(r"^__(inference|forward|backward)_+|(_\d+)+$", "", name) for name in compiled]
        return python + [f"XLA {name!r}" for name in dict.fromkeys(names)]


def save(folder: str, signatures: Mapping[str, Concrete], assets: Sequence[str]) -> None:
    """Write functions, the values of the variables that they read, and files as a SavedModel.

    Args:
        folder: must not exist.
        signatures: by name; a function may have several names.
        assets: paths of files that become part of it.

    Raises:
        ValueError: a function reads a resource that is no variable, such as a lookup table.
        OSError: the files cannot be written.
    """
    # The module alone owns the variables here: nothing is attached to the model that they belong to.
    module = tf.Module()
    module.read = _variables(signatures.values())
    module.files = [tf.saved_model.Asset(path) for path in assets]
    functions = {name: concrete.traced for name, concrete in signatures.items()}
    try:
        tf.saved_model.save(module, folder, signatures=functions)
    except AssertionError as error:  # "untracked resource"
        raise ValueError(str(error)) from error
    except GraphError as error:
        raise OSError(reason(error)) from error


def _variables(functions: Iterable[Concrete]) -> list[Any]:
    found = {id(variable): variable for concrete in functions for variable in concrete.traced.graph.variables}
    return list(found.values())


def finite(tensor: Any, message: str) -> Any:
    """The tensor; at run time InvalidArgumentError with the message where it is NaN or infinite."""
    return tf.debugging.check_numerics(tensor, message) if tensor.dtype.is_floating else tensor


def rows(tensor: Any) -> Any:
    """How many rows a tensor has, as a tensor."""
    return tf.shape(tensor)[0]


def reason(error: BaseException) -> str:
    """What a graph said that failed, in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    # TensorFlow says first where it happened.
    where = ("Graph execution", "Detected at", "<stack", "[[", "File")
    told = [line for line in lines if line and not line.startswith(where)]
    return (told or [type(error).__name__])[0]
