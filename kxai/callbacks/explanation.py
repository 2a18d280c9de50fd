"""The callback: when explanations are made, and where pictures and numbers go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

import keras
from keras import tree

from kxai.analyzers import Analyzer
from kxai.arguments import check_integer
from kxai.callbacks import arguments
from kxai.callbacks.faults import Faults
from kxai.callbacks.journal import Journal
from kxai.callbacks.methods import binders, word
from kxai.callbacks.pictures import CLIP, Panel, Pictures, Undrawable
from kxai.callbacks.samples import Samples
from kxai.errors import ArgumentError
from kxai.explanation import Explanation
from kxai.metrics import Metric


@final
class ExplanationCallback(keras.callbacks.Callback):
    """Explains a few validation samples again and again while a model learns.

    Pictures and numbers go to ``log_dir/<name>``: an event file for TensorBoard (which need not be installed for that)
    and PNG files. The numbers also go into Keras' ``logs`` as ``val_<name>_<metric>``, or
    ``val_<name>_<method>_<metric>`` if there are several methods (all but letters and digits of a method's name becomes
    ``_``), so that ``History`` holds them and callbacks that stand **after** this one can monitor them;
    ``EarlyStopping`` and ``ModelCheckpoint`` need their ``mode`` for it. A number is the mean over the samples that
    have one, and is left out if none has.

    All pictures of a method are on one colour scale: ``scale``, or the percentile ``clip`` of the magnitudes in its
    first picture, all samples of it. Relevance is that of the current weights; it is compiled once, and the training
    is, bit for bit, what it would be without: no variable, no random number and no state of the model is touched.

    Args:
        validation_data: as for ``model.fit``: inputs, a tuple (inputs, labels[, weights]), or a batched
            ``tf.data.Dataset`` or Keras PyDataset of such. The first ``samples`` are copied when the callback is made.
            A dataset that shuffles draws anew in each pass and this is a pass of its own, so do not give the very
            dataset that the model is trained on.
        method: a method's name, a Composite, a list of these, or a dict: a method's name -> its hyperparameters, or a
            name of your own -> a function of the model that returns an analyzer. Default "lrp.epsilon_plus".
        target: what is explained: ``"label"``, the class that the labels say (an output of one unit has the class 0
            alone); else see :meth:`kxai.Analyzer.explain`, with arrays for all validation samples or for those
            explained. Default None, the class that the model predicts at the moment.
        freq: ``"epoch"`` (default), or a number of batches, >= 1, counted through the epochs of a ``fit``; if several
            are run in one step (``steps_per_execution``), after the step that reaches it. ``logs`` then hold the latest
            numbers.
        log_dir: folder, such as that of ``keras.callbacks.TensorBoard``; default None, nothing is written.
        max_images: samples in a picture, the first ones, >= 0; default 8. 0: no pictures.
        samples: samples that are explained, >= 1; default 64.
        metrics: of :mod:`kxai.metrics`; default None: residual, entropy, and rank correlation with the explanation
            before (in the first epoch: that of the weights it began with, if the model was built), and, if there are
            masks, relevance mass.
        masks: ``(samples, *sizes)`` of 0 and 1, what the metrics of localisation compare with; default None.
        images: for models that take prepared images: the images to show, ``(samples, height, width[, 1|3])``, for
            several inputs a dict of such by the input's name; default None, the inputs themselves.
        scale: bound of the colours, > 0, or a dict of bounds by method; default None, from the first picture.
        clip: percentile of the magnitudes that becomes the scale where none is given, (0, 100]; default 99.5.
        formats: ``"tensorboard"`` and ``"png"``, where pictures and numbers go; default both.
        batch_size: samples computed at once, >= 1; default 32.
        name: a word that begins the numbers' names and names the folder; default "explanation". Two of these callbacks
            in one training need two.
        on_error: ``"warn"`` (default): what fails is said in a :class:`kxai.KxaiWarning`, once per kind, and the
            training goes on; ``"raise"``: it stops.

    Raises:
        ArgumentError, InputError, TargetError, UnknownNameError: an argument is wrong, without effect, or does not fit
            another one; hyperparameters of methods are checked, too.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[ExplanationCallback((x, y))])
        >>> sorted(history.history)
        ['loss', 'val_explanation_entropy', 'val_explanation_rank_correlation', 'val_explanation_residual']
    """

    def __init__(
        self, validation_data: Any, method: Any = "lrp.epsilon_plus", target: Any = None, freq: str | int = "epoch",
        log_dir: Any = None, *, max_images: int = 8, samples: int = 64, metrics: Sequence[Metric] | None = None,
        masks: Any = None, images: Any = None, scale: float | Mapping[str, float] | None = None, clip: float = CLIP,
        formats: Sequence[str] = ("tensorboard", "png"), batch_size: int = 32, name: str = "explanation",
        on_error: str = "warn",
    ) -> None:  # fmt: skip
        super().__init__()
        check_integer("samples", samples)
        check_integer("batch_size", batch_size)
        check_integer("max_images", max_images, least=0)
        self._faults = Faults(on_error)
        self._binders = binders(method)
        self._every = arguments.batches(freq)
        self._samples = Samples.of(validation_data, samples)
        self._target = arguments.target(target, self._samples)
        self._masks = arguments.masks(masks, self._samples)
        self._metrics = arguments.metrics(metrics, self._masks)
        arguments.check_name(name)
        folder, own_clip = arguments.folder(log_dir), None if clip == CLIP else clip
        arguments.check_pictures(folder, formats, max_images, images=images, scale=scale, clip=own_clip)
        arguments.check_names(scale, self._binders)
        self._batch_size = batch_size
        self._pictures = Pictures(max_images, scale, clip)
        self._name = name
        self._journal = None if folder is None else Journal(folder / name, tuple(formats))
        self._images = arguments.images(images, self._samples)
        self._bound: Any = None  # the model that the analyzers are of
        self._analyzers: dict[str, Analyzer] = {}
        self._explanations: dict[str, Explanation] = {}
        self._numbers: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._done = self._before = 0
        self._fresh = True
        # Keras may call what runs per batch in another thread; with "epoch" there is nothing that runs.
        self.async_safe = self._every is None

    @property
    def analyzers(self) -> Mapping[str, Analyzer]:
        """The methods bound to the model, by name; empty before they are first used."""
        return MappingProxyType(self._analyzers)

    @property
    def explanations(self) -> Mapping[str, Explanation]:
        """The latest explanation of each method, by name."""
        return MappingProxyType(self._explanations)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins a run.

        Args:
            logs: not used.
        """
        self._faults.forget()
        self._explanations, self._numbers = {}, {}
        self._done = self._before = 0
        self._fresh = True
        self._close()  # what an interrupted run has left open

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Explains a built model for the first comparison: by now all callbacks have begun, and restored its weights.

        Args:
            epoch: number of the epoch, from 0.
            logs: not used.
        """
        fresh, self._fresh = self._fresh, False
        if fresh and self.model.built and any("other" in metric.needs for metric in self._metrics):
            for name in self._binders:
                with self._faults.guarded(f"Explaining with {name}"):
                    self._explanations[name] = self._explain(name)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Explains if as many batches have passed as ``freq`` says.

        Args:
            batch: number of the batch in its epoch.
            logs: receives the latest numbers.
        """
        if self._every is None:
            return
        done = self._before + batch + 1
        due = done // self._every > self._done // self._every
        self._done = done
        if due:
            self._look(done, f"batch {done}", f"batch-{done:06d}")
        self._tell(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Explains if ``freq`` is "epoch".

        Args:
            epoch: number of the epoch, from 0.
            logs: receives the latest numbers.
        """
        self._before = self._done
        if self._every is None:
            self._look(epoch, f"epoch {epoch + 1}", f"epoch-{epoch + 1:04d}")
        self._tell(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file.

        Args:
            logs: not used.
        """
        self._close()

    def __getstate__(self) -> dict[str, Any]:
        """A copy is not bound to a model."""
        return {**vars(self), "_model": None, "_bound": None, "_analyzers": {}}

    def _close(self) -> None:
        if self._journal is not None:
            with self._faults.guarded("Closing the event file"):
                self._journal.close()

    def _tell(self, logs: dict[str, Any] | None) -> None:
        # Keras gives all callbacks one dict, in the order of their list; History is the last.
        if logs is None:
            return
        with self._faults.guarded("Telling the numbers"):
            # What another of these callbacks has told is not overwritten; a dict that is used again holds our own.
            own = self._told
            taken = [k for k, number in self._numbers.items() if logs.get(k, number) not in (number, own.get(k))]
            if taken:
                raise ArgumentError(
                    "logs hold numbers of these names already.",
                    expected="one name per callback: ExplanationCallback(..., name=...)",
                    received=", ".join(taken),
                )
            logs.update(self._numbers)
            self._told = dict(self._numbers)

    def _look(self, step: int, when: str, file: str) -> None:
        """Explain, measure, draw and write."""
        self._numbers = {}
        scalars: dict[str, float] = {}
        for name in self._binders:
            with self._faults.guarded(f"Explaining with {name}"):
                before = self._explanations.pop(name, None)
                explanation = self._explanations[name] = self._explain(name)
                scalars.update(self._measure(name, explanation, before))
                if self._journal is not None and self._pictures.count:
                    self._draw(self._journal, name, explanation, step, when, file)
        if self._journal is not None:
            with self._faults.guarded("Writing numbers"):
                self._journal.numbers(scalars, step)

    def _explain(self, name: str) -> Explanation:
        if self._bound is not self.model:
            self._bound = self.model
            self._analyzers.clear()
            self._pictures.forget()
        if name not in self._analyzers:
            self._analyzers[name] = self._binders[name](self.model)
        analyzer = self._analyzers[name]
        return analyzer.explain(self._samples.inputs, self._target, self._batch_size, verbose=False)

    def _measure(self, name: str, explanation: Explanation, before: Explanation | None) -> dict[str, float]:
        """Puts numbers aside for ``logs``; returns those for TensorBoard."""
        scalars = {}
        for metric in self._metrics:
            given = {need: {"masks": self._masks, "other": before}[need] for need in metric.needs}
            if any(value is None for value in given.values()):
                continue  # there is no explanation before the first
            with self._faults.guarded(f"Measuring {metric.name} of {name}"):
                measured = metric(explanation, **given)
                if measured.undefined:
                    which = f"{measured.undefined} of {len(measured)} samples"
                    text = f"{name}: {which} have no {metric.name} and are left out of its mean."
                    self._faults.say((metric.name, name), text)
                    scalars[f"{name}/{metric.name}_undefined"] = float(measured.undefined)
                if measured.undefined < len(measured):
                    scalars[f"{name}/{metric.name}"] = measured.mean
                    self._numbers[self._key(name, metric)] = measured.mean
        return scalars

    def _key(self, name: str, metric: Metric) -> str:
        which = f"{word(name)}_" if len(self._binders) > 1 else ""
        return f"val_{self._name}_{which}{metric.name}"

    def _draw(
        self, journal: Journal, name: str, explanation: Explanation, step: int, when: str, file: str
    ) -> None:  # fmt: skip
        with self._faults.guarded(f"Drawing {name}"):
            for key, panel in self._panels(name, explanation):
                try:
                    png, note = self._pictures.draw(name, key, when, explanation, panel)
                except Undrawable as reason:
                    self._faults.say(
                        (name, key), f"{name}: no picture of {key or 'the input'}, numbers alone: {reason}."
                    )
                else:
                    journal.picture(png, name, key, step, file, note)

    def _panels(self, name: str, explanation: Explanation) -> list[tuple[str, Panel]]:
        """The model's inputs, by name where there are several."""
        inputs = self._analyzers[name].inputs(self._samples.inputs)
        relevance = tree.flatten(explanation.relevance)
        images = arguments.by_input(self._images, list(inputs))
        return [
            (key if len(inputs) > 1 else "", Panel(part, values, images.get(key)))
            for (key, values), part in zip(inputs.items(), relevance, strict=True)
        ]
