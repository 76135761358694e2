"""Generate `completions/`: `python -m tests.completions`.

The scripts are Typer's; on TAB they call `avloc`, so they do not depend on its options.
"""

from __future__ import annotations

import argparse

from typer._completion_shared import get_completion_script

from tests.program import ROOT

FOLDER = ROOT / "completions"
FILES = {"bash": "avloc.bash", "zsh": "_avloc", "fish": "avloc.fish"}


def script(shell: str) -> str:
    """The completion script of a shell."""
    text = get_completion_script(prog_name="avloc", complete_var="_AVLOC_COMPLETE", shell=shell)
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser(prog="python -m tests.completions", description="Write the shell completions.")


def main() -> None:
    """Write the three files."""
    parser().parse_args()
    FOLDER.mkdir(exist_ok=True)
    for shell, name in FILES.items():
        (FOLDER / name).write_text(script(shell), encoding="utf-8")


if __name__ == "__main__":
    main()
