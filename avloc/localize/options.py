"""What `localize` is asked for, and what it says of each moment and each input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avloc.errors import UsageError
from avloc.localize.moments import Times
from avloc.localize.outputs import TIME
from avloc.localize.result import FIELDS, SCHEMA, Result
from avloc.localize.style import Style
from avloc.protocols import Protocol


@dataclass(frozen=True, kw_only=True)
class LocalizeOptions:
    """What to localize, with what, and where to put it."""

    inputs: tuple[str, ...]
    """Files, patterns, folders and `@lists`; `-` is standard input."""
    audio: Path | None = None
    """Sound for a single picture, or for a single video in place of its own; `-` is standard input."""
    track: int | None = None
    """Which sound track of the input, or of `audio`, counted from 1; None is the main one."""
    times: Times = field(default_factory=Times)
    """Which moments of the videos."""
    model: Path | None = None
    prior: str = ""
    """Object prior; see `avloc.localize.model.load`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    weights_dir: Path | None = None
    out: str = ""
    """As the user typed it: a trailing slash means a folder."""
    as_json: bool = False
    """Every moment is wanted as a line, and no picture is written where `out` is empty."""
    style: Style = field(default_factory=Style)
    skip_existing: bool = False
    """Leave out what is there already."""
    device: str = "auto"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        Protocol(precision=self.precision)
        if self.track is not None and self.track < 1:
            raise UsageError(f"--track {self.track} is not valid; tracks are counted from 1")
        if self.skip_existing and self.as_json and not self.out:
            raise UsageError("--skip-existing needs --out: lines of JSON are nowhere to be found again")
        if self.skip_existing and TIME in self.out and not self.times.given:
            unknown = f"--skip-existing cannot know the time in --out {self.out} beforehand"
            raise UsageError(f"{unknown}; add --every or --at, or take a name without it")


@dataclass(frozen=True, kw_only=True)
class Localization:
    """What was found in one moment of one input, or why nothing could be."""

    input: str
    error: str = ""
    result: Result | None = None
    written: Path | None = None
    """The file of this moment, where it has one of its own."""
    model: str = ""
    protocol: str = ""

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`; pixels are those of the shown frame."""
        known = self.result.as_json() if self.result else {"model": self.model, "protocol": self.protocol}
        return {"schema": SCHEMA, "input": self.input, **dict.fromkeys(FIELDS), **known, "error": self.error or None}


@dataclass(frozen=True, kw_only=True)
class InputDone:
    """One input is finished with."""

    input: str
    failed: bool = False
    incomplete: bool = False
    """The rest of it is not there or cannot be decoded."""
    skipped: bool = False
    """Its output was there already."""
    written: Path | None = None
    """The file that holds all its moments, where there is one."""
    summary: str = ""
    """The verdict for a person."""


def parse_weights(text: str) -> dict[str, float]:
    """`av=0.6,object=0.4` as a table.

    Raises:
        UsageError: not of this form.
    """
    out: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            out[name.strip()] = float(value)
        except ValueError:
            message = f"--map-weights {text}: {part!r} is not name=number; valid: as av=0.6,object=0.4"
            raise UsageError(message) from None
    return out
