"""What an affine node offers a rule: its linear map, kernel and bias, read when the function runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

from keras import ops


@final
@dataclass(frozen=True, eq=False)
class Affine:
    """``y = linear(x, kernel(...)) + bias()``; weights stay live because both are functions.

    Attributes:
        linear: (x, kernel) -> z, linear in each argument.
        kernel: function of the node's inputs after the first (most have none) -> kernel tensor.
        bias: () -> tensor that broadcasts against z, or None.
        kernel_out: shape to which a vector over output channels is reshaped to scale the kernel; None if there is none.
        kernel_in: the same for input channels; None if an input channel is not one axis of the kernel.
        axis: the channel axis of x and z, negative.
        pads: whether the map pads its input with zeros.
    """

    linear: Callable[[Any, Any], Any]
    kernel: Callable[..., Any]
    bias: Callable[[], Any] | None = None
    kernel_out: tuple[int, ...] | None = None
    kernel_in: tuple[int, ...] | None = None
    axis: int = -1
    pads: bool = False

    @property
    def channels(self) -> tuple[int, ...]:
        """Shape to which a vector over channels is reshaped to be added to z (or x)."""
        return (-1,) + (1,) * (-1 - self.axis)

    def __call__(self, x: Any, *others: Any) -> Any:
        z = self.linear(x, self.kernel(*others))
        return z if self.bias is None else ops.add(z, self.bias())

    def scaled_after(self, scale: Scale) -> Affine:
        """The same map followed by ``scale``: W' = W s, b' = b s + t (exact)."""

        def kernel(*others: Any) -> Any:
            return _times(self.kernel(*others), scale.factor, self.kernel_out)

        def bias() -> Any:
            bias = None if self.bias is None else _times(self.bias(), scale.factor, self.channels)
            shift = None if scale.shift is None else _reshape(scale.shift(), self.channels)
            return shift if bias is None else bias if shift is None else bias + shift

        has_bias = self.bias is not None or scale.shift is not None
        return replace(self, kernel=kernel, bias=bias if has_bias else None)

    def scaled_before(self, scale: Scale, shape: tuple[int | None, ...]) -> Affine:
        """``scale`` followed by the same map: W' = s W, b' = b + linear(t, W) (exact without zero padding).

        Args:
            scale: the scaling of the input.
            shape: static shape of the input; sizes that are not known count as 1 (only for maps over channels alone).
        """

        def kernel(*others: Any) -> Any:
            return _times(self.kernel(*others), scale.factor, self.kernel_in)

        if scale.shift is None:
            return replace(self, kernel=kernel)
        added = scale.shift

        def bias() -> Any:
            unit = ops.ones([1, *(size or 1 for size in shape[1:])], dtype=self.kernel().dtype)
            shift = self.linear(unit * _reshape(added(), self.channels), self.kernel())
            return shift if self.bias is None else shift + self.bias()

        return replace(self, kernel=kernel, bias=bias)


@final
@dataclass(frozen=True, eq=False)
class Scale:
    """``y = x * factor() + shift()``, both vectors over the channels ``axis`` (or scalars); None means 1 and 0."""

    factor: Callable[[], Any] | None
    shift: Callable[[], Any] | None
    axis: int | None = -1

    def fits(self, axis: int) -> bool:
        """Whether it scales the channels on ``axis`` (a scalar scales any)."""
        return self.axis is None or self.axis == axis


def _reshape(vector: Any, shape: tuple[int, ...] | None) -> Any:
    return vector if len(vector.shape) == 0 else ops.reshape(vector, shape)


def _times(tensor: Any, factor: Callable[[], Any] | None, shape: tuple[int, ...] | None) -> Any:
    return tensor if factor is None else tensor * _reshape(factor(), shape)
