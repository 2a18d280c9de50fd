"""captum's methods on PyTorch, from array to array in NumPy. Arguments not named are its defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import torch
from torch import nn

from scripts import peer_networks
from scripts.bench_methods import (
    DEEPLIFT,
    DEEPLIFT_PAIRED,
    FORWARD,
    GRAD_CAM,
    INTEGRATED_GRADIENTS,
    SAMPLES,
    SMOOTHGRAD,
    TAPE,
)
from scripts.peer_worker import Prepared
from scripts.rounds import Run

CLASS = 0


def prepare(name: str, size: int, batch: int) -> Prepared:
    """The network with captum's methods."""
    model = peer_networks.build(name, size)
    x = np.random.default_rng(1).uniform(-1, 1, (batch, 3, size, size)).astype("float32")
    logits = forward(model)
    return Prepared(
        framework=f"torch {torch.__version__} with {torch.get_num_threads()} threads",
        parameters=peer_networks.parameters(model),
        x=x,
        makers={
            TAPE: lambda: gradient(model),
            FORWARD: lambda: logits,
            **{label: maker(method, model) for label, method in METHODS.items()},
        },
        evaluations={INTEGRATED_GRADIENTS.label: SAMPLES, SMOOTHGRAD.label: SAMPLES},
        sums={
            DEEPLIFT.label: lambda: (logits(x) - logits(0 * x))[:, CLASS],
            DEEPLIFT_PAIRED.label: lambda: (logits(x) - logits(x / 2))[:, CLASS],
        },
    )


def gradient(model: nn.Module) -> Run:
    """PyTorch's own gradient."""

    def run(x: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(x).requires_grad_()
        (slope,) = torch.autograd.grad(model(image)[:, CLASS].sum(), image)
        return slope.numpy()

    return run


def forward(model: nn.Module) -> Run:
    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return run


def maker(method: Callable[[nn.Module], Callable[[torch.Tensor], Any]], model: nn.Module) -> Callable[[], Run]:
    """What makes the method's function on arrays."""

    def make() -> Run:
        attribute = method(model)
        return lambda x: attribute(torch.from_numpy(x)).detach().numpy()

    return make


def deeplift(model: nn.Module) -> Any:
    found = captum.attr.DeepLift(model)
    return lambda x: found.attribute(x, 0, target=CLASS)


def deeplift_paired(model: nn.Module) -> Any:
    found = captum.attr.DeepLift(model)
    return lambda x: found.attribute(x, x / 2, target=CLASS)


def integrated_gradients(model: nn.Module) -> Any:
    # All steps at once, its default, would need ten times the memory.
    found = captum.attr.IntegratedGradients(model)
    return lambda x: found.attribute(x, target=CLASS, n_steps=SAMPLES, internal_batch_size=len(x))


def smoothgrad(model: nn.Module) -> Any:
    found = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    return lambda x: found.attribute(x, nt_samples=SAMPLES, nt_samples_batch_size=1, target=CLASS, abs=False)


def grad_cam(model: nn.Module) -> Any:
    return lambda x: captum.attr.LayerGradCam(model, model[0]).attribute(x, target=CLASS)


METHODS = {
    DEEPLIFT.label: deeplift,
    DEEPLIFT_PAIRED.label: deeplift_paired,
    INTEGRATED_GRADIENTS.label: integrated_gradients,
    SMOOTHGRAD.label: smoothgrad,
    GRAD_CAM.label: grad_cam,
}
