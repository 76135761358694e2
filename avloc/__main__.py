"""The `avloc` command, also as `python -m avloc`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C during its imports ends it with the usual exit code and without a traceback."""
    try:
        from avloc.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
