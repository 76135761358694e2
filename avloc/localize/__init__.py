"""`avloc localize` and its library: localize sound in media; write overlays, arrays, videos or JSON lines."""

from avloc.localize.options import InputDone, Localization, LocalizeOptions, parse_weights
from avloc.localize.run import localize
from avloc.localize.scenes import Times
from avloc.localize.style import parse_style

__all__ = ["InputDone", "Localization", "LocalizeOptions", "Times", "localize", "parse_style", "parse_weights"]
