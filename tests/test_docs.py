"""What the documents and the package promise, held against the program."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avloc as package
from avloc import errors
from avloc.annotations.boxes import published_boxes
from avloc.annotations.testsets import TESTSETS, published_list
from avloc.cli import exit_codes
from avloc.console.score_tables import print_session
from avloc.evaluate import ClipRow, EvalReport, Evaluation, MapScores, Session
from avloc.metrics import ClipScore, Summary, ground_truth, summarise
from avloc.protocols import PROTOCOLS, Protocol
from avloc.registry import SPECS
from tests import pages, single_scoring
from tests.program import ROOT, avloc

README = pages.README.read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("torch", "torchvision", "transformers", "h5py", "av", "rich", "matplotlib", "librosa", "scipy", "numpy", "PIL")
TOP_LEVEL = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "avloc", "tests", "completions"}


PAGE_OF = {
    "prepare": "prepare",
    "distill-cache": "distill",
    "train": "train",
    "eval": "evaluate",
    "localize": "localize",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- the pages against the program


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_shows_what_the_program_prints(path: Path) -> None:
    for arguments, shown in pages.shown(path.read_text(encoding="utf-8")).items():
        assert shown == pages.output(arguments), "refresh: python -m tests.pages"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250
    assert len(README.encode()) <= 12_000


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_resolves(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    assert links
    for link in (link for link in links if "://" not in link):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", pages.REFERENCE, ids=lambda path: path.parent.name)
def test_a_link_to_what_the_wheel_lacks_says_that_it_is_in_the_repository(path: Path) -> None:
    for sentence in re.split(r"(?<=[.:;])\s+|\n", prose(path)):
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", sentence) if "://" not in link]
        outside = [link for link in links if not (path.parent / link).resolve().is_relative_to(ROOT / "avloc")]
        assert not outside or "repository" in sentence, sentence


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Anchors of the headings of a Markdown file, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_of_the_project_that_is_named_exists(path: Path) -> None:
    names = re.findall(r"`((?:avloc|tests)/[\w./-]+)`", path.read_text(encoding="utf-8"))
    assert [name for name in names if "NAME" not in name and not (ROOT / name).exists()] == []


def test_readme_links_every_page() -> None:
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", README)}
    assert {path.relative_to(ROOT).as_posix() for path in pages.PAGES} - {"README.md"} <= linked


def test_the_help_of_a_command_names_its_page() -> None:
    for command, folder in PAGE_OF.items():
        *_, last = avloc(command, "--help").stdout.strip().splitlines()
        assert last.strip() == f"Reference: {ROOT}/avloc/{folder}/README.md"
        assert f"{command} --help" in pages.shown(pages.text(folder))


def sentences(path: Path) -> set[str]:
    """Sentences of more than five words, and those of more than eight in the cells of tables."""
    out = set()
    for line in prose(path).splitlines():
        is_row = line.startswith("|")
        parts = re.split(r"(?<=[.:;])\s+|\s*\|\s*" if is_row else r"(?<=[.:])\s+", line)
        out |= {part.strip() for part in parts if len(part.split()) > (8 if is_row else 5)}
    return out


def test_no_sentence_is_in_two_pages() -> None:
    seen: dict[str, Path] = {}
    for path in pages.PAGES:
        for sentence in sentences(path):
            assert sentence not in seen, f"{path} and {seen[sentence]}"
            seen[sentence] = path


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_has_nothing_to_fill_in(path: Path) -> None:
    assert not re.search(r"TODO|FIXME|TBD|XXX", path.read_text(encoding="utf-8"))


def test_every_published_list_is_named() -> None:
    data = ROOT / "avloc" / "annotations" / "data"
    lists = [path.name.removesuffix(".txt.xz") for path in data.glob("*.txt.xz")]
    assert lists
    assert [name for name in lists if f"`{name}`" not in pages.text("prepare")] == []


def declared_exit_codes() -> set[int]:
    family = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AvlocError)]
    edges = {value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    return {0, 130, 141, 143} | {kind.exit_code for kind in family} | edges


def test_readme_has_exactly_the_exit_codes_there_are() -> None:
    section = README.partition("## Exit codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+(?:, \d+)*) \|", section, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(", ")} == declared_exit_codes()


def test_every_field_of_a_json_line_is_described() -> None:
    from avloc.localize import Localization

    assert [field for field in Localization(input="").as_json() if f"`{field}`" not in pages.text("localize")] == []


def test_every_field_of_a_report_is_described() -> None:
    kinds = (EvalReport, MapScores, Summary, ClipRow, ClipScore)
    fields = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    assert [field for field in fields if f"`{field}`" not in pages.text("evaluate")] == []


def test_every_test_set_and_protocol_is_described() -> None:
    help_text = re.sub(r"-\s+", "-", " ".join(avloc("eval", "--help").stdout.split()))  # lines break at hyphens
    for names in (TESTSETS, PROTOCOLS):
        assert [name for name in names if f"`{name}`" not in pages.text("evaluate")] == []
        assert [name for name in names if not re.search(rf"[ ,]{name}[ ,.;]", help_text)] == []


def test_every_method_is_in_the_table_of_readme() -> None:
    assert [name for name in SPECS if f"`{name}`" not in README] == []


def test_the_protocol_line_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    nothing: dict[str, Any] = {"model_card": {}, "missing": {}, "maps": {}, "baselines": {}, "sweep": {}, "clips": []}
    names = {"testset": "vggss", "model": "", "model_hash": "", "data_hash": "", "box_rule": "union"}
    report = EvalReport(protocol=Protocol(), n_expected=0, not_run={}, **names, **nothing)
    print_session(Session(evaluation=Evaluation(reports=[report], store=None), chosen=[report]), as_json=False)
    assert pages.block(pages.text("evaluate"), "the protocol line") in capsys.readouterr().out


def test_every_published_weight_and_where_it_lies_is_described() -> None:
    from avloc.weights import CNN14, DETR, LITE0, YAMNET, imagenet_weights

    page = pages.text("weights")
    for weight in (CNN14, DETR, imagenet_weights("resnet18")):
        assert [path for path in weight.files_under(Path()) if f"`{path.as_posix()}`" not in page] == []
        assert weight.files[0].url.split("/resolve/")[0].split("/files/")[0] in page
    for weight in (LITE0, YAMNET):
        assert f"`{weight.files[0].name}`" in page
        assert f"`{weight.package.replace('_', '-')}`" in page or not weight.package


def test_the_command_that_trains_on_concepts_has_their_width() -> None:
    from avloc.networks.concepts import DIM

    assert f"--dim {DIM} --set audio_teacher=yamnet --set visual_teacher=lite0" in pages.text("distill")


def test_the_overlap_that_is_stated_is_that_of_the_lists() -> None:
    overlap = set(published_list("vggss_144k")) & set(published_list("vggss_test"))
    assert f"{len(overlap)} of the 5158 VGG-SS test clips" in pages.text("prepare")


def test_the_baselines_that_are_shown_follow_from_the_boxes() -> None:
    rows, columns = np.mgrid[:224, :224] - 111.5
    distance = np.hypot(rows, columns)
    disc = distance <= np.median(distance)
    boxes = published_boxes()
    truths = [ground_truth(entry.boxes, boxes.rule, 224) for entry in boxes.by_id.values()]
    assert len(truths) == 5158
    scores = {
        name: summarise([single_scoring.ciou(mask, truth) for truth in truths])
        for name, mask in (("centre disc", disc), ("whole frame", np.ones_like(disc)))
    }
    table = pages.shown(pages.text("evaluate"))["eval --testset vggss --maps baselines"]
    for name, score in scores.items():
        row = re.search(rf"^{name} +([\d.]+) +[\d.-]+ +([\d.]+) ", table, re.MULTILINE)
        assert row
        assert row.groups() == (f"{100 * score.ciou_50:.2f}", f"{100 * score.auc:.2f}")
    covered = np.array([truth.mean() for truth in truths])
    best = np.divide(np.minimum(covered, 0.5), np.maximum(covered, 0.5))
    assert re.search(rf"^ceiling +{100 * np.mean(best >= 0.5):.2f} ", table, re.MULTILINE)


# --- the two commands for a fresh machine


def test_ci_runs_the_commands_of_readme() -> None:
    result = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run"), "--commands"], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == pages.block(README, "run the main job") + pages.block(README, "run the tests")


def test_each_of_the_two_commands_is_one_line_that_starts_from_nothing() -> None:
    for name in ("run the main job", "run the tests"):
        (line,) = pages.block(README, name).splitlines()
        assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install ")


def test_the_main_job_needs_nothing_but_what_is_shipped() -> None:
    last = pages.block(README, "run the main job").strip().rpartition("&& ")[2]
    _, _, *arguments = shlex.split(last)
    assert arguments[0] == "tests/data/room.jpg"
    assert arguments[arguments.index("--audio") + 1] == "tests/data/guitar.flac"


# --- the package


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    result = avloc("--help", loaded=tmp_path / "loaded.txt")
    assert result.returncode == 0, result.stderr
    assert "Usage: avloc" in result.stdout
    loaded = set((tmp_path / "loaded.txt").read_text().split())
    assert "avloc.cli" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_the_version_is_the_same_everywhere() -> None:
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "avloc/__init__.py"
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert avloc("--version").stdout == f"avloc {package.__version__}\n"


def test_the_changelog_begins_with_what_is_unreleased_and_lists_the_version() -> None:
    first, *released = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)
    assert first == "Unreleased"
    assert released[0] == package.__version__


def foreign_imports() -> dict[str, set[str]]:
    """Packages imported anywhere in `avloc`, by the file that imports them."""
    out: dict[str, set[str]] = {}
    for path in (ROOT / "avloc").rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        out[path.relative_to(ROOT).as_posix()] = names - sys.stdlib_module_names - {"avloc"}
    return out


EXTRAS = {"avloc/media/superpixels.py": "sacl"}
"""File -> the extra that it needs, which its error names where it is not installed."""


def named(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^\w.-]", text)[0]) for text in requirements}


def test_every_import_is_a_declared_dependency() -> None:
    declared, providers = named(PYPROJECT["project"]["dependencies"]), packages_distributions()
    extras = {path: named(PYPROJECT["project"]["optional-dependencies"][extra]) for path, extra in EXTRAS.items()}
    undeclared = {
        (path, name)
        for path, names in foreign_imports().items()
        for name in names
        if not (declared | extras.get(path, set())) & {normal(provider) for provider in providers.get(name, [])}
    }
    assert undeclared == set()


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control; none where there is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    return tuple(Path(name) for name in listed.stdout.split("\0") if name)


def test_the_top_level_holds_nothing_else() -> None:
    if not tracked():
        pytest.skip("not a checkout")
    top = {path.parts[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


MACHINE_PATH = re.compile(r"(?<![\w.$}/~-])/(?:home|root|Users|work|tmp|mnt|media|scratch|opt|srv|data\d*)/\w+")


def shipped_texts() -> Iterator[Path]:
    yield from (ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml", ".ci/run"))
    yield from (ROOT / "completions").iterdir()
    yield from (path for path in (ROOT / "avloc").rglob("*") if path.suffix in (".py", ".md", ".json", ".toml", ".txt"))


def test_no_file_names_a_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in shipped_texts()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == set()
