"""tf-keras-vis on TensorFlow, from array to array in NumPy. Arguments not named are its defaults."""

from __future__ import annotations

from typing import Any

from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam

from scripts import architectures, units
from scripts.bench_methods import FORWARD, GRAD_CAM, SAMPLES, SCORE_CAM, SMOOTHGRAD, TAPE
from scripts.peer_worker import Prepared
from scripts.rounds import Run


def prepare(name: str, size: int, batch: int) -> Prepared:
    """The network with tf-keras-vis's methods."""
    model = architectures.build(name, size, samples=1)
    channels = architectures.first_map(model).output.shape[-1]
    return Prepared(
        framework=units.FRAMEWORK,
        parameters=model.count_params(),
        x=architectures.sample(model, batch, seed=1),
        makers={
            TAPE: lambda: units.gradient(model),
            FORWARD: lambda: units.forward(model),
            SMOOTHGRAD.label: lambda: smoothgrad(model),
            SCORE_CAM.label: lambda: score_cam(model),
            GRAD_CAM.label: lambda: grad_cam(model),
        },
        evaluations={SMOOTHGRAD.label: SAMPLES, SCORE_CAM.label: channels},
    )


def score(outputs: Any) -> Any:
    return outputs[:, units.CLASS]


def smoothgrad(model: Any) -> Run:
    found = Saliency(model, clone=False)
    return lambda x: found(score, x, smooth_samples=SAMPLES, smooth_noise=0.2)


def score_cam(model: Any) -> Run:
    found = Scorecam(model, clone=False)
    layer = architectures.first_map(model).name
    return lambda x: found(score, x, penultimate_layer=layer, seek_penultimate_conv_layer=False, batch_size=len(x))


def grad_cam(model: Any) -> Run:
    found = Gradcam(model, clone=False)
    return lambda x: found(score, x)
