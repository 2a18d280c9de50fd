"""Every test draws its own random numbers, whatever ran before it and in which process; and fixtures of many tests."""

from __future__ import annotations

import random
import sys
import zlib

import numpy as np
import pytest

GENERATORS = pytest.StashKey[list]()
"""The generators that test modules share, each with the state that it has when all modules are imported."""


def pytest_collection_finish(session):
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "tests"]
    found = {id(value): value for module in modules for value in vars(module).values()}
    generators = [value for value in found.values() if isinstance(value, np.random.Generator)]
    session.config.stash[GENERATORS] = [(each, each.bit_generator.state) for each in generators]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    begin(item.config, item.nodeid)


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef, request):
    if fixturedef.scope == "function":
        yield
        return
    # It is made for the first test that asks for it, whichever that is, and must not shift the numbers of this one.
    begin(request.config, f"{fixturedef.baseid}::{fixturedef.argname}")
    yield
    begin(request.config, request._pyfuncitem.nodeid)


def begin(config, name):
    """Numbers that depend on the name alone, also those of weights that a layer draws."""
    for generator, state in config.stash[GENERATORS]:
        generator.bit_generator.state = state
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)


@pytest.fixture
def double_policy():
    """Layers in float64."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def double(double_policy):
    """Keras in float64: layers, inputs and all that says nothing else."""
    import keras

    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)
