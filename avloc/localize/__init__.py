"""`avloc localize`: any clip and a model become a picture, an array or a line of JSON."""

from avloc.localize.overlay import draw_overlay
from avloc.localize.run import Localization, LocalizeOptions, localize, plan_outputs

__all__ = ["Localization", "LocalizeOptions", "draw_overlay", "localize", "plan_outputs"]
