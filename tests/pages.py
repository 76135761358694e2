"""The pages of the documentation, and the program output that they show: `python -m tests.pages` updates it.

A fenced block after a comment `<!-- run: avloc ... -->` is the standard output of that command, at 100 columns. A
fenced block after any other comment, such as `<!-- run the tests -->`, can be read with `block`.
"""

from __future__ import annotations

import argparse
import re
import shlex

from tests.program import ROOT, avloc

README = ROOT / "README.md"
REFERENCE = sorted((ROOT / "avloc").glob("*/README.md"))
"""One page for each package that has something to look up."""
PAGES = [README, *REFERENCE, ROOT / "tests" / "README.md"]
_SHOWN = re.compile(
    r"(<!-- run: avloc (?P<arguments>[^\n]+?) -->\n```\w*\n)(?P<output>.*?)(?=^```$)", re.DOTALL | re.MULTILINE
)


def text(package: str) -> str:
    """The page of a package of avloc."""
    return (ROOT / "avloc" / package / "README.md").read_text(encoding="utf-8")


def shown(page: str) -> dict[str, str]:
    """Commands whose output a page shows, mapped to that output."""
    return {match["arguments"]: match["output"] for match in _SHOWN.finditer(page)}


def output(arguments: str) -> str:
    """Standard output of a command, with paths of this checkout made relative.

    Raises:
        RuntimeError: it failed.
    """
    result = avloc(*shlex.split(arguments), timeout=600)
    if result.returncode:
        raise RuntimeError(f"avloc {arguments} ended with {result.returncode}: {result.stderr}")
    lines = result.stdout.replace(f"{ROOT}/", "").strip().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def refreshed(page: str) -> str:
    """A page with every shown output regenerated."""
    return _SHOWN.sub(lambda match: match[1] + output(match["arguments"]), page)


def block(page: str, comment: str) -> str:
    """The fenced block that follows `<!-- comment -->`.

    Raises:
        ValueError: there is no such comment, or no block right after it.
    """
    match = re.search(rf"<!-- {re.escape(comment)} -->\n```\w*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    if not match:
        raise ValueError(f"there is no block after <!-- {comment} -->")
    return match[1]


def rows(page: str, header: str) -> list[list[str]]:
    """Cells of each row of the table whose header row starts so.

    Raises:
        ValueError: there is no such table, or more than one.
    """
    tables = re.findall(rf"^{re.escape(header)}.*\n\|[-:| ]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    if len(tables) != 1:
        raise ValueError(f"there are {len(tables)} tables with {header}")
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in tables[0].splitlines()]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser(prog="python -m tests.pages", description="Update the output that the pages show.")


def main() -> None:
    """Rewrite the pages."""
    parser().parse_args()
    for path in PAGES:
        path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
