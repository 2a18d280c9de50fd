"""What scripts/bench measures, per network, with the project's targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

TAPE = "tape"  # the unit: TensorFlow's own gradient, compiled
FORWARD = "forward"  # the unit of methods without derivatives: the outputs, compiled
SAMPLES = 10  # of the methods that average over steps or noise


@dataclass(frozen=True)
class Method:
    """A method with arguments, as a row of the table.

    Attributes:
        name: as ``kxai.create_analyzer`` takes it.
        target: what the median may be.
        variant: which arguments it has, where several rows have the same name.
        unit: what the time is compared with, ``TAPE`` or ``FORWARD``.
        per: what the ratio is divided by: "step", "sample", "channel", or nothing.
    """

    name: str
    target: float | None = None
    variant: str = ""
    unit: str = TAPE
    per: str = ""

    @property
    def label(self) -> str:
        """What the row is called."""
        variant = f" ({self.variant})" if self.variant else ""
        return f"{self.name}{variant}" + (f" / {self.per}" if self.per else "")


DEEPLIFT = Method("deeplift", 1.2)  # from one reference, which is computed once
DEEPLIFT_PAIRED = Method("deeplift", 1.7, "own references")  # each sample has its own, computed in every call
REVEAL_CANCEL = Method("deeplift.reveal_cancel", 4.0)
INTEGRATED_GRADIENTS = Method("integrated_gradients", 1.1, per="step")
SMOOTHGRAD = Method("smoothgrad", 1.1, per="sample")
SCORE_CAM = Method("score_cam", 1.1, unit=FORWARD, per="channel")
GRAD_CAM = Method("grad_cam")

LRP = (
    Method("lrp.epsilon", 1.15),
    Method("lrp.epsilon_plus", 1.7),
    Method("lrp.z_plus", 1.7),
    Method("lrp.gamma", 1.8),
    Method("lrp.epsilon_gamma_box", 1.8),
    Method("lrp.alpha_beta", 2.3),
)
OTHERS = (
    Method("deep_taylor"),
    Method("guided_backprop"),
    DEEPLIFT,
    DEEPLIFT_PAIRED,
    REVEAL_CANCEL,
    INTEGRATED_GRADIENTS,
    SMOOTHGRAD,
    SCORE_CAM,
    GRAD_CAM,
)
CONVOLUTIONAL = (Method("gradient"), *LRP, *OTHERS)
NETWORKS = {
    "VGG16": CONVOLUTIONAL,
    "ResNet50": (
        Method("gradient"),
        *(replace(method, target=round((method.target or 0) + 0.4, 2)) for method in LRP),
        *OTHERS,
    ),
    "ViT": (Method("gradient"), Method("lrp.attn", 2.0), Method("lrp.cp")),
    "LSTM": (Method("gradient"), Method("lrp.epsilon", 4.0)),
}


def chosen(network: str, names: Sequence[str] | None) -> list[Method]:
    """The rows for a network: those with its targets, or all convolutional ones, or those with these names."""
    table = NETWORKS.get(network, ())
    labels = {method.label for method in table}
    others = [replace(method, target=None) for method in CONVOLUTIONAL if method.label not in labels]
    if names is None:
        return list(table or others)
    known = (*table, *others)
    return [row for name in names for row in [method for method in known if method.name == name] or [Method(name)]]
