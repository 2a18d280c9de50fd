"""What the callback writes and tells is right, and the training does not notice it."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import random
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import kxai
from kxai import backend, metrics, plots
from kxai.callbacks import ExplanationCallback
from kxai.errors import ArgumentError, InputError, KxaiError, KxaiWarning, TargetError, UnknownNameError

RANDOM = np.random.default_rng(0)
X = RANDOM.random((24, 8, 8, 1)).astype("float32")
Y = np.arange(24) % 3
# Bright samples of class 0, dark ones of class 2: something to learn.
X[Y == 2] *= 0.3
MASKS = np.broadcast_to(np.arange(8) < 4, (24, 8, 8))


def cnn(**compiled):
    """A convolution, batch normalisation and dropout, with the weights of one seed."""
    keras.utils.set_random_seed(3)
    stack = [
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.5),
        layers.ReLU(),
        layers.Dropout(0.3),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(3, "softmax", dtype="float32"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack], name="cnn")
    model.compile("adam", "sparse_categorical_crossentropy", **compiled)
    return model


def fit(model, *callbacks, epochs=3, x=X, y=Y, **options):
    return model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def epochs(model, callback, count=1):
    """Logs after the epochs of a training in which nothing is learned: only the callback does something."""
    callbacks = keras.callbacks.CallbackList([callback], model=model)
    callbacks.on_train_begin()
    history = []
    for epoch in range(count):
        callback.on_epoch_end(epoch, logs := {})
        history.append(logs)
    callbacks.on_train_end()
    return history


def mlp():
    """Two dense layers, no unit of which is ever quite silent."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    model.compile("sgd", "mse")
    return model


TABLE = RANDOM.normal(size=(12, 5)).astype("float32"), RANDOM.normal(size=(12, 3)).astype("float32")


def events(folder):
    """What TensorBoard reads from a folder's event files."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    return read.Reload()


def scalars(read, tag):
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in read.Tensors(tag)]


class Spy(keras.callbacks.Callback):
    """What stands in logs at the end of epochs, and what explanations of the weights of the moment would be."""

    def __init__(self, callback):
        super().__init__()
        self.callback, self.logs, self.seen, self.expected = callback, [], [], []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        self.seen.append(self.callback.explanations["lrp.epsilon_plus"])
        self.expected.append(kxai.LRP(self.model).explain(X[:10], Y[:10]))


# A training with everything


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    model = cnn(metrics=["accuracy"])
    callback = ExplanationCallback((X, Y), target="label", log_dir=folder, masks=MASKS, samples=10, max_images=3)
    stopping = keras.callbacks.EarlyStopping("val_explanation_entropy", mode="min", patience=9)
    best = folder / "best-{val_explanation_residual:.2f}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(best, "val_explanation_rank_correlation", mode="max")
    spy = Spy(callback)
    before = backend.trace_count()
    history = fit(model, callback, stopping, checkpoint)
    traces = backend.trace_count() - before
    spied = fit(cnn(), callback, spy)
    return {
        "folder": folder, "model": model, "callback": callback, "stopping": stopping, "history": history.history,
        "traces": traces, "spy": spy, "spied": spied.history,
    }  # fmt: skip


def test_one_trace_in_a_whole_fit(trained):
    assert trained["traces"] == 1
    assert trained["callback"].analyzers["lrp.epsilon_plus"].traces == 1


def test_explanations_follow_weights_and_moving_statistics(trained):
    for seen, expected in zip(trained["spy"].seen, trained["spy"].expected, strict=True):
        # The same program on the same weights.
        np.testing.assert_array_equal(seen.relevance, expected.relevance)
        np.testing.assert_array_equal(seen.score, expected.score)
    first, *_, last = trained["spy"].seen
    assert np.abs(first.relevance - last.relevance).max() > 1e-3
    assert len(first) == 10


def test_history_holds_the_means_of_the_metrics(trained):
    names = ("residual", "entropy", "rank_correlation", "relevance_mass")
    seen = trained["spy"].seen
    for epoch, explanation in enumerate(seen):
        expected = {
            "residual": metrics.Residual()(explanation).mean,
            "entropy": metrics.Entropy()(explanation).mean,
            "relevance_mass": metrics.RelevanceMass()(explanation, masks=MASKS[:10]).mean,
        }
        before = seen[epoch - 1] if epoch else kxai.LRP(cnn()).explain(X[:10], Y[:10])
        expected["rank_correlation"] = metrics.RankCorrelation()(explanation, other=before).mean
        for name in names:
            assert trained["spy"].logs[epoch][f"val_explanation_{name}"] == pytest.approx(expected[name], rel=1e-6)
            assert (
                trained["spied"][f"val_explanation_{name}"][epoch]
                == trained["spy"].logs[epoch][f"val_explanation_{name}"]
            )
    assert {name for name in trained["history"] if "explanation" in name} == {f"val_explanation_{n}" for n in names}


def test_later_callbacks_monitor_the_numbers(trained):
    assert trained["stopping"].best == min(trained["history"]["val_explanation_entropy"])
    for value in trained["history"]["val_explanation_residual"]:
        assert (trained["folder"] / f"best-{value:.2f}.keras").exists()


def test_early_stopping_stops():
    stopping = keras.callbacks.EarlyStopping("val_explanation_entropy", mode="min", min_delta=1e6, patience=1)
    history = fit(cnn(), ExplanationCallback(X), stopping, epochs=9)
    assert len(history.history["val_explanation_entropy"]) == 2


def test_tensorboard_reads_the_numbers(trained):
    # Two trainings wrote into the folder, one file each; the first is read.
    first, second = sorted((trained["folder"] / "explanation").glob("events*"))
    for file, history in ((first, trained["history"]), (second, trained["spied"])):
        read = events(file)
        for name in ("residual", "entropy", "rank_correlation", "relevance_mass"):
            found = scalars(read, f"lrp.epsilon_plus/{name}")
            assert [step for step, _ in found] == [0, 1, 2]
            np.testing.assert_array_equal([value for _, value in found], np.float32(history[f"val_explanation_{name}"]))
            metadata = read.SummaryMetadata(f"lrp.epsilon_plus/{name}")
            assert metadata.plugin_data.plugin_name == "scalars"


def test_pictures_are_what_was_explained_on_one_scale(trained):
    # The files are of the second training, whose explanations the spy has kept.
    folder = trained["folder"] / "explanation"
    files = sorted((folder / "lrp_epsilon_plus").iterdir())
    assert [file.name for file in files] == ["epoch-0001.png", "epoch-0002.png", "epoch-0003.png"]
    read = events(sorted(folder.glob("events*"))[1])
    entries = read.Tensors("lrp.epsilon_plus/relevance")
    seen = trained["spy"].seen
    bound = plots.limit(seen[0].relevance.sum(axis=-1, dtype=np.float64))
    note = f"scale ±{bound:.3g}, the 99.5th percentile of |relevance| in epoch 1, for the run"
    assert read.SummaryMetadata("lrp.epsilon_plus/relevance").plugin_data.plugin_name == "images"
    assert read.SummaryMetadata("lrp.epsilon_plus/relevance").summary_description == note
    for epoch, (file, entry, explanation) in enumerate(zip(files, entries, seen, strict=True)):
        width, height, png = entry.tensor_proto.string_val
        assert entry.step == epoch
        assert png == file.read_bytes()
        picture = Image.open(io.BytesIO(png))
        assert picture.size == (int(width), int(height))
        titles = [f"target {Y[i]}\nscore {explanation.score[i]:.4g}" for i in range(3)]
        expected = io.BytesIO()
        heading, shown = f"lrp.epsilon_plus, epoch {epoch + 1}", f"{note}; input shown from 0 to 1"
        heatmap = explanation[:3].relevance.sum(axis=-1, dtype=np.float64)
        plots.sheet(heatmap, X[:3], titles, heading, bound=bound, note=shown).savefig(expected, format="png")
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(expected)))


def test_event_files_need_no_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    fit(cnn(), ExplanationCallback(X, log_dir=tmp_path, formats=["tensorboard"]), epochs=1)
    (file,) = (tmp_path / "explanation").iterdir()
    assert file.stat().st_size > 10_000


# The training does not notice it


def state(callbacks, freq, steps, policy):
    """Everything that a training leaves behind."""
    # Older versions of Keras keep the generator behind keras.random when a seed is set.
    keras.utils.clear_session()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = cnn(steps_per_execution=steps, metrics=["accuracy"])
    finally:
        keras.config.set_dtype_policy(before)
    history = fit(model, *callbacks(freq), validation_data=(X[:8], Y[:8]))
    variables = [np.asarray(v) for v in [*model.variables, *model.optimizer.variables]]
    draws = [random.random(), np.random.random(), float(tf.random.uniform(())), float(keras.random.uniform(()))]  # noqa: NPY002
    return variables, draws, {k: v for k, v in history.history.items() if "explanation" not in k}


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("freq", "steps", "policy"),
    [
        ("epoch", 1, "float32"),
        pytest.param(2, 3, "float32", marks=slow),
        pytest.param("epoch", 1, "mixed_float16", marks=slow),
    ],
)
def test_training_is_the_same_with_and_without(freq, steps, policy, tmp_path):
    def with_callback(freq):
        methods = {"lrp.epsilon_plus": {}, "smoothgrad": {"num_samples": 2}, "grad_cam": {}}
        return [ExplanationCallback((X, Y), methods, freq=freq, log_dir=tmp_path, samples=4, on_error="raise")]

    plain, explained = state(lambda freq: [], freq, steps, policy), state(with_callback, freq, steps, policy)
    assert len(plain[0]) == len(explained[0])
    for one, other in zip(plain[0], explained[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert plain[1:] == explained[1:]
    assert (tmp_path / "explanation" / "smoothgrad").exists()


def test_compiled_training_is_kept():
    model = cnn()
    fit(model, epochs=1)
    before = model.train_function, model.optimizer, [id(v) for v in (*model.variables, *model.optimizer.variables)]
    fit(model, ExplanationCallback(X), epochs=1)
    assert model.train_function is before[0]
    assert before[1:] == (model.optimizer, [id(v) for v in (*model.variables, *model.optimizer.variables)])


def test_data_is_copied_once():
    inputs, labels = X.copy(), Y.copy()
    callback = ExplanationCallback((inputs, labels), target="label", samples=4)
    inputs[:], labels[:] = np.nan, 99
    epochs(cnn(), callback)
    np.testing.assert_array_equal(callback.explanations["lrp.epsilon_plus"].target, Y[:4])


# When


def written(folder):
    return sorted(path.stem for path in (folder / "explanation").rglob("*.png"))


def test_every_few_batches(tmp_path):
    # Six batches in an epoch.
    callback = ExplanationCallback(X, freq=4, log_dir=tmp_path, formats=["png"], samples=4)
    history = fit(cnn(), callback, epochs=2)
    assert written(tmp_path) == ["batch-000004", "batch-000008", "batch-000012"]
    assert len(history.history["val_explanation_entropy"]) == 2


def test_every_few_batches_of_several_in_one_step(tmp_path):
    callback = ExplanationCallback(X, freq=4, log_dir=tmp_path, formats=["png"], samples=4)
    fit(cnn(steps_per_execution=3), callback, epochs=2)
    # Steps end after 3, 6, 9 and 12 batches; 4, 8 and 12 are reached in the second, third and fourth.
    assert written(tmp_path) == ["batch-000006", "batch-000009", "batch-000012"]


def test_less_than_one_per_epoch_keeps_the_latest_numbers(tmp_path):
    history = fit(cnn(), ExplanationCallback(X, freq=9, samples=4), epochs=4).history
    # Explained after batches 9 and 18, in the second and at the end of the third epoch of six batches.
    one, two, three = history["val_explanation_entropy"]
    assert one != two == three
    assert len(history["loss"]) == 4


def test_batches_of_training_may_be_dispatched_apart_only_if_nothing_is_done_there():
    assert ExplanationCallback(X).async_safe
    assert not ExplanationCallback(X, freq=1).async_safe


# Models and data of every kind


def test_unbuilt_subclassed_model():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = layers.Dense(4, "tanh"), layers.Dense(3)

        def call(self, x):
            return self.out(self.hidden(x))

    model = Net()
    model.compile("sgd", "mse")
    callback = ExplanationCallback(TABLE, "lrp.epsilon")
    history = fit(model, callback, x=TABLE[0], y=TABLE[1]).history
    assert callback.analyzers["lrp.epsilon"].traces == 1
    assert len(history["val_explanation_residual"]) == 3
    # Before the first epoch there was nothing to compare with.
    assert len(history["val_explanation_rank_correlation"]) == 2


def test_several_inputs_by_name(tmp_path):
    image, table = keras.Input((6, 6, 3), name="image"), keras.Input((4,), name="table")
    joined = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(image)), table])
    model = keras.Model({"table": table, "image": image}, layers.Dense(2)(joined))
    model.compile("sgd", "mse")
    data = {"table": RANDOM.normal(size=(8, 4)), "image": RANDOM.normal(size=(8, 6, 6, 3))}
    callback = ExplanationCallback(
        data, ["gradient_x_input", "lrp.epsilon"], 1, log_dir=tmp_path, formats=["png"], on_error="raise"
    )
    history = epochs(model, callback)
    expected = kxai.LRP(model, "epsilon").explain(data, 1)
    np.testing.assert_array_equal(callback.explanations["lrp.epsilon"].relevance["image"], expected.relevance["image"])
    assert written(tmp_path) == ["image-epoch-0001"] * 2 + ["table-epoch-0001"] * 2
    entropy = metrics.Entropy()(expected).mean
    assert history[0]["val_explanation_lrp_epsilon_entropy"] == pytest.approx(entropy, rel=1e-6)
    assert "val_explanation_gradient_x_input_residual" in history[0]


@slow
def test_eager_and_distributed_training():
    fit(cnn(run_eagerly=True), ExplanationCallback(X, on_error="raise"), epochs=1)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = cnn()
    callback = ExplanationCallback(X, on_error="raise")
    history = fit(model, callback, epochs=2).history
    assert len(history["val_explanation_residual"]) == 2
    assert callback.analyzers["lrp.epsilon_plus"].traces == 1


@pytest.mark.parametrize(
    "kind", ["dataset", "dataset of dicts", "PyDataset", "endless PyDataset", "inputs alone", "tensors", "bfloat16"]
)
def test_data_in_every_form(kind):
    x, y = TABLE

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return x[4 * index : 4 * index + 4], y[4 * index : 4 * index + 4]

    class Endless(Batches):
        num_batches = None

    if kind == "bfloat16":
        x = np.float32(np.round(8 * x) / 8)  # what has few digits stays as it is
    data = {
        "endless PyDataset": Endless(),
        "bfloat16": tf.cast(x, tf.bfloat16),
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(5),
        "dataset of dicts": tf.data.Dataset.from_tensor_slices({"x": x}).batch(5),
        "PyDataset": Batches(),
        "inputs alone": x,
        "tensors": (tf.constant(x), tf.constant(y)),
    }[kind]
    inputs = keras.Input((5,), name="x")
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    callback = ExplanationCallback(data, "gradient_x_input", samples=7, on_error="raise")
    epochs(model, callback)
    expected = kxai.explain(model, x[:7], "gradient_x_input")
    np.testing.assert_array_equal(callback.explanations["gradient_x_input"].relevance, expected.relevance)


def test_tables_sequences_and_tokens_are_drawn(tmp_path):
    steps, ids = keras.Input((6, 4), name="steps"), keras.Input((7,), dtype="int32", name="ids")
    words = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(ids))
    both = layers.Concatenate()([layers.Flatten()(steps), words])
    model = keras.Model([steps, ids], layers.Dense(1)(both))
    model.compile("sgd", "mse")
    data = [RANDOM.normal(size=(5, 6, 4)), RANDOM.integers(0, 9, (5, 7))]
    drawn = []
    for name in ("strip", "bars"):
        function = getattr(plots, name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plots, name, lambda *a, f=function, n=name, **k: drawn.append((n, k["bound"])) or f(*a, **k))
            callback = ExplanationCallback(data, "gradient_x_input", log_dir=tmp_path, scale=0.5, on_error="raise")
            epochs(model, callback)
    assert drawn == [("strip", 0.5)] * 2  # steps, and tokens, which are integers
    model = mlp()
    epochs(model, ExplanationCallback(TABLE, log_dir=tmp_path, on_error="raise"))
    assert {"steps-epoch-0001", "ids-epoch-0001", "epoch-0001"} == set(written(tmp_path))


def test_images_of_a_table_are_refused(tmp_path):
    callback = ExplanationCallback(TABLE, log_dir=tmp_path, images=X[:12], on_error="raise")
    with pytest.raises(ArgumentError, match="images have no effect: the input is no image"):
        epochs(mlp(), callback)


def test_volumes_have_numbers_alone(tmp_path):
    model = keras.Sequential([keras.Input((3, 3, 3, 1)), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    x = RANDOM.random((4, 3, 3, 3, 1))
    callback = ExplanationCallback(x, "gradient", log_dir=tmp_path, on_error="raise")
    with pytest.warns(KxaiWarning, match=r"gradient: no picture of the input, numbers alone: .*\(3, 3, 3, 1\)") as told:
        history = fit(model, callback, x=x, y=np.ones((4, 2))).history
    assert len(told) == 1
    assert len(history["val_explanation_entropy"]) == 3
    assert written(tmp_path) == []


def test_prepared_images_are_shown_from_lowest_to_highest(tmp_path, monkeypatch):
    notes, function = [], plots.sheet
    monkeypatch.setattr(plots, "sheet", lambda *a, **k: notes.append((a[1], k["note"])) or function(*a, **k))
    x = 4 * X - 2
    epochs(cnn(), ExplanationCallback(x, log_dir=tmp_path, on_error="raise"))
    low, high = x.min(), x.max()
    assert notes[0][1].endswith(f"; input shown from {low:.3g} to {high:.3g}")
    np.testing.assert_allclose(notes[0][0], ((x - low) / (high - low))[:8], atol=1e-6)  # rounding of float32
    pictures = RANDOM.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    epochs(cnn(), ExplanationCallback(x, log_dir=tmp_path, images=pictures, on_error="raise"))
    np.testing.assert_array_equal(notes[1][0], pictures[:8])
    assert notes[1][1].endswith("; input shown from 0 to 255")


def test_scales_that_are_given(tmp_path, monkeypatch):
    seen, function = [], plots.sheet
    monkeypatch.setattr(plots, "sheet", lambda *a, **k: seen.append((k["bound"], k["note"])) or function(*a, **k))
    callback = ExplanationCallback(
        X, ["gradient", "lrp.epsilon"], log_dir=tmp_path, scale={"gradient": 0.25}, clip=50.0
    )
    epochs(cnn(), callback, 2)
    (one, first), (two, second), *later = seen
    assert (one, first.split(";")[0]) == (0.25, "scale ±0.25, given")
    assert "the 50th percentile of |relevance| in epoch 1" in second
    assert [bound for bound, _ in later] == [one, two]


def test_no_relevance_sets_no_scale(tmp_path, monkeypatch):
    seen, function = [], plots.sheet
    monkeypatch.setattr(plots, "sheet", lambda *a, **k: seen.append(k["note"]) or function(*a, **k))
    model = cnn()
    model.layers[-1].set_weights([np.zeros((36, 3)), np.zeros(3)])
    callback = ExplanationCallback(X, "gradient", log_dir=tmp_path, metrics=[metrics.Entropy()])
    with pytest.warns(KxaiWarning, match="gradient: 24 of 24 samples have no entropy and are left out of its mean"):
        history = epochs(model, callback)
    assert seen[0].startswith("relevance is 0 throughout")
    assert history == [{}]


def test_empty_masks_are_counted(tmp_path):
    masks = MASKS.copy()
    masks[:2] = False
    callback = ExplanationCallback(X, log_dir=tmp_path, masks=masks, max_images=0, samples=5)
    with pytest.warns(KxaiWarning, match="2 of 5 samples have no relevance_mass") as told:
        history = fit(cnn(), callback).history
    assert len(told) == 1
    expected = metrics.RelevanceMass()(callback.explanations["lrp.epsilon_plus"], masks=masks[:5]).mean
    assert history["val_explanation_relevance_mass"][-1] == expected
    counts = scalars(events(tmp_path / "explanation"), "lrp.epsilon_plus/relevance_mass_undefined")
    assert counts == [(0, 2.0), (1, 2.0), (2, 2.0)]
    assert written(tmp_path) == []


# Methods and targets


def test_methods_in_every_form():
    mine = kxai.preset("epsilon").but((layers.Dense, kxai.rules.ZPlus()))
    methods = {
        "lrp.epsilon": {"epsilon": 0.5},
        "mine": lambda model: kxai.LRP(model, mine),
        "rebound": kxai.LRP(mlp(), "z_plus").bind,
    }
    model = mlp()
    callback = ExplanationCallback(TABLE, methods, on_error="raise")
    history = epochs(model, callback)
    assert {name: analyzer.model for name, analyzer in callback.analyzers.items()} == dict.fromkeys(methods, model)
    expected = kxai.LRP(model, "epsilon", epsilon=0.5).explain(TABLE[0])
    np.testing.assert_array_equal(callback.explanations["lrp.epsilon"].relevance, expected.relevance)
    assert "val_explanation_rebound_entropy" in history[0]
    one = ExplanationCallback(TABLE, mine, on_error="raise")
    epochs(model, one)
    assert list(one.analyzers) == [one.analyzers[f"lrp ({mine.name})"].name]


@pytest.mark.parametrize(
    ("target", "labels", "expected"),
    [
        ("label", [2, 0, 1, 1], [2, 0, 1, 1]),
        ("label", [[2.0], [0.0], [1.0], [1.0]], [2, 0, 1, 1]),
        ("label", np.eye(3)[[2, 0, 1, 1]], [2, 0, 1, 1]),
        (1, None, [1, 1, 1, 1]),
        ([0, 1, 2, 0], None, [0, 1, 2, 0]),
        (np.array([0, 1, 2, 0] * 3), None, [0, 1, 2, 0]),
    ],
)
def test_targets(target, labels, expected):
    x, _ = TABLE
    data = x if labels is None else (x, np.concatenate([np.asarray(labels)] * 3))
    callback = ExplanationCallback(data, "gradient", target, samples=4, on_error="raise")
    epochs(mlp(), callback)
    assert callback.explanations["gradient"].target.tolist() == expected


def test_labels_of_several_outputs():
    x = keras.Input((5,))
    model = keras.Model(x, {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(2, name="b")(x)})
    model.compile("sgd", {"a": "mse", "b": "mse"})
    labels = {"a": np.arange(12) % 3, "b": np.arange(12) % 2}
    callback = ExplanationCallback((TABLE[0], labels), "gradient", "label", samples=4, on_error="raise")
    epochs(model, callback)
    found = callback.explanations["gradient"].target
    assert {name: part.tolist() for name, part in found.items()} == {"a": [0, 1, 2, 0], "b": [0, 1, 0, 1]}


def test_labels_of_one_of_several_outputs():
    x = keras.Input((5,))
    model = keras.Model(x, {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(2, name="b")(x)})
    labels = {"a": np.arange(12) % 3, "b": np.ones((12, 2)) / 2}
    callback = ExplanationCallback((TABLE[0], labels), "gradient", {"a": "label"}, samples=4, on_error="raise")
    epochs(model, callback)
    assert callback.explanations["gradient"].target["a"].tolist() == [0, 1, 2, 0]


def test_targets_as_tensors():
    callback = ExplanationCallback(TABLE, "gradient", tf.constant([0, 1, 2, 0] * 3), samples=4, on_error="raise")
    epochs(mlp(), callback)
    assert callback.explanations["gradient"].target.tolist() == [0, 1, 2, 0]


def test_rows_of_weights():
    weights = RANDOM.normal(size=(12, 3))
    callback = ExplanationCallback(TABLE, "gradient", weights, samples=4, on_error="raise")
    epochs(mlp(), callback)
    np.testing.assert_allclose(callback.explanations["gradient"].target, weights[:4], rtol=1e-6)  # float32


# Faults


class Failing(metrics.Metric):
    """A metric that cannot."""

    name = "failing"

    def _measured(self, explanation, **given):
        raise ZeroDivisionError("by nothing")


def test_a_fault_warns_once_and_the_training_goes_on(tmp_path):
    (tmp_path / "explanation").write_text("a file where a folder should be")
    callback = ExplanationCallback(
        TABLE, ["gradient", "grad_cam"], log_dir=tmp_path, metrics=[metrics.Entropy(), Failing()]
    )
    with pytest.warns(KxaiWarning) as told:
        history = fit(mlp(), callback, x=TABLE[0], y=TABLE[1]).history
    assert len(history["loss"]) == len(history["val_explanation_gradient_entropy"]) == 3
    texts = [str(one.message) for one in told if one.category is KxaiWarning]
    begins = [text.split(".")[0] for text in texts]
    assert sorted(begins) == [
        "Drawing gradient failed; training goes on",
        "Explaining with grad_cam failed; training goes on",
        "Measuring failing of gradient failed; training goes on",
        "Writing numbers failed; training goes on",
    ]
    assert "ZeroDivisionError: by nothing" in "".join(texts)
    # A second training says it again.
    with pytest.warns(KxaiWarning) as again:
        fit(mlp(), callback, x=TABLE[0], y=TABLE[1], epochs=1)
    assert sorted(str(one.message).split(".")[0] for one in again) == sorted(begins)


def test_warnings_that_are_errors_are_raised():
    # The tests' own setting makes errors of them.
    with pytest.raises(KxaiWarning, match=r"^Measuring failing of gradient failed"):
        fit(mlp(), ExplanationCallback(TABLE, "gradient", metrics=[Failing()]), x=TABLE[0], y=TABLE[1])


def test_a_fault_raises_if_wanted():
    callback = ExplanationCallback(TABLE, metrics=[Failing()], on_error="raise")
    with pytest.raises(ZeroDivisionError, match="by nothing"):
        fit(mlp(), callback, x=TABLE[0], y=TABLE[1])
    with pytest.raises(KxaiError):
        fit(mlp(), ExplanationCallback(TABLE, "grad_cam", on_error="raise"), x=TABLE[0], y=TABLE[1])


def test_diverging_weights_warn():
    model = mlp()
    model.layers[0].set_weights([np.full((5, 4), np.nan), np.zeros(4)])
    with pytest.warns(KxaiWarning, match="Explaining with lrp.epsilon_plus failed.*NumericalError") as told:
        history = fit(model, ExplanationCallback(TABLE), x=TABLE[0], y=TABLE[1]).history
    assert len(told) == 1
    assert len(history["loss"]) == 3


@pytest.mark.parametrize(
    ("images", "text"),
    [(np.zeros((24, 4, 4)), "images do not fit"), ({"other": X}, "Unknown input in images 'other'")],
)
def test_images_that_do_not_fit_the_model(images, text, tmp_path):
    callback = ExplanationCallback(X, "gradient", log_dir=tmp_path, images=images, on_error="raise")
    with pytest.raises(KxaiError, match=text):
        epochs(cnn(), callback)


# Its life


class Stop(keras.callbacks.Callback):
    """Interrupts a training at the beginning of its second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_weights_that_are_restored_are_what_is_compared_with(tmp_path):
    model = mlp()
    with pytest.raises(KeyboardInterrupt):
        fit(model, keras.callbacks.BackupAndRestore(tmp_path), Stop(), x=TABLE[0], y=TABLE[1])
    restored = kxai.LRP(model).explain(TABLE[0])
    # Other weights than those that are restored after this callback has begun.
    model.set_weights([RANDOM.normal(size=weights.shape) for weights in model.get_weights()])
    callback = ExplanationCallback(TABLE)
    history = fit(model, callback, keras.callbacks.BackupAndRestore(tmp_path), x=TABLE[0], y=TABLE[1], epochs=2)
    expected = metrics.RankCorrelation()(callback.explanations["lrp.epsilon_plus"], other=restored).mean
    assert history.history["val_explanation_rank_correlation"] == [expected]


def test_an_interrupted_training_leaves_no_file_open_in_the_next(tmp_path):
    model, callback = mlp(), ExplanationCallback(TABLE, log_dir=tmp_path, max_images=0)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, Stop(), x=TABLE[0], y=TABLE[1])
    fit(model, callback, x=TABLE[0], y=TABLE[1], epochs=1)
    assert len(list((tmp_path / "explanation").glob("events*"))) == 2
    open_files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [file for file in open_files if str(tmp_path) in file]


def test_two_in_one_training(tmp_path):
    named = [
        ExplanationCallback(TABLE, "gradient", which, log_dir=tmp_path, name=f"class_{which}", on_error="raise")
        for which in (0, 1)
    ]
    history = fit(mlp(), *named, x=TABLE[0], y=TABLE[1], epochs=1).history
    entropies = [metrics.Entropy()(callback.explanations["gradient"]).mean for callback in named]
    assert [history[f"val_class_{which}_entropy"][0] for which in (0, 1)] == entropies
    assert {path.name for path in tmp_path.iterdir()} == {"class_0", "class_1"}
    nameless = [ExplanationCallback(TABLE, "gradient", which) for which in (0, 1)]
    with pytest.warns(
        KxaiWarning, match=r"Telling the numbers failed(.|\n)*name=(.|\n)*val_explanation_entropy"
    ) as told:
        history = fit(mlp(), *nameless, x=TABLE[0], y=TABLE[1]).history
    assert len(told) == 1
    assert history["val_explanation_entropy"][-1] == metrics.Entropy()(nameless[0].explanations["gradient"]).mean


def test_one_dict_for_all_epochs():
    callback, logs = ExplanationCallback(TABLE, "gradient", on_error="raise"), {}
    model = mlp()
    callback.set_model(model)
    for epoch in range(2):
        model.layers[0].kernel.assign(model.layers[0].kernel * 2)
        callback.on_epoch_end(epoch, logs)
        assert logs["val_explanation_entropy"] == metrics.Entropy()(callback.explanations["gradient"]).mean


def test_copies_of_a_used_callback_are_new(tmp_path):
    callback = ExplanationCallback(TABLE, log_dir=tmp_path)
    fit(mlp(), callback, x=TABLE[0], y=TABLE[1], epochs=1)
    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert made.analyzers == {}
        model = mlp()
        fit(model, made, x=TABLE[0], y=TABLE[1], epochs=1)
        assert made.analyzers["lrp.epsilon_plus"].model is model


def test_the_folder_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = ExplanationCallback(TABLE, log_dir="logs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    epochs(mlp(), callback)
    assert written(tmp_path / "logs") == ["epoch-0001"]


def test_pictures_are_written_as_a_whole(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(KxaiWarning, match="Drawing lrp.epsilon_plus failed.*No space left"):
        epochs(mlp(), ExplanationCallback(TABLE, log_dir=tmp_path, formats=["png"]))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_second_training_of_the_same_model_compiles_nothing(tmp_path):
    model, callback = cnn(), ExplanationCallback(X, log_dir=tmp_path)
    fit(model, callback, epochs=1)
    analyzer, before = callback.analyzers["lrp.epsilon_plus"], backend.trace_count()
    fit(model, callback, epochs=2, initial_epoch=1)
    assert backend.trace_count() == before
    assert callback.analyzers["lrp.epsilon_plus"] is analyzer
    assert written(tmp_path) == ["epoch-0001", "epoch-0002"]


def test_a_training_of_another_model():
    callback = ExplanationCallback(X)
    for model in (cnn(), cnn()):
        fit(model, callback, epochs=1)
        assert callback.analyzers["lrp.epsilon_plus"].model is model
        assert callback.analyzers["lrp.epsilon_plus"].traces == 1


def test_an_analyzer_of_something_else_is_kept():
    other, made = mlp(), []

    def teacher(model):
        made.append(model)
        return kxai.Gradient(other)

    callback = ExplanationCallback(TABLE, {"teacher": teacher, "gradient": {}}, on_error="raise")
    model = mlp()
    assert epochs(model, callback, 3)[-1]["val_explanation_teacher_rank_correlation"] == 1.0
    assert made == [model]
    assert callback.analyzers["teacher"].traces == callback.analyzers["gradient"].traces == 1


def test_nothing_keeps_the_model(tmp_path):
    model = cnn()
    callback = ExplanationCallback(X, ["lrp.epsilon_plus", "grad_cam"], log_dir=tmp_path)
    fit(model, callback, epochs=1)
    left = weakref.ref(model)
    del model, callback
    gc.collect()
    assert left() is None


def test_a_callback_can_be_copied_before_it_is_used():
    callback = copy.deepcopy(ExplanationCallback(X))
    epochs(cnn(), callback)
    assert len(callback.explanations["lrp.epsilon_plus"]) == 24


def test_a_training_loop_of_ones_own(tmp_path):
    model = cnn()
    callback = ExplanationCallback(X, log_dir=tmp_path)
    callbacks = keras.callbacks.CallbackList([callback], model=model)
    callbacks.on_train_begin()
    for epoch in range(2):
        for batch in range(0, 24, 8):
            model.train_on_batch(X[batch : batch + 8], Y[batch : batch + 8])
            callbacks.on_train_batch_end(batch // 8)
        callbacks.on_epoch_end(epoch)
    callbacks.on_train_end()
    callback.on_epoch_end(2, None)
    assert written(tmp_path) == ["epoch-0001", "epoch-0002", "epoch-0003"]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"method": "lrp.epsilom"}, UnknownNameError, "Unknown method 'lrp.epsilom'"),
        ({"method": []}, ArgumentError, "There is no method"),
        ({"method": 3}, ArgumentError, "method names no methods"),
        ({"method": {"lrp.epsilon": {"epsilon": "big"}}}, ArgumentError, "epsilon is out of range"),
        ({"method": {"gradient": {"steps": 3}}}, ArgumentError, "does not take steps"),
        ({"method": {"gradient": 3}}, ArgumentError, "neither hyperparameters nor a function"),
        ({"method": ["lrp.epsilon", "lrp.epsilon"]}, ArgumentError, "same name in logs"),
        ({"freq": 0}, ArgumentError, 'freq is out of range(.|\n)*an integer >= 1 or "epoch"(.|\n)*0'),
        ({"freq": "batch"}, ArgumentError, "freq is out of range"),
        ({"freq": True}, ArgumentError, "freq is out of range"),
        ({"samples": 0}, ArgumentError, "samples is out of range"),
        ({"batch_size": 1.5}, ArgumentError, "batch_size is out of range"),
        ({"max_images": -1}, ArgumentError, "max_images is out of range(.|\n)*>= 0"),
        ({"on_error": "ignore"}, ArgumentError, "on_error is out of range(.|\n)*'warn', 'raise'"),
        ({"target": "label"}, TargetError, "There are no labels"),
        ({"target": [0, 1]}, InputError, r"target has not one entry per sample(.|\n)*24(.|\n)*2"),
        ({"target": [[0], [0, 1]]}, TargetError, "rows of different lengths"),
        ({"masks": MASKS[:3]}, InputError, "masks has not one entry per sample"),
        ({"masks": 2.0 * MASKS}, ArgumentError, "Masks say which positions"),
        ({"masks": MASKS, "metrics": [metrics.Entropy()]}, ArgumentError, "No metric needs masks"),
        ({"metrics": [metrics.RelevanceMass()]}, ArgumentError, "A metric needs masks"),
        ({"metrics": ["entropy"]}, ArgumentError, "metrics are not metrics"),
        ({"metrics": [metrics.Residual(), metrics.Residual(1e-6)]}, ArgumentError, "Two metrics have one name"),
        ({"formats": ["png"]}, ArgumentError, "formats has no effect"),
        ({"formats": ["jpg"], "log_dir": "logs"}, ArgumentError, "formats is out of range"),
        ({"formats": "png", "log_dir": "logs"}, ArgumentError, "formats is out of range(.|\n)*in a list"),
        ({"scale": 1.0}, ArgumentError, "scale has no effect"),
        ({"images": X, "log_dir": "logs", "max_images": 0}, ArgumentError, "images has no effect"),
        ({"scale": 0.0, "log_dir": "logs"}, ArgumentError, "scale is out of range(.|\n)*0.0"),
        ({"scale": "wide", "log_dir": "logs"}, ArgumentError, "scale is out of range(.|\n)*'wide'"),
        ({"scale": {"gradient": 1.0}, "log_dir": "logs"}, UnknownNameError, "Unknown method in scale 'gradient'"),
        ({"clip": 0.0, "log_dir": "logs"}, ArgumentError, "clip is out of range"),
        ({"clip": 90.0}, ArgumentError, "clip has no effect: there are no pictures"),
        ({"clip": 90.0, "scale": 1.0, "log_dir": "logs"}, ArgumentError, "clip has no effect: the scale is given"),
        ({"log_dir": "gs://bucket/logs"}, ArgumentError, "log_dir is no folder of this machine"),
        ({"log_dir": 3}, ArgumentError, "log_dir is no folder of this machine"),
        ({"log_dir": "logs", "formats": ["png"], "max_images": 0}, ArgumentError, "log_dir has no effect"),
        ({"name": "two words"}, ArgumentError, "name is no word"),
        ({"target": {"a": "label"}, "validation_data": (X, [Y, Y])}, TargetError, "no labels of output 'a'"),
        ({"images": X[:5], "log_dir": "logs"}, InputError, "images has not one entry per sample"),
        ({"images": X * np.nan, "log_dir": "logs"}, ArgumentError, "The image has no range"),
        ({"images": X[:, 0, 0], "log_dir": "logs"}, ArgumentError, "images are no images"),
        ({"validation_data": (X, Y, Y, Y)}, InputError, "tuple of another length"),
        ({"validation_data": (X, Y[:3])}, InputError, r"not one entry per sample(.|\n)*\(24, 8, 8, 1\), \(3,\)"),
        ({"validation_data": X[:0]}, InputError, "not one entry per sample"),
        ({"validation_data": iter([X])}, InputError, r"no array of samples(.|\n)*next\(generator\)"),
        ({"validation_data": tf.data.Dataset.from_tensor_slices(X).batch(2).take(0)}, InputError, "is empty"),
        ({"validation_data": (X, Y + 0.5), "target": "label"}, TargetError, "The labels are no classes"),
        ({"validation_data": (X, np.ones((24, 3))), "target": "label"}, TargetError, "The labels are no classes"),
    ],
)
def test_wrong_arguments(arguments, error, text):
    arguments = {"validation_data": X, **arguments}
    with pytest.raises(error, match=text):
        ExplanationCallback(arguments.pop("validation_data"), **arguments)


def test_a_metric_that_needs_what_a_training_does_not_have():
    class Needing(Failing):
        needs = ("twin",)

    with pytest.raises(ArgumentError, match="A metric needs twin, which a training does not give"):
        ExplanationCallback(X, metrics=[Needing()])
