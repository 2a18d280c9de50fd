"""SavedModels of TensorFlow: what their graphs do, and their signatures as layers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kxai.errors import LoadError

_INTERNAL = "__saved_model_init_op"
# Operations with a state that lies in memory; every other stateful operation could reach out of the process.
_IN_MEMORY = frozenset(
    """
    VarHandleOp ReadVariableOp VarIsInitializedOp VariableShape AssignVariableOp AssignAddVariableOp
    AssignSubVariableOp DestroyResourceOp DisableCopyOnRead ResourceGather ResourceGatherNd ResourceScatterAdd
    ResourceScatterUpdate StatefulPartitionedCall While If Case Assert CheckNumerics CheckNumericsV2
    CudnnRNN CudnnRNNV2 CudnnRNNV3 CudnnRNNBackprop CudnnRNNBackpropV2 CudnnRNNBackpropV3
    CudnnRNNCanonicalToParams CudnnRNNParamsToCanonical
    RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal ParameterizedTruncatedNormal RandomShuffle
    RandomGamma RandomPoissonV2 Multinomial StatefulUniform StatefulUniformInt StatefulUniformFullInt
    StatefulStandardNormalV2 StatefulTruncatedNormal StatefulRandomBinomial RngSkip RngReadAndSkip
    HashTableV2 MutableHashTableV2 MutableHashTableOfTensorsV2 MutableDenseHashTableV2 AnonymousHashTable
    AnonymousMutableHashTable AnonymousMutableHashTableOfTensors AnonymousMutableDenseHashTable InitializeTableV2
    LookupTableFindV2 LookupTableInsertV2 LookupTableImportV2 LookupTableExportV2 LookupTableSizeV2
    LookupTableRemoveV2 TensorArrayV3 TensorArrayGradV3 TensorArrayWriteV3 TensorArrayReadV3 TensorArrayGatherV3
    TensorArrayScatterV3 TensorArrayConcatV3 TensorArraySplitV3 TensorArraySizeV3 TensorArrayCloseV3 StackV2
    StackPushV2 StackPopV2 StackCloseV2
    """.split()
)
# Functions of a resource that TensorFlow calls as soon as it is loaded; they may loop without end, or fill the memory.
_AT_ONCE = frozenset({"_create_resource", "_initialize", "_destroy_resource"})
_FILLING = frozenset(
    """
    Const Placeholder Identity NoOp Cast PartitionedCall StatefulPartitionedCall HashTableV2 MutableHashTableV2
    MutableHashTableOfTensorsV2 MutableDenseHashTableV2 AnonymousHashTable
    AnonymousMutableHashTable AnonymousMutableHashTableOfTensors AnonymousMutableDenseHashTable InitializeTableV2
    LookupTableImportV2 LookupTableExportV2 LookupTableInsertV2 VarHandleOp AssignVariableOp ReadVariableOp
    """.split()
)
# Operations that count as stateless and yet open files or run Python.
_REACHING = frozenset(
    """
    ReadFile MatchingFiles ImmutableConst InitializeTableFromTextFile LoadAndRemapMatrix GenerateVocabRemapping
    RestoreV2 Restore RestoreSlice ShardedFilename ShardedFilespec CustomAggregator
    """.split()
)
# Families of such operations: of pipelines, other compilers and other machines.
_FAMILIES = re.compile("Dataset|Xla|T[Pp][Uu]|DTensor|Mlir|PyFunc|Proto|Debug")


@final
class SavedModel:
    """A SavedModel's own description of itself; nothing of it runs.

    Args:
        folder: of the SavedModel.

    Raises:
        LoadError: the description is damaged, or that of TensorFlow 1.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, path = folder, folder / "saved_model.pb"
        try:
            graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
        except Exception as error:  # Errors of protocol buffers have no public base class.
            raise LoadError(
                f"{path} is damaged.",
                expected="the description of a SavedModel",
                received=f"{path.stat().st_size} bytes; {type(error).__name__}: {str(error)[:200]}",
                fix="copy the whole folder again.",
            ) from error
        served = [graph for graph in graphs if "serve" in graph.meta_info_def.tags]
        if not served or not served[0].object_graph_def.nodes:
            raise LoadError(
                f"{folder} is no SavedModel of TensorFlow 2.",
                expected="a graph with the tag 'serve' and an object graph",
                received=f"{len(graphs)} graphs, tags {[list(graph.meta_info_def.tags) for graph in graphs][:3]}",
                fix="load it with TensorFlow and save it again with tf.saved_model.save.",
            )
        self._graph = served[0]

    @property
    def endpoints(self) -> list[str]:
        """The names of the signatures."""
        return sorted(name for name in self._graph.signature_def if name != _INTERNAL)

    def at_once(self) -> list[str]:
        """The operations, other than those which fill tables, that run while the SavedModel is loaded."""
        nodes = self._graph.object_graph_def.nodes
        library = {function.signature.name: function for function in self._graph.graph_def.library.function}
        ran = {child.node_id for node in nodes for child in node.children if child.local_name in _AT_ONCE}
        stores = [one for node in nodes for one in node.saveable_objects.values()]
        ran |= {number for one in stores for number in (one.save_function, one.restore_function)}
        names = {name for number in ran for name in nodes[number].function.concrete_functions}
        names |= {nodes[number].bare_concrete_function.concrete_function_name for number in ran}
        reached = _reached(library, names)
        used = [(node, library[name]) for name in reached for node in library[name].node_def]
        return sorted({node.op for node, within in used if node.op not in _FILLING and not _names_a_key(node, within)})

    def constants(self) -> int:
        """The bytes of all constants, of which the file may hold one number for all."""
        graph = self._graph.graph_def
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        tensors = [value.tensor for node in nodes if node.op == "Const" for value in [node.attr["value"]]]
        return sum(math.prod(max(dim.size, 0) for dim in one.tensor_shape.dim) * _width(one.dtype) for one in tensors)

    def outside(self) -> list[str]:
        """The operations that could run code or reach files or the network, and assets that lie elsewhere."""
        used = {node.op for node in self._nodes()}
        stateful = _stateful(used)
        odd = [name for name in used if _reaches(name) or (stateful.get(name, True) and name not in _IN_MEMORY)]
        assets = [asset.filename for asset in self._graph.asset_file_def]
        return sorted(odd) + [name for name in assets if name.startswith("/") or ".." in name.split("/")]

    def _nodes(self) -> Iterator[Any]:
        """The nodes of all functions but those that only write and read the checkpoint, which is not done by them."""
        library = self._graph.graph_def.library
        functions = {function.signature.name: function for function in library.function}
        saver = {name.split(":")[0] for name in (self._graph.saver_def.save_tensor_name, self._restore())}
        saving = [node for node in self._graph.graph_def.node if node.name in saver]
        called = set(self._graph.object_graph_def.concrete_functions)
        for node in self._graph.object_graph_def.nodes:
            called |= {*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name}
        called |= {one.gradient_func for one in (*library.gradient, *library.registered_gradients)}
        unused = _reached(functions, {name for node in saving for name in _functions(node)})
        for name in set(functions) - (unused - _reached(functions, called)):
            yield from functions[name].node_def
        # TensorFlow 2 does not run this graph, but its functions; those of the checkpoint are called from it.
        yield from (node for node in self._graph.graph_def.node if node.name not in saver)

    def _restore(self) -> str:
        return str(self._graph.saver_def.restore_op_name)

    def layer(self, endpoint: str) -> Signature:
        """Loads the SavedModel as a layer.

        Args:
            endpoint: the signature to call.

        Returns:
            The layer.
        """
        return Signature(str(self._folder), endpoint)


def _width(dtype: int) -> int:
    return int(tf.dtypes.as_dtype(dtype).size or 1)


def _names_a_key(node: Any, function: Any) -> bool:
    """Whether a node adds a word to the name under which a table is stored."""
    words = {
        one.name for one in function.node_def if one.op == "Const" and not one.attr["value"].tensor.tensor_shape.dim
    }
    given = words | {one.name for one in function.signature.input_arg}
    return (
        node.op == "Add"
        and node.attr["T"].type == tf.string.as_datatype_enum
        and all(name.split(":")[0] in given for name in node.input)
    )


def _reaches(name: str) -> bool:
    return name in _REACHING or _FAMILIES.search(name) is not None


def _functions(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield from (one.name for one in (value.func, *value.list.func) if one.name)


def _reached(functions: dict[str, Any], names: set[str]) -> set[str]:
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in functions and name not in found:
            found.add(name)
            waiting += [inner for node in functions[name].node_def for inner in _functions(node)]
    return found


def _stateful(names: set[str]) -> dict[str, bool]:
    """Which operations TensorFlow knows, and whether they have a state."""
    described = tf.compat.v1.GraphDef()
    for name in names:
        described.node.add(name=name, op=name)
    with tf.Graph().as_default():
        about = tf.compat.v1.train.export_meta_graph(graph_def=described).meta_info_def
    return {operation.name: bool(operation.is_stateful) for operation in about.stripped_op_list.op}


class Signature(keras.layers.TFSMLayer):
    """A signature of a SavedModel as a layer of named inputs and outputs.

    Args:
        folder: of the SavedModel.
        endpoint: the signature.
    """

    def __init__(self, folder: str, endpoint: str) -> None:
        super().__init__(folder, call_endpoint=endpoint, name="saved_model")
        # A signature takes tensors by name; what the object has under this name may take them otherwise.
        self.call_endpoint_fn = self._reloaded_obj.signatures[endpoint]
        self.autocast = False

    @property
    def specs(self) -> dict[str, Any]:
        """Shape and dtype by the name of an input."""
        return dict(self.call_endpoint_fn.structured_input_signature[1])

    @property
    def results(self) -> dict[str, Any]:
        """Shape and dtype by the name of an output."""
        return dict(self.call_endpoint_fn.structured_outputs)

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Calls the signature.

        Args:
            inputs: tensors by name.

        Returns:
            The outputs by name.

        Raises:
            TypeError: the inputs are symbolic, as they are where somebody looks for the layers inside.
        """
        if any(isinstance(value, keras.KerasTensor) for value in inputs.values()):
            raise TypeError("it is the graph of a SavedModel, in which there are no layers")
        return self.call_endpoint_fn(**inputs)
