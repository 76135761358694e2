"""Terminal output: progress and notices on standard error, results on standard output. The only user of Rich."""

from avloc.console.events import print_events, print_told
from avloc.console.score_tables import print_session
from avloc.console.terminal import (
    live,
    print_distillation,
    print_error,
    print_input_done,
    print_localization,
    print_preparation,
    print_training,
)

__all__ = [
    "live",
    "print_distillation",
    "print_error",
    "print_events",
    "print_input_done",
    "print_localization",
    "print_preparation",
    "print_session",
    "print_told",
    "print_training",
]
