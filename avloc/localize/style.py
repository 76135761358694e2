"""How an overlay looks: one small set of choices, good as it is, each changed by `--style key=value`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avloc.errors import UsageError, nearest

COLOUR_MAPS = ("inferno", "magma", "plasma", "viridis", "cividis")
"""matplotlib's perceptually uniform maps: equal steps of heat look like equal steps. Rows of `data/colours.png`."""
HALF = 0.5
"""Where the region of a heat map ends: what the contour encloses and `box_xyxy` boxes."""
_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True, kw_only=True)
class Style:
    """Everything about the look of an overlay. A value can also be a text, as `--style` takes it.

    Raises:
        UsageError: a value that is not valid; names the key and what is valid.
    """

    colours: str = "inferno"
    """One of `COLOUR_MAPS`."""
    opacity: float = 0.75
    """How much of the colour the hottest place gets, 0 to 1; colder places get less, cold ones nothing."""
    contour: float = HALF
    """Heat at which a thin line runs; 0 draws none."""
    peak: bool = True
    """A ring around the hottest pixel."""
    box: bool = False
    """The box of the region around the peak."""
    strip: bool = False
    """Frame, overlay and heat map side by side."""
    legend: bool = False
    """A bar below the picture that says which colour is hot."""
    caption: bool = True
    """Words at the lower edge, where there is something to say."""

    def __post_init__(self) -> None:
        for key, read in _READERS.items():
            value = getattr(self, key)
            try:
                object.__setattr__(self, key, read(value))
            except (KeyError, TypeError, ValueError):
                raise _unfit(key, value) from None
        if self.colours not in COLOUR_MAPS:
            raise _unfit("colours", self.colours)
        if not 0 <= self.opacity <= 1:
            raise _unfit("opacity", self.opacity)
        if not 0 <= self.contour < 1:
            raise _unfit("contour", self.contour)


def parse_style(assignments: Sequence[str]) -> Style:
    """The style that `key=value` texts describe; of two values for one key the later counts.

    Raises:
        UsageError: a text is no `key=value`, or key or value are unknown; names the key and what is valid.
    """
    values: dict[str, str] = {}
    for assignment in assignments:
        key, sign, text = (part.strip() for part in assignment.partition("="))
        if not sign:
            raise UsageError(f"--style {assignment!r} is not key=value, as in --style strip=on")
        values[key] = text
    return style_of(values)


def style_of(values: Mapping[str, Any]) -> Style:
    """The style with these values, each as text, as `--style` takes it, or as the field itself.

    Raises:
        UsageError: a key or a value is not valid; names it and what is valid.
    """
    unknown = next((key for key in values if key not in _READERS), None)
    if unknown is not None:
        raise UsageError(
            f"--style {unknown}: unknown; valid: {', '.join(_READERS)}", hint=nearest(str(unknown), _READERS)
        )
    return Style(**values)


def _switch(value: Any) -> bool:
    return value if isinstance(value, bool) else _SWITCH[value]


def _contour(value: Any) -> float:
    if isinstance(value, bool) or value in _SWITCH:
        return HALF if _switch(value) else 0.0
    return float(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "colours": str,
    "opacity": float,
    "contour": _contour,
    **dict.fromkeys(("peak", "box", "strip", "legend", "caption"), _switch),
}
_VALID = {
    "colours": ", ".join(COLOUR_MAPS),
    "opacity": "a number from 0 to 1",
    "contour": "on, off, or a heat between 0 and 1",
}


def _unfit(key: str, value: object) -> UsageError:
    return UsageError(f"--style {key}={value}: valid: {_VALID.get(key, 'on, off')}")


DEFAULT_STYLE = Style()
