"""The example of the README; `python -m tests.example` makes it."""

from tests.example.sounds import drums, guitar
from tests.program import ROOT

DATA = ROOT / "tests" / "data"
PICTURE = DATA / "room.jpg"
SOUNDS = {DATA / "guitar.flac": guitar, DATA / "drums.flac": drums}
"""File -> the function that synthesises it."""
OVERLAYS = ROOT / ".github" / "overlays.jpg"
