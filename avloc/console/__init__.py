"""Terminal output: progress and notices on standard error, results on standard output. The only user of Rich."""

from avloc.console.score_tables import print_session
from avloc.console.terminal import (
    live,
    print_distillation,
    print_error,
    print_input_done,
    print_json,
    print_lines,
    print_localization,
    print_path,
    print_preparation,
    print_training,
    shown,
)

__all__ = [
    "live",
    "print_distillation",
    "print_error",
    "print_input_done",
    "print_json",
    "print_lines",
    "print_localization",
    "print_path",
    "print_preparation",
    "print_session",
    "print_training",
    "shown",
]
