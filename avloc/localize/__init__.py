"""`avloc localize` and its library: localize sound in media; write overlays, arrays, videos or JSON lines."""

from avloc.localize.model import Model, load
from avloc.localize.options import InputDone, Localization, LocalizeOptions, parse_weights
from avloc.localize.outputs import plan_outputs
from avloc.localize.result import Result
from avloc.localize.run import localize
from avloc.localize.scenes import Times
from avloc.localize.style import Style, parse_style
from avloc.localize.verdict import Verdict, VerdictRule

__all__ = [
    "InputDone",
    "Localization",
    "LocalizeOptions",
    "Model",
    "Result",
    "Style",
    "Times",
    "Verdict",
    "VerdictRule",
    "load",
    "localize",
    "parse_style",
    "parse_weights",
    "plan_outputs",
]
