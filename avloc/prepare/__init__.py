"""`avloc prepare`: videos, frame + sound folders and packed sets become a store.

`sources` finds the inputs, `plan` decides what the store is to hold, `clips` makes one clip in a worker process,
`workers` runs many of them in order, and `run` ties them together.
"""

from avloc.prepare.plan import PrepareOptions
from avloc.prepare.run import PrepareReport, prepare

__all__ = ["PrepareOptions", "PrepareReport", "prepare"]
