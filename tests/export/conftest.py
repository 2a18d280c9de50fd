"""Ways to load what was exported, none of which can use Keras or kxai."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export import calls

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def cpp(tmp_path_factory):
    """The program of loader.cc."""
    compiler = shutil.which("g++")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("g++ is not installed")
        pytest.skip("g++ is not installed")
    import tensorflow as tf

    wheel = Path(tf.__file__).parent
    program = tmp_path_factory.mktemp("loader") / "loader"
    command = [compiler, "-w", "-O0", "-std=c++17", f"-D_GLIBCXX_USE_CXX11_ABI={tf.__cxx11_abi_flag__}"]
    command += ["-DEIGEN_MAX_ALIGN_BYTES=64", f"-I{wheel / 'include'}", str(HERE / "loader.cc"), "-o", str(program)]
    command += [f"-L{wheel}", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{wheel}"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return [str(program)]


@pytest.fixture(scope="session")
def python():
    """Python's loaders: name -> command."""
    return {kind: [sys.executable, str(HERE / "calls.py"), kind] for kind in ("load", "session")}


@pytest.fixture
def answer(tmp_path):
    """(command, {folder: [(signature, arrays)]}) -> {folder: [(error, arrays)]}."""

    def run(command, requests):
        paths, replies = [], {}
        for number, (folder, calls_of) in enumerate(requests.items()):
            asked, replies[folder] = tmp_path / f"{number}.requests", tmp_path / f"{number}.replies"
            asked.write_bytes(calls.pack(calls_of))
            paths += [str(folder), str(asked), str(replies[folder])]
        # Elsewhere, so that the repository is not on the path.
        environment = {**os.environ, "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
        done = subprocess.run(
            [*command, *paths], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        return {folder: calls.unpack(told.read_bytes()) for folder, told in replies.items()}

    return run
