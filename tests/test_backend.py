"""Without TensorFlow kxai says what to install, whichever of its names is used first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


WITHOUT = "import sys; sys.modules['tensorflow'] = None; "


def said(code):
    """What a new process writes to stderr."""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1
    return run.stderr


@pytest.mark.parametrize(
    "use",
    [
        "import kxai; kxai.load",
        "import kxai; kxai.LRP",
        "from kxai import export",
        "import kxai; kxai.callbacks.ExplanationCallback",
        "import kxai.backend",
    ],
)
def test_tensorflow_is_asked_for(use):
    stderr = said(WITHOUT + use)
    assert (
        "kxai.errors.MissingDependencyError: kxai needs TensorFlow, which is not installed.\n"
        "  Fix: pip install 'kxai[cpu]' for CPUs, or pip install 'kxai[gpu]' for NVIDIA GPUs.\n"
    ) in stderr


def test_the_command_line_asks_for_tensorflow():
    stderr = said(WITHOUT + "from kxai.cli import main; sys.exit(main(['methods']))")
    assert stderr.startswith("kxai: kxai needs TensorFlow, which is not installed.\n  Fix: pip install 'kxai[cpu]'")


def test_another_backend_of_keras_is_refused():
    assert (
        "kxai.errors.MissingDependencyError: kxai runs on Keras with the TensorFlow backend.\n"
        "  Expected: KERAS_BACKEND=tensorflow\n"
        "  Received: KERAS_BACKEND=torch\n"
        "  Fix: set the environment variable KERAS_BACKEND=tensorflow before Keras is first imported.\n"
    ) in said("import keras; keras.backend.backend = lambda: 'torch'; import kxai; kxai.LRP")
