"""What each method says of the samples: its explanation and its plan, or why it has none."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, final

from kxai.analyzers import Analyzer, create_analyzer, methods
from kxai.analyzers.pattern.methods import PatternAnalyzer
from kxai.composites import Composite
from kxai.errors import ArgumentError, KxaiError, KxaiWarning, UnknownNameError
from kxai.explanation import Explanation

Source = str | Analyzer | Composite
_CATCHING = threading.RLock()  # what becomes of warnings is settled for the whole process


@final
@dataclass(frozen=True, eq=False)
class Column:
    """One method of a report.

    Args:
        name: as the report shows it.
        method: what the method is called in kxai.
        about: one line of description, or "".
        explanation: of all samples; None if the method refused.
        error: why it refused, or "".
        warnings: what it warned of.
        plan: (node, kind, rule) per node; empty if the method has no plan.
        without_plan: why it has none, or "".
    """

    name: str
    method: str
    about: str
    explanation: Explanation | None
    error: str
    warnings: tuple[str, ...]
    plan: tuple[tuple[str, str, str], ...]
    without_plan: str


@final
@dataclass(frozen=True)
class Request:
    """What every method of a report is asked.

    Args:
        model: the model.
        inputs: the samples, as the model takes them.
        target: what is explained.
        fit: data for methods that are fitted to data, or None.
        batch_size: rows computed at once.
        verbose: whether bars show the progress; None: on a terminal.
    """

    model: Any
    inputs: Any
    target: Any
    fit: Any
    batch_size: int
    verbose: bool | None


def named(chosen: Sequence[Source] | Mapping[str, Source] | str) -> dict[str, Source]:
    """Gives every method the name under which it is shown.

    Args:
        chosen: names of methods, analyzers or composites; or a dict of these by the name to be shown; or one name.

    Returns:
        The methods by name, in order.

    Raises:
        ArgumentError: there is none, or two have the same name. UnknownNameError: no method is called so.

    Example:
        >>> named(["gradient", "deep_taylor"])
        {'gradient': 'gradient', 'deep_taylor': 'deep_taylor'}
    """
    listed = [chosen] if isinstance(chosen, Source) or not isinstance(chosen, Iterable) else list(chosen)
    sources = list(chosen.values()) if isinstance(chosen, Mapping) else listed
    if not all(isinstance(source, Source) for source in sources):
        raise ArgumentError(
            "These are no methods.",
            expected="names, analyzers or composites, or a dict of these by the name to be shown",
            received=repr(chosen),
        )
    names = [str(name) for name in listed] if isinstance(chosen, Mapping) else [_name(source) for source in sources]
    found: dict[str, Source] = dict(zip(names, sources, strict=True))
    if not found or len(found) < len(sources):
        raise ArgumentError(
            "The methods cannot be told apart." if found else "There is no method.",
            expected="at least one method, each under a name of its own",
            received=", ".join(names) or "none",
            fix='give a dict, such as {"fine": "lrp.epsilon", "coarse": "lrp.epsilon"}, and settings by these names.',
        )
    for source in found.values():
        if isinstance(source, str) and source not in methods():
            raise UnknownNameError("method", source, methods(), fix="kxai.methods() describes all of them.")
    return found


def _name(source: Source) -> str:
    if isinstance(source, (str, Analyzer)):
        return source if isinstance(source, str) else source.name
    return f"lrp ({source.name})"


def columns(sources: Mapping[str, Source], settings: Mapping[str, Mapping[str, Any]], request: Request) -> list[Column]:
    """Asks every method; one that refuses becomes a column that says why.

    Args:
        sources: the methods by name.
        settings: hyperparameters by name.
        request: what they are asked.

    Returns:
        One column per method, in order.

    Raises:
        ArgumentError: settings for what is no method of the report or is an analyzer already, data to fit and no
            method that takes them, an analyzer of another model, or no method explains the model.
    """
    _check(sources, settings, request)
    found = [_column(name, source, settings.get(name, {}), request) for name, source in sources.items()]
    if all(column.explanation is None for column in found):
        raise ArgumentError(
            "No method explains this model with these inputs.",
            expected="at least one that does",
            received="\n".join(f"{column.name}: {column.error}" for column in found),
        )
    return found


def _check(sources: Mapping[str, Source], settings: Mapping[str, Mapping[str, Any]], request: Request) -> None:
    if not isinstance(settings, Mapping) or not all(isinstance(one, Mapping) for one in settings.values()):
        raise ArgumentError(
            "settings are no hyperparameters.",
            expected='a dict of dicts by method, such as {"lrp.epsilon": {"epsilon": 0.1}}',
            received=repr(settings),
        )
    for name in settings:
        if name not in sources:
            raise UnknownNameError("method in settings", name, sources, fix="settings go by the names of the methods.")
        if settings[name] and isinstance(sources[name], Analyzer):
            raise ArgumentError(
                f"{name} is an analyzer and has its hyperparameters already.",
                expected="settings for methods that are given by name",
                received=", ".join(settings[name]),
            )
    for name, source in sources.items():
        if isinstance(source, Analyzer) and source.model is not request.model:
            raise ArgumentError(
                f"The analyzer {name} explains another model.",
                expected=f"analyzers of {request.model.name!r}",
                received=repr(source),
                fix="bind it: analyzer.bind(model).",
            )
    if request.fit is not None and not any(_is_fitted(source) for source in sources.values()):
        raise ArgumentError(
            "No method of this report is fitted to data.",
            expected="fit with pattern_net or pattern_attribution, given by name",
            received=f"fit with {', '.join(sources)}",
        )


def _is_fitted(source: Source) -> bool:
    return isinstance(source, str) and source.startswith("pattern")


def _column(name: str, source: Source, settings: Mapping[str, Any], request: Request) -> Column:
    explanation: Explanation | None = None
    plan: tuple[tuple[str, str, str], ...] = ()
    error = without_plan = ""
    with _own_warnings() as said:
        try:
            analyzer = source if isinstance(source, Analyzer) else create_analyzer(source, request.model, **settings)
            if isinstance(analyzer, PatternAnalyzer) and _is_fitted(source) and request.fit is not None:
                analyzer = analyzer.fit(request.fit, request.batch_size, request.verbose)
            plan, without_plan = _plan(analyzer, request.inputs)
            explanation = analyzer.explain(request.inputs, request.target, request.batch_size, verbose=request.verbose)
        except KxaiError as refused:
            error = str(refused)
    method = source if isinstance(source, str) else _name(source)
    told = tuple(dict.fromkeys(said))
    return Column(name, method, methods().get(method, ""), explanation, error, told, plan, without_plan)


@contextlib.contextmanager
def _own_warnings() -> Iterator[list[str]]:
    """Collects what kxai warns of in this thread; all else goes where it would have gone."""
    said: list[str] = []
    thread = threading.get_ident()
    with _CATCHING, warnings.catch_warnings():
        show = warnings.showwarning

        def showwarning(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
            line: str | None = None,
        ) -> None:  # fmt: skip
            if issubclass(category, KxaiWarning) and threading.get_ident() == thread:
                said.append(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", KxaiWarning)
        warnings.showwarning = showwarning
        yield said


def _plan(analyzer: Analyzer, inputs: Any) -> tuple[tuple[tuple[str, str, str], ...], str]:
    """The rows of the plan; or none, and why. That a method refuses altogether is said when it explains."""
    try:
        return tuple(analyzer.plan(inputs).rows), ""
    except KxaiError as error:
        return (), str(error).splitlines()[0]
