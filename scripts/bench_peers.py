"""Other libraries measured as scripts/bench measures kxai: their environments, their processes, and the table.

A library runs in an environment of its own and as a process that prints JSON (``peer_worker``), one per network and
batch size. Whatever goes wrong there is text in the table.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench_methods import (
    DEEPLIFT,
    DEEPLIFT_PAIRED,
    FORWARD,
    GRAD_CAM,
    INTEGRATED_GRADIENTS,
    REVEAL_CANCEL,
    SCORE_CAM,
    SMOOTHGRAD,
    TAPE,
    Method,
)
from scripts.rounds import ratios, shortened
from scripts.status import status

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kxai-bench"
MARK = "kxai-bench.txt"  # what an environment holds, written when it is complete


@dataclass(frozen=True)
class Peer:
    """A library that is measured.

    Attributes:
        environment: which one it runs in, a key of :func:`requirements`.
        methods: the rows that it has.
    """

    environment: str
    methods: tuple[Method, ...]


PEERS = {
    "captum": Peer("torch", (DEEPLIFT, DEEPLIFT_PAIRED, INTEGRATED_GRADIENTS, SMOOTHGRAD, GRAD_CAM)),
    "SHAP": Peer("tensorflow", (DEEPLIFT,)),
    "tf-keras-vis": Peer("tensorflow", (SMOOTHGRAD, SCORE_CAM, GRAD_CAM)),
}
COMPARED = (DEEPLIFT, DEEPLIFT_PAIRED, REVEAL_CANCEL, INTEGRATED_GRADIENTS, SMOOTHGRAD, SCORE_CAM, GRAD_CAM)


def chosen(names: Sequence[str]) -> list[str]:
    """All peers, or those named."""
    return [name for name in PEERS if not names or name in names]


def requirements(environment: str) -> list[str]:
    """What pip installs; the TensorFlow is the one that kxai runs on."""
    if environment == "torch":
        return ["torch==2.13.0", "captum==0.9.0"]
    ours = {dist.name.replace("_", "-"): dist.version for dist in importlib.metadata.distributions()}
    same = [f"{name}=={ours[name]}" for name in ("tensorflow-cpu", "tensorflow", "keras") if name in ours]
    return [*same, "shap==0.51.0", "tf-keras-vis==0.8.7"]


def environments(peers: Iterable[str], folder: Path) -> dict[str, Path | str]:
    """Per peer the interpreter of its environment, which is made if need be, or why there is none."""
    found: dict[str, Path | str] = {}
    for name in dict.fromkeys(PEERS[peer].environment for peer in peers):
        try:
            found[name] = interpreter(folder.expanduser() / name, requirements(name))
        except (OSError, subprocess.CalledProcessError) as error:
            found[name] = f"no environment: {last_line(getattr(error, 'stderr', '')) or error}"
    return {peer: found[PEERS[peer].environment] for peer in peers}


def interpreter(home: Path, wanted: list[str]) -> Path:
    """Python of the environment at ``home``, with ``wanted`` installed."""
    python, mark = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"), home / MARK
    if mark.exists() and mark.read_text(encoding="utf-8").split() == wanted:
        return python
    print(f"-- installing {' '.join(wanted)} into {home} (takes minutes)", file=sys.stderr)
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", home], [*pip, *wanted]):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    mark.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    return python


def measure(result: dict[str, Any], peers: Sequence[str], pythons: dict[str, Path | str]) -> dict[str, Any]:
    """Per peer what it says of its methods, given kxai's numbers of the same network and batch size."""
    ours = {row["method"]: row for row in result["rows"]}
    found = {}
    for peer in peers:
        methods = [method.label for method in PEERS[peer].methods if method.label in ours]
        if methods:
            python = pythons[peer]
            request = {key: result[key] for key in ("model", "size", "batch", "rounds")}
            request |= {"peer": peer, "methods": methods}
            answer = {"error": python} if isinstance(python, str) else ask(python, request)
            found[peer] = compared(answer, result["parameters"])
    return found


def compared(answer: dict[str, Any], parameters: int) -> dict[str, Any]:
    """An answer with ratios, if it is about a network with so many parameters."""
    if "error" in answer:
        return answer
    if answer["parameters"] != parameters:
        return {"error": f"another network: {answer['parameters']} parameters, not {parameters}"}
    rows = answer["rows"]
    for label in (label for label, row in rows.items() if "seconds" in row):
        unit = FORWARD if label == SCORE_CAM.label else TAPE
        rows[label] |= ratios(rows[label]["seconds"], rows[unit]["seconds"], rows[label]["evaluations"])
    return answer


def ask(python: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The answer of a peer's process, or {"error": why there is none}. Its status is shown meanwhile."""
    answer = None
    title = f"{request['peer']}, {request['model']}, batch {request['batch']}"
    status(f"{title}: starting")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        command = [python, "-m", "scripts.peer_worker", json.dumps(request)]
        try:
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True) as process:
                for line in process.stdout or ():
                    message = json.loads(line)
                    answer = message.get("answer")
                    status(f"{title}: {message.get('status', '')}")
        except (OSError, ValueError) as error:
            return {"error": f"its process fails: {error}"}
        finally:
            status()
        said.seek(0)
        text = last_line(said.read()) or "no message"
    return answer or {"error": shortened(f"its process ends with exit code {process.returncode}: {text}")}


def last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return shortened(lines[-1]) if lines else ""


def table(result: dict[str, Any]) -> str:
    """kxai and the peers, method by method, as text."""
    ours = {row["method"]: row for row in result["rows"]}
    answers = {"kxai": {"rows": ours, "framework": result["framework"]}, **result["peers"]}
    lines = [
        f"{result['model']}, size {result['size']}, batch {result['batch']}, {result['rounds']} rounds:"
        f" kxai, and {', '.join(result['peers'])}",
        "ratio: to a plain gradient (score_cam: forward pass) of the same batch by the framework that the library runs",
        "on, in the same process; divided by the number of steps, samples or channels. seconds: of one whole call.",
        f"{'method':<29}{'by':<14}{'ratio':>8}{'min-max':>14}{'seconds':>11}",
    ]
    for label in (method.label for method in (Method(TAPE), Method(FORWARD), *COMPARED) if method.label in ours):
        cells = {peer: cell(answer, label) if has(peer, label) else "" for peer, answer in answers.items()}
        texts = [f"{peer:<14}{text}" for peer, text in cells.items() if text]
        lacking = ", ".join(peer for peer, text in cells.items() if not text)
        if lacking and label not in (TAPE, FORWARD):
            texts.append(f"{lacking}: no such method")
        lines += [f"{name:<29}{text}" for name, text in zip((label, *[""] * len(texts)), texts, strict=False)]
    frameworks = [f"{peer} runs on {answer['framework']}" for peer, answer in answers.items() if "framework" in answer]
    return "\n".join([*lines, *frameworks, ""])


def has(peer: str, label: str) -> bool:
    """Whether a library has the method of a row; kxai and the units have all."""
    return peer not in PEERS or label in (TAPE, FORWARD, *(method.label for method in PEERS[peer].methods))


def cell(answer: dict[str, Any], label: str) -> str:
    """What is said of a row: numbers, or why there are none; nothing where it was not measured."""
    if "error" in answer:
        return f"   {answer['error']}"
    row = answer["rows"].get(label)
    if row is None:
        return ""
    if "error" in row:
        return f"   fails: {row['error']}"
    spread = f"{row['min']:.2f}-{row['max']:.2f}"
    seconds = statistics.median(t for t in row["seconds"] if t is not None)
    return f"{row['median']:>8.2f}{spread:>14}{seconds:>9.3f} s" + (f"   {row['note']}" if "note" in row else "")
