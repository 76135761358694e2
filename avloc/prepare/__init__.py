"""`avloc prepare`: convert videos, frame + sound folders and packed sets to a store.

`discovery`, `sources` and `packed` find inputs, `plan` checks options, `selection` selects inputs, `workers` runs a
pool of processes that make `clips`, and `run` is the command. `events` prepares the AVE folder.
"""

from avloc.prepare.events import prepare_events
from avloc.prepare.plan import PrepareOptions
from avloc.prepare.run import PrepareReport, prepare
from avloc.prepare.sources import EVENT_LAYOUT

__all__ = ["EVENT_LAYOUT", "PrepareOptions", "PrepareReport", "prepare", "prepare_events"]
