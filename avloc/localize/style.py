"""Style of an overlay, set by `--style key=value`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avloc.errors import UsageError, nearest

COLOUR_MAPS = ("inferno", "magma", "plasma", "viridis", "cividis")
"""matplotlib's perceptually uniform colour maps; rows of `data/colours.png`."""
HALF = 0.5
"""Heat threshold of the region that the default contour and `box_xyxy` enclose."""
_BOOLEANS = {"on": True, "off": False}


@dataclass(frozen=True, kw_only=True)
class Style:
    """Style of an overlay. Values may be given as text, as for `--style`.

    Raises:
        UsageError: an invalid value; names the key and the valid values.
    """

    colours: str = "inferno"
    """One of `COLOUR_MAPS`."""
    opacity: float = 0.75
    """Opacity of the colour at the hottest pixel, 0 to 1; it falls to 0 where the heat is 0."""
    contour: float = HALF
    """Heat level of a contour line; 0 draws none."""
    peak: bool = True
    """Mark the hottest pixel with a ring."""
    box: bool = False
    """Draw `box_xyxy`."""
    strip: bool = False
    """Frame, overlay and heat map side by side."""
    legend: bool = False
    """A colour bar below the picture."""
    caption: bool = True
    """Text at the lower edge: silence, or doubt about the source, see `avloc.localize.verdict.Judgement.caption`."""

    def __post_init__(self) -> None:
        for key, read in _READERS.items():
            value = getattr(self, key)
            try:
                object.__setattr__(self, key, read(value))
            except (KeyError, TypeError, ValueError):
                raise _invalid(key, value) from None
        if self.colours not in COLOUR_MAPS:
            raise _invalid("colours", self.colours)
        if not 0 <= self.opacity <= 1:
            raise _invalid("opacity", self.opacity)
        if not 0 <= self.contour < 1:
            raise _invalid("contour", self.contour)


def parse_style(assignments: Sequence[str]) -> Style:
    """Style from `key=value` texts; the last value of a key wins.

    Raises:
        UsageError: a text is not `key=value`, or a key or value is invalid; names the key and the valid values.
    """
    values: dict[str, str] = {}
    for assignment in assignments:
        key, sign, text = (part.strip() for part in assignment.partition("="))
        if not sign:
            raise UsageError(f"--style {assignment!r} is not key=value, as in --style strip=on")
        values[key] = text
    return make_style(values)


def make_style(values: Mapping[str, Any]) -> Style:
    """Style from a mapping of fields to values or `--style` texts.

    Raises:
        UsageError: an invalid key or value; names it and the valid ones.
    """
    unknown = next((key for key in values if key not in _READERS), None)
    if unknown is not None:
        raise UsageError(
            f"--style {unknown}: unknown; valid: {', '.join(_READERS)}", hint=nearest(str(unknown), _READERS)
        )
    return Style(**values)


def _boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else _BOOLEANS[value]


def _contour(value: Any) -> float:
    if isinstance(value, bool) or value in _BOOLEANS:
        return HALF if _boolean(value) else 0.0
    return float(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "colours": str,
    "opacity": float,
    "contour": _contour,
    **dict.fromkeys(("peak", "box", "strip", "legend", "caption"), _boolean),
}
_VALID = {
    "colours": ", ".join(COLOUR_MAPS),
    "opacity": "a number from 0 to 1",
    "contour": "on, off, or a heat between 0 and 1",
}


def _invalid(key: str, value: object) -> UsageError:
    return UsageError(f"--style {key}={value}: valid: {_VALID.get(key, 'on, off')}")


DEFAULT_STYLE = Style()
