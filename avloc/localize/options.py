"""Options of `localize`, and its records: one per time and one per input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avloc.errors import UsageError
from avloc.localize.outputs import TIME
from avloc.localize.result import FIELDS, SCHEMA, Result
from avloc.localize.scenes import Times
from avloc.localize.style import Style
from avloc.protocols import Protocol


@dataclass(frozen=True, kw_only=True)
class LocalizeOptions:
    """Inputs, model and outputs of `localize`.

    Raises:
        UsageError: an invalid combination.
    """

    inputs: tuple[str, ...]
    """Files, patterns, folders and `@lists`; `-` is standard input."""
    audio: Path | None = None
    """Sound of a single picture, or replacement sound of a single video; `-` is standard input."""
    track: int | None = None
    """Sound track of the input, or of `audio`, counted from 1; None is the main one."""
    times: Times = field(default_factory=Times)
    model: Path | None = None
    prior: str = ""
    """Object prior, as in `avloc.load`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    weights_dir: Path | None = None
    out: tuple[str, ...] = ()
    """Files, or folders with a trailing slash; see `plan_outputs`."""
    as_json: bool = False
    """Yield a record for every time, and write no picture if `out` is empty."""
    style: Style = field(default_factory=Style)
    skip_existing: bool = False
    """Skip inputs and times whose output exists."""
    device: str = "auto"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        Protocol(precision=self.precision)
        if self.track is not None and self.track < 1:
            raise UsageError(f"--track {self.track} is invalid; tracks are counted from 1")
        if self.skip_existing and self.as_json and not self.out:
            raise UsageError("--skip-existing needs --out: JSON lines leave no file to skip")
        timed = next((out for out in self.out if TIME in out), "")
        if self.skip_existing and timed and not self.times.is_set:
            unknown = f"--skip-existing cannot know the time in --out {timed} in advance"
            raise UsageError(f"{unknown}; add --every or --at, or use a name without {TIME}")


@dataclass(frozen=True, kw_only=True)
class Localization:
    """Result at one time of one input, or the error."""

    input: str
    error: str = ""
    result: Result | None = None
    written: tuple[Path, ...] = ()
    """Its own files; those that hold several times are in `InputDone.written`."""
    is_picture: bool = False
    """Whether the input is a picture, and not a video."""
    model: str = ""
    protocol: str = ""

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`; pixel coordinates refer to the displayed frame."""
        known = self.result.as_json() if self.result else {"model": self.model, "protocol": self.protocol}
        return {"schema": SCHEMA, "input": self.input, **dict.fromkeys(FIELDS), **known, "error": self.error or None}


@dataclass(frozen=True, kw_only=True)
class InputDone:
    """An input is finished."""

    input: str
    failed: bool = False
    incomplete: bool = False
    """The rest of it is missing or cannot be decoded."""
    skipped: bool = False
    """Its output existed."""
    written: tuple[Path, ...] = ()
    """The files with all its times, except those that later inputs share."""
    summary: str = ""
    """Match and verdict over all times, see `avloc.localize.verdict.summary`."""


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
