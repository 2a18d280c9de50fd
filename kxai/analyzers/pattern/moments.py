"""Moments of what units see and return over a data set: one pass, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.scores import Spec, input_spec
from kxai.composites import Plan
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.reverse import forward
from kxai.rules.pattern import Pattern, Units, units_of

_PER_CHANNEL = frozenset({"y", "yy", "active_count"})


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over all samples (x, y) of one node: its input patches and y = w.x, without bias.

    Numbers per output channel have the kernel's rank. "active" are the samples whose unit is, bias included.

    Attributes:
        count: number of samples.
        shift: c, about the mean of y, taken off y so that differences of sums lose no digits.
        y, yy: sums of y - c and of its square.
        x, xy: sums of x and of x (y - c), shaped like the kernel.
        active_count, active_x, active_xy: the same over active samples; None where they were not asked for.
    """

    count: float
    shift: np.ndarray
    y: np.ndarray
    yy: np.ndarray
    x: np.ndarray
    xy: np.ndarray
    active_count: np.ndarray | None = None
    active_x: np.ndarray | None = None
    active_xy: np.ndarray | None = None

    def pattern(self, kernel: np.ndarray) -> np.ndarray:
        """``a = cov[x, y] / var[y]``, shaped like the kernel.

        Args:
            kernel: w, in the scale of which ``w.a = 1``; 0 for units that never vary.
        """
        return self._ratio(kernel, self.x, self.xy, np.full_like(self.y, self.count))

    def regimes(self, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(a+, a-): ``(E+[x y] - E+[x] E[y]) / (w.E+[x y] - w.E+[x] E[y])`` and the same over the other samples.

        Args:
            kernel: w, in the scale of which ``w.a = 1``; 0 for units that never vary or have no sample in the regime.
        """
        if self.active_count is None or self.active_x is None or self.active_xy is None:
            raise AssertionError("the moments of active samples were not asked for")
        x, xy, count = self.active_x, self.active_xy, self.active_count
        others = np.full_like(self.y, self.count) - count
        return self._ratio(kernel, x, xy, count), self._ratio(kernel, self.x - x, self.xy - xy, others)

    def _ratio(self, kernel: np.ndarray, x: np.ndarray, xy: np.ndarray, count: np.ndarray) -> np.ndarray:
        axes = tuple(axis for axis, size in enumerate(self.y.shape) if size == 1)
        mean = self.y / self.count
        varies = self.yy / self.count - mean**2 > 1e-24 * (self.shift + mean) ** 2
        # The count cancels.
        numerator = np.where(varies & (count > 0), xy - x * mean, 0.0)
        denominator = (kernel * numerator).sum(axis=axes, keepdims=True)
        return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def activation_after(node: Node, facts: Facts) -> Node | None:
    """The ReLU that alone reads what a node returns, through scalings; it says whether a unit is active."""
    rectifier = facts.rectifier_after(node)
    while rectifier is None:
        readers = facts.graph.consumers.get(node.outputs[0], ())
        outputs = facts.graph.outputs + facts.graph.explained
        if len(readers) != 1 or readers[0].kind is not Kind.SCALE or node.outputs[0] in outputs:
            return None
        node = readers[0]
        rectifier = facts.rectifier_after(node)
    return rectifier


@final
class MomentsProgram:
    """A compiled function from a batch of inputs to the moments of every node of a plan that has patterns.

    Args:
        plan: the plan.
        regimes: whether those of active samples are wanted, too.
        traced: called whenever the function is traced (once, whatever batch sizes follow).
    """

    def __init__(self, plan: Plan, regimes: bool, traced: Callable[[], None]) -> None:
        self.nodes = [(node, known_units(node)) for node, rule in plan.rules.items() if isinstance(rule, Pattern)]
        self._plan, self._regimes, self._traced = plan, regimes, traced
        inputs = [input_spec(edge) for edge in plan.graph.inputs]
        shifts = [Spec((None,), "float64") for _ in self.nodes]
        # Compiled, and never jitted: computed step by step, TensorFlow's derivative of a strided 1 x 1 convolution by
        # its kernel writes where it must not.
        self._function: Callable[..., Any] = backend.compile(self._run, (inputs, shifts))

    def __call__(self, inputs: list[np.ndarray], shifts: list[np.ndarray] | None = None) -> list[dict[str, np.ndarray]]:
        """Sums over one batch, per node; without shifts these are 0."""
        given = [np.zeros(_count(units)) for _, units in self.nodes] if shifts is None else shifts
        result: list[dict[str, np.ndarray]] = tree.map_structure(backend.to_numpy, self._function(inputs, given))
        return result

    def _run(self, inputs: list[Any], shifts: list[Any]) -> list[dict[str, Any]]:
        self._traced()
        run = forward(self._plan, inputs)
        found = []
        for (node, units), shift in zip(self.nodes, shifts, strict=True):
            step, rectifier = run.steps[node], activation_after(node, self._plan.facts)
            activation = step.outputs[0] if rectifier is None else run.values[rectifier.outputs[0]]
            kernel = units.kernel() if step.kernel is None else step.kernel
            active = ops.cast(activation > 0, "float64") if self._regimes else None
            found.append(_sums(units, step.inputs, kernel, active, shift))
        return found


def _sums(units: Units, inputs: Sequence[Any], kernel: Any, active: Any, shift: Any) -> dict[str, Any]:
    xs, kernel = [ops.cast(x, "float64") for x in inputs], ops.cast(kernel, "float64")
    # The sum over samples of x c is the derivative of sum(linear(x, w) c) by w, whatever the linear map.
    (y,), pull = backend.vjp(lambda w: units.linear(xs, w), kernel)
    y = y - ops.reshape(shift, units.channels)
    axis = len(y.shape) + units.axis
    over = [i for i in range(len(y.shape)) if i != axis]
    sums = {
        "count": ops.cast(ops.size(y), "float64") / ops.cast(ops.shape(y)[axis], "float64"),
        "y": ops.sum(y, axis=over),
        "yy": ops.sum(y * y, axis=over),
        "x": pull([ops.ones_like(y)])[0],
        "xy": pull([y])[0],
    }
    if active is not None:
        sums["active_count"] = ops.sum(active, axis=over)
        sums["active_x"] = pull([active])[0]
        sums["active_xy"] = pull([active * y])[0]
    return sums


def known_units(node: Node) -> Units:
    """The units of a node that has patterns."""
    units = units_of(node)
    assert units is not None  # what its rule has checked
    return units


def _count(units: Units) -> int:
    shape = units.kernel().shape
    return int(np.prod([size for axis, size in enumerate(shape) if axis not in units.axes]))


@final
class Running:
    """Sums over batches."""

    def __init__(self) -> None:
        self.samples = 0
        self._shifts: list[np.ndarray] | None = None
        self._sums: list[dict[str, np.ndarray]] = []
        self._nodes: list[tuple[Node, Units]] = []

    def add(self, program: MomentsProgram, inputs: list[np.ndarray]) -> None:
        """Add a batch."""
        if self._shifts is None:
            self._shifts = [sums["y"] / sums["count"] for sums in program(inputs)]
        found = program(inputs, self._shifts)
        self._nodes = program.nodes
        self.samples += len(inputs[0])
        if not self._sums:
            self._sums = [{name: np.array(value) for name, value in sums.items()} for sums in found]
            return
        for total, sums in zip(self._sums, found, strict=True):
            for name, value in sums.items():
                total[name] += value

    def moments(self) -> dict[str, tuple[Moments, np.ndarray]]:
        """Moments and kernel (float64) per node path."""
        result = {}
        for (node, units), shift, sums in zip(self._nodes, self._shifts or [], self._sums, strict=True):
            kernel = backend.to_numpy(units.kernel()).astype("float64")
            shape = units.kernel_out
            # What is one number per channel gets the kernel's rank.
            shaped = {name: v.reshape(shape) if name in _PER_CHANNEL else v for name, v in sums.items()}
            count = float(shaped.pop("count"))
            result[node.path] = Moments(count, shift.reshape(shape), **shaped), kernel
        return result
