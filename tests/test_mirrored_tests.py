"""A test module stands where the module that it tests stands: tests/media/test_audio.py tests avloc/media/audio.py."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.program import ROOT

TESTS = ROOT / "tests"
WHOLE_PROGRAM = {
    "media/test_needed_frames.py": "moments of a video that are decoded in part, against whole files",
    "test_completions.py": "the shipped shell completions, of all commands",
    "test_docs.py": "README, CHANGELOG and the settings of the package against the program",
    "test_mirrored_tests.py": "the tests themselves",
    "test_new_method.py": "one more method goes through all commands",
    "test_page_code.py": "Python code and scripts of the pages",
    "test_page_figures.py": "numbers of the pages against the program, the lists and the shipped model",
    "test_pipeline.py": "all commands in sequence on synthetic clips",
    "test_printed_commands.py": "every command that any module or page prints",
    "test_real_clips.py": "all commands in sequence on recorded clips",
    "test_repeatable.py": "the same bytes from the same commands",
    "test_version_0_1.py": "all files of version 0.1.0",
}
"""Test modules of no single module, and what they test."""
OWN_PROGRAMS = {"bench", "example", "faults", "gpu", "parity", "recipe"}
"""Packages in `tests` with programs or reference values of their own."""


def test_every_test_module_mirrors_a_module() -> None:
    found = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    tested = {path: ROOT / "avloc" / path.with_name(path.name.removeprefix("test_")) for path in found}
    others = [path for path in found if path.parts[0] not in OWN_PROGRAMS and not tested[path].is_file()]
    assert sorted(map(str, others)) == sorted(WHOLE_PROGRAM), "rename it after the module that it tests, or list it"


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports; in `from a import b`, also a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_module_imports_a_test_module() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in TESTS.rglob("test_*.py")}
    found = {str(path.relative_to(TESTS)): imported(path) & modules for path in TESTS.rglob("*.py")}
    assert not {path: names for path, names in found.items() if names}, "share it by conftest.py or a helper module"
