"""A store of scenes, with hints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.synthetic_scenes import write_store


@pytest.fixture(scope="module")
def intact_store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("intact") / "store", 3, hints=True)
