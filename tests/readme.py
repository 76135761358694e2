"""Update the program output shown in README.md: `python -m tests.readme`.

A fenced block after a comment `<!-- run: avloc ... -->` is the standard output of that command, at 100 columns. A
fenced block after any other comment, such as `<!-- run the tests -->`, can be read with `block`.
"""

from __future__ import annotations

import re
import shlex

from tests.program import ROOT, avloc

README = ROOT / "README.md"
_SHOWN = re.compile(
    r"(<!-- run: avloc (?P<arguments>[^\n]+?) -->\n```\w*\n)(?P<output>.*?)(?=^```$)", re.DOTALL | re.MULTILINE
)


def shown(text: str) -> dict[str, str]:
    """Commands whose output README shows, mapped to that output."""
    return {match["arguments"]: match["output"] for match in _SHOWN.finditer(text)}


def output(arguments: str) -> str:
    """Standard output of a command.

    Raises:
        RuntimeError: it failed.
    """
    result = avloc(*shlex.split(arguments), timeout=600)
    if result.returncode:
        raise RuntimeError(f"avloc {arguments} ended with {result.returncode}: {result.stderr}")
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines()) + "\n"


def refreshed(text: str) -> str:
    """README with every shown output regenerated."""
    return _SHOWN.sub(lambda match: match[1] + output(match["arguments"]), text)


def block(text: str, comment: str) -> str:
    """The fenced block that follows `<!-- comment -->`.

    Raises:
        ValueError: there is no such comment, or no block right after it.
    """
    match = re.search(rf"<!-- {re.escape(comment)} -->\n```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    if not match:
        raise ValueError(f"README.md has no block after <!-- {comment} -->")
    return match[1]


def main() -> None:
    """Rewrite README.md."""
    README.write_text(refreshed(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
