"""A store of clips with sounds and pictures for teachers."""

from __future__ import annotations

import pytest

from avloc.store import Store
from tests.teacher_makers import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("teachers") / "store", 7)
