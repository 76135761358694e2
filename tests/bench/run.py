"""Rows and table of `python -m tests.bench`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import rows_data, rows_localize, rows_machine, rows_memory, rows_scoring, rows_training
from tests.bench.timing import AVLOC, MACHINE, REFERENCE, Options, Row, header

ROWS: dict[str, Callable[[Options, Path], list[Row]]] = {
    "machine": rows_machine.machine,
    "prepare": rows_data.prepare,
    "distill-cache": rows_data.distill_cache,
    "loading": rows_data.loading,
    "training step": rows_training.training_steps,
    "training step of methods": rows_training.method_steps,
    "whole epoch": rows_training.whole_epoch,
    "contrastive memory": rows_memory.contrastive_memory,
    "inference": rows_scoring.inference,
    "evaluation": rows_scoring.evaluation,
    "evaluation share": rows_scoring.evaluation_share,
    "scoring": rows_scoring.scoring,
    "localize cold": rows_localize.localize_cold,
    "localize warm": rows_localize.localize_warm,
    "overlay video": rows_localize.overlay_video,
    "video": rows_localize.video,
}
_SIDES = (REFERENCE, AVLOC, MACHINE)
_SHOWN = ("row", "what", "unit", *_SIDES, "ratio")


def measure(arguments: argparse.Namespace) -> None:
    """Measure the requested rows, one at a time."""
    options = Options(
        repeats=arguments.repeats,
        clips=arguments.clips,
        batch=arguments.batch,
        video_seconds=arguments.video_seconds,
        quick=arguments.quick,
        methods=tuple(arguments.method),
    )
    about, rows = header(), []
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    for name in arguments.row or ROWS:
        with tempfile.TemporaryDirectory() as work:
            measured = ROWS[name](options, Path(work))
        for row in measured:
            print(format_row(row), flush=True)
        rows += measured
        if arguments.json:
            arguments.json.write_text(json.dumps({"header": about, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    print(f"\n{format_table(rows)}")


def format_table(rows: list[Row]) -> str:
    """All rows as a Markdown table: medians, and smallest and largest value in brackets."""
    sides = [side for side in _SIDES if any(row.get(side) for row in rows)]
    lines = [("row", *sides, "unit", "ratio"), ("---", *["--:"] * len(sides), "---", "--:")]
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
        lines.append((row["row"], *(_values(row[side]) if row.get(side) else "" for side in sides), row["unit"], ratio))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_row(row: Row) -> str:
    """Format a row as text: name and figures, description, further facts."""
    sides = [f"{side} {_values(row[side])}" for side in _SIDES if row.get(side)]
    figures = f"{', '.join(sides)} {row['unit']}"
    ratio = f"  x {row['ratio']:.2f}" if row["ratio"] else ""
    facts = [f"    {name}: {json.dumps(value)}" for name, value in row.items() if name not in _SHOWN]
    return "\n".join([f"\n{row['row']}: {figures}{ratio}", f"    {row['what']}", *facts])


def _values(side: dict) -> str:
    return f"{side['median']:g} [{min(side['all']):g} .. {max(side['all']):g}]"
