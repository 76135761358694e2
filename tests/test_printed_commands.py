"""Every command and flag that a message, a help text, a docstring, a page or CHANGELOG prints is one of the program."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from avloc.cli import app
from tests import pages
from tests.program import ROOT

HOLE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""What stands for the `{...}` of an f-string; it matches any part of a flag."""
OTHER_PROGRAMS = {
    "--relative_prediction": "SLAVC's test.py",
    "--alpha": "SLAVC's test.py",
    "--nproc-per-node": "torchrun",
    "--dependency": "sbatch",
    "--row": "tests.bench",
    "--shm-size": "docker",
    "--cpus": "docker",
    "--from": "uvx",
}
PAGES = [*pages.PAGES, *(ROOT / name for name in ("CHANGELOG.md", "avloc/models/LICENCE.md"))]
GROUP: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands
USAGE_ERROR: Any = typer.BadParameter.__base__  # typer's copy of click gives it no public name


def flags_of(command: Any) -> set[str]:
    return {"--help"} | {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


FLAGS = {name: flags_of(command) for name, command in COMMANDS.items()}
ALL_FLAGS = set(OTHER_PROGRAMS) | flags_of(GROUP).union(*FLAGS.values())


FLAG = rf"(?<![\w-])--[a-z][\w{HOLE}-]*"


class Strings(ast.NodeVisitor):
    """Every string of a module; an f-string is one, with holes."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [part.value if isinstance(part, ast.Constant) else HOLE for part in node.values]
        self.found.append("".join(map(str, parts)))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)


def printed() -> Iterator[tuple[str, str]]:
    """Where a text stands, and the text."""
    for path in sorted((ROOT / "avloc").rglob("*.py")):
        visitor = Strings()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        yield from ((path.relative_to(ROOT).as_posix(), text) for text in visitor.found)
    for path in PAGES:
        prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        yield from ((path.relative_to(ROOT).as_posix(), text) for text in prose.split("\n\n"))


def is_known(flag: str, known: set[str]) -> bool:
    pattern = re.escape(flag).replace(re.escape(HOLE), ".+")
    return any(re.fullmatch(pattern, each) for each in known)


def complaints(text: str) -> list[str]:
    """Flags and commands in a text that the program does not have, and flags of `avloc ...` that lack their value."""
    out = [f"{flag}: no such flag" for flag in re.findall(FLAG, text) if not is_known(flag, ALL_FLAGS)]
    # `avloc NAME ...` to the end of its clause, or a command's name with a flag right behind it
    for whole, name, rest in re.findall(rf"(?<![\w.-])(avloc )?({'|'.join(COMMANDS)})\b(?=([^`;|>()\n]*))", text):
        clause = re.split(r"[.,:] |\.$", rest)[0]
        if whole or clause.startswith(" --"):
            wrong = [flag for flag in re.findall(FLAG, clause) if not is_known(flag, FLAGS[name] | set(OTHER_PROGRAMS))]
            out += [f"{name} {flag}: no such flag of this command" for flag in wrong]
            if whole and not wrong and HOLE + "-" not in clause:
                out += unparsed(name, clause.split())
    typed = re.findall(rf"`avloc ([\w-]+)|: avloc ([\w-]+) [A-Z{HOLE}-]", text)
    out += [
        f"avloc {a or b}: no such command"
        for a, b in typed
        if not {a, b} & {*COMMANDS, "--help", "--version", "--doctor"}
    ]
    modules = re.findall(r"python -m (tests(?:\.\w+)*)", text)
    return out + [f"{name}: no such module" for name in modules if importlib.util.find_spec(name) is None]


def unparsed(name: str, arguments: list[str]) -> list[str]:
    """The errors of the command's parser for the arguments; their values are not judged."""
    context = COMMANDS[name].context_class(COMMANDS[name], info_name=name)
    try:
        COMMANDS[name].make_parser(context).parse_args(list(arguments))
    except USAGE_ERROR as error:
        return [f"avloc {name} {' '.join(arguments)}: {error}"]
    return []


def test_every_command_and_flag_that_is_printed_exists() -> None:
    texts = list(printed())
    assert sum("avloc prepare" in text for _, text in texts) > 3
    assert [f"{place}: {each}" for place, text in texts for each in complaints(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "Prepare it again with --seconds 3.",
        "Make one: avloc prepar VIDEOS",
        f"avloc train {HOLE} --testset vggss",
        "then avloc train STORE --out",
        "`avloc prepare` and train --testset vggss",
        "`prepare --epochs 3` does it",
        f"valid: --no-{HOLE}-hints",
        "python -m tests.no_such_module",
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str) -> None:
    assert len(complaints(text)) == 1


def shell_lines(start: str) -> list[str]:
    """Every command of the shell blocks of the pages that starts so, once, backslash continuations joined."""
    texts = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    blocks = re.findall(r"^```bash\n(.*?)^```$", texts, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|", line.partition(" #")[0])]
    return list(dict.fromkeys(part.partition(">")[0] for part in parts if part.startswith(start)))


@pytest.mark.parametrize("line", shell_lines("avloc "))
def test_every_command_line_parses_whole(line: str) -> None:
    """With its values; of `train` the settings too."""
    _, name, *arguments = shlex.split(line)
    with COMMANDS[name].make_context(name, list(arguments)) as context:
        assert context.info_name == name
    if name == "train":  # settings are judged inside the command
        result = CliRunner().invoke(app, [name, *arguments, "--print-config"])
        assert result.exit_code == 0, result.output


PROGRAMS = (
    "bench",
    "completions",
    "example",
    "faults",
    "floors",
    "gpu",
    "pages",
    "real_training",
    "recipe",
    "synthetic_training",
)
"""Modules of `tests` that are run by hand; each has a `parser()`."""


def parser_of(name: str) -> argparse.ArgumentParser:
    module = f"tests.{name}.__main__" if (ROOT / "tests" / name).is_dir() else f"tests.{name}"
    return importlib.import_module(module).parser()


@pytest.mark.parametrize("line", shell_lines("python -m tests."))
def test_every_command_line_of_a_test_program_parses_whole(line: str) -> None:
    _, _, module, *arguments = shlex.split(line)
    given = parser_of(module.removeprefix("tests.")).parse_args(arguments)
    if "flags" in given:  # of train
        train = ["train", "store", "--out", "run", "--method", given.method, *given.flags, "--print-config"]
        result = CliRunner().invoke(app, train)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_test_program_refuses_what_it_does_not_know(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser_of(name).parse_args(["--no-such-flag"])
    assert f"usage: python -m tests.{name} " in capsys.readouterr().err


def test_every_test_program_that_is_printed_has_a_parser() -> None:
    printed_names = {name for _, text in printed() for name in re.findall(r"python -m tests\.(\w+)", text)}
    assert printed_names <= set(PROGRAMS)


@pytest.mark.parametrize("line", shell_lines("python -m pytest "))
def test_every_path_of_a_line_of_pytest_exists(line: str) -> None:
    assert [word for word in shlex.split(line) if word.startswith("tests/") and not (ROOT / word).exists()] == []


def test_every_row_of_the_benchmark_that_is_named_exists() -> None:
    from tests.bench.run import ROWS

    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"--row ('[^'`]+'|\w+)", page)
    for header in ("| work | `--row` |", "| share of | `--row` |"):
        named += [row[1].strip("`") for row in pages.rows(page, header)]
    assert [name for name in named if name.strip("'") not in ROWS] == []


def test_readme_types_every_command() -> None:
    block = "".join(
        re.findall(r"^```bash\n(.*?)^```$", pages.README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    )
    assert [name for name in COMMANDS if f"avloc {name} " not in block] == []
