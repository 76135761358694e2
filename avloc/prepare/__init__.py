"""`avloc prepare`: convert videos, frame + sound folders and packed sets to a store.

`sources` and `packed` find inputs, `plan` checks options, `selection` selects inputs, `workers` runs a pool of
processes that make `clips`, and `run` is the command.
"""

from avloc.prepare.plan import PrepareOptions
from avloc.prepare.run import PrepareReport, prepare

__all__ = ["PrepareOptions", "PrepareReport", "prepare"]
