"""The model of the tests of serving, and its export."""

from __future__ import annotations

import pytest

from tests.serving import served


@pytest.fixture(scope="session")
def model():
    return served.image_model()


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory):
    return served.export(model, tmp_path_factory.mktemp("digits"))
