"""A picture to localize in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media_makers import disc, make_picture


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    return make_picture(tmp_path_factory.mktemp("picture") / "a.jpg", disc((64, 48), (0.5, 0.5)))
