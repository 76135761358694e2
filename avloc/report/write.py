"""Write the files of a report."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from avloc.errors import UsageError
from avloc.files import atomic_path, folder_lock, write_bytes
from avloc.json_text import finite, to_json
from avloc.report.page import outcome, page
from avloc.report.pictures import ReportPicture

SCHEMA = "avloc.report/1"
_LOCK_TIMEOUT_S = 60.0
COLUMNS = (
    *("testset", "model", "selection", "protocol", "id", "label", "size", "area", "flags"),
    *("map", "ciou", "area_ciou", "iou", "hit", "outcome"),
)
"""Columns of `clips.csv`, one row per clip and map."""


def prepare_folder(folder: Path) -> None:
    """Create the folder of a report and check that it is writable, before the evaluation runs.

    Raises:
        UsageError: the folder cannot be created.
        OSError: it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--report {folder}: the folder cannot be created ({error.strerror})") from None
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_report(
    folder: Path,
    about: dict[str, Any],
    reports: Sequence[dict[str, Any]],
    pictures: Sequence[ReportPicture],
    further: Sequence[dict[str, Any]] = (),
) -> None:
    """Write `summary.json`, `clips.jsonl`, `clips.csv` and `index.html`, each replaced atomically.

    The output is deterministic. The page is written last, so that the files it refers to exist.

    Args:
        folder: created if missing.
        about: plain data about the evaluation: `command`, versions.
        reports: `EvalReport.as_json()` of every model and protocol; NaN becomes null (empty in the CSV).
        pictures: clips of the gallery; the page lists all clips, with or without a picture.
        further: records of groups of runs and of comparisons.

    Raises:
        OSError: a file cannot be written.
        Refused: another process has been writing a report here for a minute.
    """
    prepare_folder(folder)
    heads = [{name: value for name, value in report.items() if name != "clips"} for report in reports]
    summary = {"schema": SCHEMA, "about": about, "reports": heads, "further": list(further)}
    with folder_lock(folder, wait_s=_LOCK_TIMEOUT_S):
        write_bytes(folder / "summary.json", f"{to_json(summary, indent=2)}\n".encode())
        with atomic_path(folder / "clips.jsonl") as part, part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(f"{to_json(row)}\n" for row in _rows(reports))
        # Lone surrogates are escaped as in JSON.
        with (
            atomic_path(folder / "clips.csv") as part,
            part.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(line for row in _rows(reports) for line in _flat_lines(row))
        write_bytes(folder / "index.html", page(about, reports, pictures, further).encode())


def _rows(reports: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per clip and report, with the outcome of each score."""
    for report in reports:
        head = {"testset": report["testset"], "model": report["model"], "selection": report.get("selection", "")}
        head["protocol"] = report["protocol"]["name"]
        for clip in report["clips"]:
            scores = {kind: {**score, "outcome": outcome(score)} for kind, score in clip["scores"].items()}
            yield {**head, **clip, "scores": scores}


def _flat_lines(row: dict[str, Any]) -> Iterator[list[Any]]:
    for kind, score in finite(row["scores"]).items():
        fields = {**row, "flags": " ".join(row["flags"]), "map": kind, **score, "hit": int(score["hit"])}
        yield [fields.get(name) for name in COLUMNS]
