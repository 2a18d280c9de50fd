"""Read the tensors of a PyTorch checkpoint without PyTorch, and without running what a pickle may contain.

Before its zip format, ``torch.save`` wrote five pickles in a row (magic number, protocol, machine, objects, keys of the
storages) and behind them the raw numbers, each storage preceded by its length. The objects name a storage by its key.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


class _Tensor(NamedTuple):
    """Where a tensor lies: a view of a flat storage, everything counted in numbers, not bytes."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: str, offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


class CheckpointUnpickler(pickle.Unpickler):
    """Unpickles a dictionary of tensors and refuses everything else.

    A pickle may name any importable function and have it called. Only the names that a plain dictionary of tensors
    needs are known here, and each stands for something harmless.

    Args:
        file: binary file at the start of a pickle.
        dtypes: filled while reading: storage key -> dtype of its numbers.

    Raises:
        pickle.UnpicklingError: if the pickle names any other class or function.
    """

    _KNOWN: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }

    def __init__(self, file: BinaryIO, dtypes: dict[str, np.dtype] | None = None) -> None:
        super().__init__(file)
        self.dtypes = {} if dtypes is None else dtypes

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"The checkpoint names {module}.{name}, which no tensor needs.") from None

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, key, _device, _length, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"Expected a reference to a whole storage, received {pid!r}.")
        self.dtypes[key] = dtype
        return key


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a checkpoint that ``torch.save`` wrote in its format before PyTorch 1.6.

    Args:
        path: file with the state dictionary of a module.

    Returns:
        Name -> array, in the file's order, axes as in PyTorch.

    Raises:
        pickle.UnpicklingError: if the file has another format, is cut short, or names a foreign class.

    Example:
        ``read_checkpoint("efficientnet-lite0.pth")["_fc.bias"].shape`` is ``(1000,)``.
    """
    with open(path, "rb") as file:
        # The third pickle describes the machine that wrote the file; the numbers are little-endian on all of them.
        magic, protocol, machine = (CheckpointUnpickler(file).load() for _ in range(3))
        if (magic, protocol) != (MAGIC, PROTOCOL) or not machine["little_endian"]:
            raise pickle.UnpicklingError(f"{path} is not a little-endian checkpoint of protocol {PROTOCOL}.")
        objects = CheckpointUnpickler(file)
        tensors = objects.load()
        keys = CheckpointUnpickler(file).load()
        storages = {key: _read_storage(file, objects.dtypes[key]) for key in keys}
    return {name: _view(tensor, storages) for name, tensor in tensors.items()}


def _read_storage(file: BinaryIO, dtype: np.dtype) -> np.ndarray:
    """Read the next storage: its length in numbers, as 8 bytes, then the numbers."""
    length = int.from_bytes(file.read(8), "little")
    data = file.read(length * dtype.itemsize)
    if len(data) != length * dtype.itemsize:
        raise pickle.UnpicklingError("The checkpoint is cut short.")
    return np.frombuffer(data, dtype)


def _view(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """Copy a tensor out of its storage, after checking that it lies within."""
    flat = storages[tensor.storage]
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0 or last >= len(flat):
        raise pickle.UnpicklingError("A tensor of the checkpoint reaches beyond its storage.")
    strides = [stride * flat.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()
