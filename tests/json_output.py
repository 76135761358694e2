"""Reading the JSON that commands print."""

from __future__ import annotations

import json


def json_lines(text: str) -> list[dict]:
    """One object per line."""
    return [json.loads(line) for line in text.splitlines()]
