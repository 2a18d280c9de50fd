"""SavedModels of TensorFlow: what their graphs do, and their signatures as layers."""

from __future__ import annotations

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
