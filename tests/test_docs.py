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
from avloc.metrics import ClipScore, Summary, Truth, ground_truth, summarise
from avloc.protocols import PROTOCOLS, Protocol
from tests import readme
from tests.program import ROOT, avloc

README = readme.README.read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("torch", "torchvision", "transformers", "h5py", "av", "rich", "matplotlib", "librosa", "scipy", "numpy", "PIL")
TOP_LEVEL = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "avloc", "tests", "completions"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- README against the program


@pytest.mark.parametrize("arguments", readme.shown(README))
def test_readme_shows_what_the_program_prints(arguments: str) -> None:
    assert readme.shown(README)[arguments] == readme.output(arguments), "refresh: python -m tests.readme"


def test_readme_names_every_published_list() -> None:
    data = ROOT / "avloc" / "annotations" / "data"
    lists = [path.name.removesuffix(".txt.xz") for path in data.glob("*.txt.xz")]
    assert lists
    assert [name for name in lists if f"`{name}`" not in README] == []


def declared_exit_codes() -> set[int]:
    family = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AvlocError)]
    edges = {value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    return {0, 130, 141, 143} | {kind.exit_code for kind in family} | edges


def test_readme_has_exactly_the_exit_codes_there_are() -> None:
    section = README.partition("## Exit codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+(?:, \d+)*) \|", section, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(", ")} == declared_exit_codes()


def test_readme_names_every_field_of_a_json_line() -> None:
    from avloc.localize import Localization

    assert [field for field in Localization(input="").as_json() if f"`{field}`" not in README] == []


def test_readme_names_every_field_of_a_report() -> None:
    kinds = (EvalReport, MapScores, Summary, ClipRow, ClipScore)
    fields = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    assert [field for field in fields if f"`{field}`" not in README] == []


def test_readme_and_help_name_every_test_set_and_protocol() -> None:
    help_text = re.sub(r"-\s+", "-", " ".join(avloc("eval", "--help").stdout.split()))  # lines break at hyphens
    section = README.partition("### eval\n")[2].partition("\n### ")[0]
    for names in (TESTSETS, PROTOCOLS):
        assert [name for name in names if f"`{name}`" not in section] == []
        assert [name for name in names if not re.search(rf"[ ,]{name}[ ,.;]", help_text)] == []


def test_readme_shows_the_protocol_line(capsys: pytest.CaptureFixture[str]) -> None:
    nothing: dict[str, Any] = {"model_card": {}, "missing": {}, "maps": {}, "baselines": {}, "sweep": {}, "clips": []}
    names = {"testset": "vggss", "model": "", "model_hash": "", "data_hash": "", "box_rule": "union"}
    report = EvalReport(protocol=Protocol(), n_expected=0, not_run={}, **names, **nothing)
    print_session(Session(evaluation=Evaluation(reports=[report], store=None), chosen=[report]), as_json=False)
    assert readme.block(README, "the protocol line") in capsys.readouterr().out


def test_readme_names_every_published_weight_and_where_it_lies() -> None:
    from avloc.weights import CNN14, DETR, LITE0, YAMNET, imagenet_weights

    for weight in (CNN14, DETR, imagenet_weights("resnet18")):
        assert [path for path in weight.files_under(Path()) if f"`{path.as_posix()}`" not in README] == []
        assert weight.files[0].url.split("/resolve/")[0].split("/files/")[0] in README
    for weight in (LITE0, YAMNET):
        assert f"`{weight.files[0].name}`" in README
        assert f"`{weight.package.replace('_', '-')}`" in README or not weight.package


def test_readme_states_the_width_of_the_concepts() -> None:
    from avloc.networks.concepts import DIM

    assert f"a space of {DIM - 2} concepts" in README
    assert f"--out runs/concepts --dim {DIM} " in README


def test_the_overlap_that_readme_states_is_that_of_the_lists() -> None:
    overlap = set(published_list("vggss_144k")) & set(published_list("vggss_test"))
    assert f"holds {len(overlap)} of the 5158 VGG-SS test clips" in README


def test_the_scores_without_a_model_that_readme_states_follow_from_the_boxes() -> None:
    rows, columns = np.mgrid[:224, :224] - 111.5
    distance = np.hypot(rows, columns)
    disc = distance <= np.median(distance)
    every = np.ones_like(disc)
    boxes = published_boxes()
    truths = [ground_truth(entry.boxes, boxes.rule, 224) for entry in boxes.by_id.values()]
    assert len(truths) == 5158
    scores = [summarise([Truth(truth).ciou(mask) for truth in truths]) for mask in (disc, every)]
    shown = [f"{100 * value:.1f}" for score in scores for value in (score.ciou_50, score.auc)]
    assert "cIoU@0.5 {} and AUC {}. The whole picture reaches {} and {}.".format(*shown) in README
    covered = np.array([truth.mean() for truth in truths])
    best = np.divide(np.minimum(covered, 0.5), np.maximum(covered, 0.5))
    assert f"any mask of half the picture can reach is {100 * np.mean(best >= 0.5):.1f}." in README


# --- the two commands for a fresh machine


def test_ci_runs_the_commands_of_readme() -> None:
    result = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run"), "--commands"], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == readme.block(README, "run the main job") + readme.block(README, "run the tests")


def test_each_of_the_two_commands_is_one_line_that_starts_from_nothing() -> None:
    for name in ("run the main job", "run the tests"):
        (line,) = readme.block(README, name).splitlines()
        assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install ")


def test_the_main_job_needs_nothing_but_what_is_shipped() -> None:
    last = readme.block(README, "run the main job").strip().rpartition("&& ")[2]
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
    assert released[:1] in ([], [package.__version__])


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
"""File -> the extra that it needs, which it says where it is not installed."""


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
