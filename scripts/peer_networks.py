"""VGG16 and ResNet50 in PyTorch as keras.applications defines them, and bench's small network; random weights.

They end in logits. Only the architecture counts here; that it is the same shows in the number of parameters.
"""

from __future__ import annotations

import torch
from torch import nn


def build(name: str, size: int, seed: int = 0) -> nn.Module:
    """The network, ready for inference, for images of this height and width."""
    if name not in NETWORKS:
        raise LookupError(f"{name} is not written in PyTorch here, only {', '.join(NETWORKS)}")
    torch.manual_seed(seed)
    model = NETWORKS[name](size)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return model.eval().requires_grad_(False)


def parameters(model: nn.Module) -> int:
    """As Keras counts them: with the statistics of batch normalisation."""
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    return sum(tensor.numel() for tensor in (*model.parameters(), *statistics))


class Residual(nn.Module):
    """body(x) + shortcut(x), then a ReLU if asked for."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.shortcut(x) + self.body(x))


def vgg16(size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 3
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(width, filters, 3, padding=1), nn.ReLU()]
            width = filters
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(512 * (size // 32) ** 2, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), *head, nn.Linear(4096, 1000))


def resnet50(size: int) -> nn.Sequential:
    """The first version: a block strides in its first convolution, and all convolutions have biases."""
    layers: list[nn.Module] = [*normalised(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    width = 64
    for filters, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(depth):
            layers.append(bottleneck(width, filters, stride if block == 0 else 1, first=block == 0))
            width = 4 * filters
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def bottleneck(width: int, filters: int, stride: int, first: bool) -> Residual:
    body = nn.Sequential(
        *normalised(width, filters, 1, stride), nn.ReLU(),
        *normalised(filters, filters, 3), nn.ReLU(),
        *normalised(filters, 4 * filters, 1),
    )  # fmt: skip
    shortcut = nn.Sequential(*normalised(width, 4 * filters, 1, stride)) if first else nn.Identity()
    return Residual(body, shortcut, nn.ReLU())


def normalised(width: int, filters: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(width, filters, kernel, stride, padding=kernel // 2)
    return [convolution, nn.BatchNorm2d(filters, eps=1.001e-5)]


def small(size: int) -> nn.Sequential:
    residual = Residual(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()), nn.Identity(), nn.Identity())
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(nn.Sequential(*layers, residual), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


NETWORKS = {"VGG16": vgg16, "ResNet50": resnet50, "Small": small}
