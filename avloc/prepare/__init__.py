"""`avloc prepare`: videos, frame + sound folders and packed sets become a store.

`sources` finds the inputs, `plan` decides what the store is to hold, `clips` makes one clip in a worker process,
`workers` runs many of them in order, and `run` ties them together. `events` does so for the folder of AVE.
"""

from avloc.prepare.events import prepare_events
from avloc.prepare.plan import PrepareOptions
from avloc.prepare.run import PrepareReport, prepare
from avloc.prepare.sources import EVENT_LAYOUT

__all__ = ["EVENT_LAYOUT", "PrepareOptions", "PrepareReport", "prepare", "prepare_events"]
