"""Small material for the recipe, and the clips that are composed of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe import scored
from tests.recipe.compose import compose
from tests.recipe.material_makers import faces_in, write_material


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as change:
        for name, count in (("SCENES", 24), ("EVERYDAY_SCENES", 12), ("MIXED", 12), ("WRONG_PICTURES", 6)):
            change.setattr(scored, name, count)
        compose(data, out, faces_in(data), clips=60, seed=3)
    return out
