"""Analyzers that run a composite backward: the LRP family and deep Taylor."""

from __future__ import annotations

import fnmatch
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

import numpy as np
from keras import tree

from kxai.analyzers.analyzer import Analyzer, Compiled, concrete
from kxai.analyzers.inputs import to_arrays
from kxai.analyzers.program import Program, Readout, Start
from kxai.analyzers.recorded import Recorded
from kxai.arguments import check_flags
from kxai.composites import Composite, Plan, make_plan, preset
from kxai.composites.presets import deep_taylor
from kxai.errors import ArgumentError, KxaiWarning, RuleError, TargetError, UnknownNameError
from kxai.explanation import Explanation
from kxai.graph.graph import Edge, Graph, Node
from kxai.graph.trace import trace
from kxai.reverse import Finish
from kxai.rules import DifferenceRule, Rule
from kxai.targets import OutputSpec, Target

T = TypeVar("T")

MAX_PROGRAMS = 16
"""Compiled functions that one analyzer keeps: one per input structure and form of target."""


class BackwardAnalyzer(Analyzer):
    """An analyzer that is a composite, a start and a finish.

    Args:
        model: a built Keras model.
        jit: compile with XLA. Default False (faster on CPUs).
    """

    def __init__(self, model: Any, *, jit: bool = False) -> None:
        super().__init__(model)
        check_flags(jit=jit)
        self._jit = jit
        self._plans: dict[Any, Plan] = {}
        self._programs: dict[Any, Callable[[list[np.ndarray], list[np.ndarray]], dict[str, Any]]] = {}
        self._traces = 0

    @abstractmethod
    def composite_table(self) -> Composite:
        """The composite."""

    def start(self) -> Start:
        """What relevance starts with."""
        return Start.VALUE

    def finish(self) -> Finish | None:
        """What is done with (input, signal) at the end; None: nothing."""
        return None

    def readout(self, plan: Plan, explained: Sequence[Edge]) -> Readout | None:
        """How relevance is read off where it is not what arrives at the inputs; None: as it arrives.

        Args:
            plan: the plan.
            explained: outputs that the target refers to.
        """
        return None

    def accounts(self) -> bool:
        """Whether what is not handed on can be accounted for: of a gradient it means nothing."""
        return self.start() is not Start.ONE

    @property
    def conserves(self) -> bool:
        return self.start() is not Start.ONE

    def compiled(
        self, plan: Plan, target: Target, explained: Sequence[Edge], keep: tuple[str, ...], audit: bool
    ) -> Callable[[list[np.ndarray], list[np.ndarray]], dict[str, Any]]:
        """What computes a batch: (inputs, target's numbers) -> arrays by name, see :class:`Program`.

        Args:
            plan: the plan.
            target: gives the form.
            explained: outputs that the target refers to.
            keep: node paths whose relevance is returned.
            audit: whether absorbed relevance is returned per node.
        """
        return self.program(plan, target, explained, keep, audit)

    def program(
        self, plan: Plan, target: Target, explained: Sequence[Edge], keep: tuple[str, ...] = (), audit: bool = False
    ) -> Program:
        """The plan as a program; arguments as :meth:`compiled` takes them."""
        return Program(
            plan, target, start=self.start(), finish=self.finish(), keep=keep, readout=self.readout(plan, explained),
            audit=audit, jit=self._jit, traced=self._count_trace,
        )  # fmt: skip

    def strips_heads(self) -> bool:
        """Whether the logit before a final softmax or sigmoid is explained."""
        return True

    def nonnegative_inputs(self) -> bool:
        """Whether the caller declared that no input is negative."""
        return False

    def plan(self, inputs: Any = None) -> Plan:
        specs = self._specs(inputs)
        return self._plan_for(specs if inputs is None else concrete(specs, to_arrays(inputs, specs)))

    @property
    def traces(self) -> int:
        """How many functions were traced so far."""
        return self._traces

    def _count_trace(self) -> None:
        self._traces += 1

    def config(self) -> dict[str, Any]:
        rows = self.composite_table().rows
        return {**super().config(), "rules": [f"{_shown(match)}: {rule!r}" for match, rule in rows]}

    def _plan_for(self, specs: Any) -> Plan:
        def make() -> Plan:
            composite = self.composite_table()
            plan = make_plan(
                trace(self._model, specs, composite.layer_classes),
                composite,
                strip=self.strips_heads(),
                starts_at_zero=self.start() is not Start.ONE,
                nonnegative_inputs=self.nonnegative_inputs(),
            )
            for node, rule in plan.all_rules:
                self._check_rule(node, rule)
            return plan

        # Other variables, as of layer.enable_lora or model.quantize, are another graph; other values of them are not.
        variables = frozenset(map(id, self._model.weights))
        key = (variables, *((spec.shape, spec.dtype) for spec in tree.flatten(specs)))
        with self._lock:
            return remembered(self._plans, key, make)

    def _prepare(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool
    ) -> tuple[Compiled, Target]:
        self._check_audit(audit)
        plan = self._plan_for(specs)
        graph = plan.graph
        resolved = self._targeted(graph, target, count)
        keep = expand_globs(globs, plan)
        explained = [graph.explained[part.output] for part in resolved.parts] or list(graph.explained)
        key = (plan, resolved.form, keep, audit)
        with self._lock:
            program = remembered(self._programs, key, lambda: self.compiled(plan, resolved, explained, keep, audit))

        def run(batch: list[np.ndarray], data: list[np.ndarray], rows: np.ndarray) -> Explanation:
            plan.check_inputs(batch)
            return self._explanation(program(batch, data), plan, resolved, target)

        return run, resolved

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        plan = self._plan_for(specs)
        resolved = self._targeted(plan.graph, target, None)
        explained = [plan.graph.explained[part.output] for part in resolved.parts] or list(plan.graph.explained)
        program = self.program(plan, resolved, explained)
        return Recorded(plan.graph, resolved, lambda inputs, data: program.run(plan.checked(inputs), data))

    def _check_audit(self, audit: bool) -> None:
        if audit and not self.accounts():
            raise ArgumentError(
                f"{self.name} hands down a gradient, not relevance: there is nothing to account for.",
                expected="audit=True with LRP or deep Taylor",
                received="audit=True",
            )

    def _check_rule(self, node: Node, rule: Rule) -> None:
        """Raise RuleError if the method cannot run a rule."""
        if isinstance(rule, DifferenceRule):
            raise RuleError(
                f"Rule {rule!r} compares node {node.path!r} with a reference; {self.name} has none.",
                expected="rules of relevance",
                fix="use kxai.DeepLIFT(model, reference, rule=composite).",
            )

    def _targeted(self, graph: Graph, target: Any, count: int | None) -> Target:
        outputs = [OutputSpec(name, edge.shape) for name, edge in zip(graph.output_names, graph.explained, strict=True)]
        resolved = self._resolve(target, outputs, count)
        for part in resolved.parts:
            _check_entries(graph.explained[part.output], graph.output_names[part.output])
        return resolved

    def _explanation(self, result: dict[str, Any], plan: Plan, resolved: Target, target: Any) -> Explanation:
        graph = plan.graph
        return Explanation(
            relevance=tree.pack_sequence_as(graph.input_structure, result["relevance"]),
            outputs=tree.pack_sequence_as(graph.output_structure, result["outputs"]),
            target=chosen_target(result["chosen"], resolved, graph, target),
            score=result["score"],
            base=result.get("base", np.zeros(())),
            layers=result["kept"],
            absorbed=result["absorbed"],
            config={**self.config(), "notes": plan.notes},
        )


@final
class LRP(BackwardAnalyzer):
    """Layer-wise relevance propagation.

    Relevance starts as the value of the explained logit and is handed down node by node by the rules of a composite.
    It adds up to the logit up to what biases and stabilizers absorb, which ``explanation.residual`` reports.

    Args:
        model: a built Keras model.
        composite: name of a preset (see ``kxai.methods()``) or a :class:`Composite`. Default "epsilon_plus".
        jit: compile with XLA. Default False.
        hyperparameters: of the preset, such as ``epsilon=1e-6`` or ``low=-1., high=1.``.

    Raises:
        UnknownNameError: no such preset. ArgumentError: a hyperparameter that the preset does not take.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
        >>> model.set_weights([np.array([[1., 0.], [2., 0.], [3., 1.]])])
        >>> LRP(model, composite="epsilon").explain(np.array([[1., 1., 1.]]), target=0).relevance.round(3)
        array([[1., 2., 3.]], dtype=float32)

    Source: Bach et al. 2015; Montavon et al. 2019.
    """

    def __init__(
        self, model: Any, composite: str | Composite = "epsilon_plus", *, jit: bool = False, **hyperparameters: Any
    ) -> None:
        super().__init__(model, jit=jit)
        self._composite, self._extra = composite, hyperparameters
        if not isinstance(composite, (str, Composite)):
            raise ArgumentError(
                "The composite is neither a name nor a Composite.",
                expected='for example "epsilon_plus", or kxai.preset("epsilon_plus").but((match, rule))',
                received=repr(composite),
            )
        if isinstance(composite, Composite):
            if hyperparameters:
                raise ArgumentError(
                    "A Composite already holds its hyperparameters.",
                    expected="composite alone, or the name of a preset with hyperparameters",
                    received=", ".join(hyperparameters),
                )
            self._table = composite
        else:
            self._table = preset(composite, **hyperparameters)

    @property
    def name(self) -> str:
        return f"lrp.{self._composite}" if isinstance(self._composite, str) else f"lrp ({self._table.name})"

    def hyperparameters(self) -> dict[str, Any]:
        return {"composite": self._composite, "jit": self._jit, **self._extra}

    def composite_table(self) -> Composite:
        return self._table


@final
class DeepTaylor(BackwardAnalyzer):
    """Deep Taylor decomposition: z+ in hidden layers, a rule for the input's domain in the first.

    Relevance starts as max(0, logit). With non-positive biases it is non-negative and adds up to the logit.

    Args:
        model: a built Keras model.
        low: lowest possible input value (number, per channel, array), or None.
        high: highest possible input value, or None. Both: z^B rule; low=0 alone: z+; neither: w^2.
        max_pooling: "winner" (default) or "proportional".
        jit: compile with XLA. Default False.

    Warns:
        KxaiWarning: an explained logit is not positive; its relevance is zero by definition.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[1.], [2.]])])
        >>> DeepTaylor(model, low=0., high=4.).explain(np.array([[1., 2.]])).relevance
        array([[1., 4.]], dtype=float32)

    Source: Montavon et al. 2017.
    """

    def __init__(
        self, model: Any, low: Any = None, high: Any = None, max_pooling: str = "winner", *, jit: bool = False
    ) -> None:
        super().__init__(model, jit=jit)
        self._low, self._high, self._max_pooling = low, high, max_pooling
        self._table = deep_taylor(low, high, max_pooling)

    @property
    def name(self) -> str:
        return "deep_taylor"

    def composite_table(self) -> Composite:
        return self._table

    def start(self) -> Start:
        return Start.POSITIVE_VALUE

    def nonnegative_inputs(self) -> bool:
        return self._low is not None and bool(np.all(np.asarray(self._low) >= 0))

    def _finished(self, explanation: Explanation) -> Explanation:
        explanation = super()._finished(explanation)
        silent = np.flatnonzero(explanation.score <= 0)
        if len(silent):
            warnings.warn(
                f"Deep Taylor explains positive logits; for {len(silent)} of {len(explanation.score)} samples the "
                f"explained logit is not positive (the first: sample {silent[0]}, {explanation.score[silent[0]]:.4g}), "
                "and their relevance is zero. Choose another target, or LRP.",
                KxaiWarning,
                stacklevel=3,
            )
        return explanation


def remembered(memory: dict[Any, T], key: Any, make: Callable[[], T]) -> T:
    """The value of a key, made if need be; beyond MAX_PROGRAMS the least recently used one is forgotten.

    Callables as targets and inputs of ever new sizes would otherwise pile up.
    """
    value = memory.pop(key) if key in memory else make()
    memory[key] = value
    if len(memory) > MAX_PROGRAMS:
        memory.pop(next(iter(memory)))
    return value


def expand_globs(globs: tuple[str, ...], plan: Plan) -> tuple[str, ...]:
    """Names of the nodes that the globs match and relevance reaches; one name per node, its own before merged ones."""
    names = [(node.path, *node.merged) for node in plan.graph.nodes if node in plan.reached]
    found: dict[str, None] = {}
    for glob in globs:
        hits = [matched[0] for own in names if (matched := fnmatch.filter(own, glob))]
        loop = None if hits else plan.within_loop(glob)
        if loop is not None:
            raise ArgumentError(
                f"{glob!r} is within the loop of {loop.path!r}; relevance inside a loop is not kept.",
                expected="nodes outside of loops",
                fix=f"ask for the relevance of the recurrent layer as a whole: layers={loop.path!r}.",
            )
        if not hits:
            known = [name for own in names for name in own]
            raise UnknownNameError("layer", glob, known, fix="print(kxai.plan(model, method)) lists the nodes.")
        found.update(dict.fromkeys(hits))
    return tuple(found)


def _check_entries(edge: Edge, name: str) -> None:
    """Refuse a target in an output that has several entries per sample along its batch axis."""
    if edge.batch is not None and edge.batch[1] != 1:
        raise TargetError(
            f"Output {name!r} has {edge.batch[1]} entries per sample on its batch axis; which of them is explained?",
            expected="one entry per sample",
            received=f"shape {edge.shape}, of {edge.batch[1]} times as many entries as samples",
            fix="give the entries an axis of their own (keras.ops.reshape or split) at the end of the model.",
        )


def chosen_target(chosen: list[Any], resolved: Target, graph: Graph, target: Any) -> Any:
    """What an explanation says was explained.

    Args:
        chosen: what was chosen, per part of the target.
        resolved: the target, checked.
        graph: the model's graph.
        target: the target as the user gave it.
    """
    if resolved.function is not None:
        return repr(target)
    if len(resolved.parts) == 1 and len(graph.outputs) == 1:
        return chosen[0]
    return {graph.output_names[part.output]: c for part, c in zip(resolved.parts, chosen, strict=True)}


def _shown(match: Any) -> str:
    return match if isinstance(match, str) else getattr(match, "__name__", None) or match.value
