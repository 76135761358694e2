"""Runs that differ only in their seed: the models at a path, and mean and standard deviation of their scores.

Epochs selected on the test set are never averaged with others.
"""

from __future__ import annotations

import filecmp
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from avloc import __version__
from avloc.config import LAST_EPOCH, dotted
from avloc.errors import Refused, UsageError
from avloc.evaluate.records import NOT_STATED, EvalReport
from avloc.metrics.intervals import METRICS
from avloc.protocols import Protocol

RUNS_SCHEMA = "avloc.runs/1"
_OWN_TO_A_RUN = ("name", "source", "version", "torch", "epoch", "config.seed", "config.workers", "config.compile")
"""Entries of a model's card that may differ within a group."""


@dataclass(frozen=True)
class RunModels:
    """The models of one run."""

    name: str
    """Name in tables, unique within a command."""
    selected: Path
    """The selected epoch."""
    last: Path | None
    """The last epoch: the same path if the files are equal byte for byte; None if there is only one model."""

    @property
    def models(self) -> dict[Path, str]:
        """Files to score, each once -> name in tables."""
        names = {self.selected: self.name}
        if self.last is not None:
            names.setdefault(self.last, f"{self.name} (last epoch)")
        return names


def expand(paths: Sequence[Path]) -> list[RunModels]:
    """The models at each path: a model file, a folder of published files, a run, or a folder of `seed-N` runs.

    A model named twice counts once.

    Raises:
        UsageError: no model at a path, or a run in the folder has none yet.
    """
    found = [run for path in paths for run in _expand(path)]
    runs = list({run.selected.resolve(): run for run in reversed(found)}.values())[::-1]
    names = Counter(run.name for run in runs)
    return [replace(run, name=str(_place(run))) if names[run.name] > 1 else run for run in runs]


def _expand(path: Path) -> list[RunModels]:
    if not path.is_dir():
        if not path.is_file():
            hint = "Name a run folder, a folder of seed-N runs, a .safetensors or a published .pth."
            raise UsageError(f"no model at {path}", hint=hint)
        return [RunModels(path.stem, path, None)]
    from avloc.checkpoint import MODEL_NAME, published_files

    own = (path / MODEL_NAME).is_file()
    members = sorted((entry for entry in path.glob("seed-*") if entry.is_dir()), key=_by_number)
    if own and members:
        raise UsageError(f"{path} is a run and holds others ({members[0].name}, ...)", hint="Name the runs one by one.")
    if own:
        return [_run(path, path.resolve().name)]
    without = [member.name for member in members if not (member / MODEL_NAME).is_file()]
    if not members and published_files(path):
        return [RunModels(path.resolve().name, path, None)]
    if without or not members:
        hint = "Name the runs that have one, or finish the others: repeat the same avloc train."
        what = f"{', '.join(without)} of {path} has no {MODEL_NAME} yet" if without else f"no {MODEL_NAME} in {path}"
        raise UsageError(what, hint=hint if without else "Name a run folder or a folder of seed-N runs.")
    return [_run(member, f"{path.resolve().name}/{member.name}") for member in members]


def _run(folder: Path, name: str) -> RunModels:
    from avloc.checkpoint import LAST_NAME, MODEL_NAME

    selected, last = folder / MODEL_NAME, folder / LAST_NAME
    if not last.is_file():
        return RunModels(name, selected, None)
    same = filecmp.cmp(selected, last, shallow=False)
    return RunModels(name, selected, selected if same else last)


def _place(run: RunModels) -> Path:
    return run.selected.parent if run.last is not None else run.selected


def _by_number(folder: Path) -> tuple[int, str]:
    number = folder.name.removeprefix("seed-")
    return (int(number) if number.isdecimal() else -1, folder.name)


def settings_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """The training settings of a card, with dotted names, without those that may differ within a group."""
    return {name: value for name, value in dotted(card).items() if name not in _OWN_TO_A_RUN}


@dataclass(frozen=True, kw_only=True)
class RunScore:
    """One model of a group."""

    run: str
    seed: int | None
    """None if the card has none."""
    epoch: int | None
    model_hash: str
    maps: dict[str, dict[str, float]]
    """Kind of map -> `ciou_50`, `auc`, `mean_ciou`."""


@dataclass(frozen=True, kw_only=True)
class SelectionScores:
    """The selected epoch of every run, or the last."""

    selection: str
    """How the epochs were selected, as the model files state it."""
    runs: list[RunScore]
    maps: dict[str, dict[str, dict[str, float]]]
    """Kind of map -> metric -> `mean` and sample standard deviation `std` over the runs; NaN for one run."""


@dataclass(frozen=True, kw_only=True)
class RunsSummary:
    """A group of runs on one test set under one protocol."""

    testset: str
    data_hash: str
    protocol: Protocol
    box_rule: str
    n_scored: int
    n_expected: int
    blocks: dict[str, SelectionScores]
    """How the epochs were selected (`EvalReport.selection`) -> scores."""
    unfinished: list[str]
    """Runs with fewer epochs than configured."""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        fields = {**vars(self), "protocol": self.protocol.as_json()}
        fields["blocks"] = {name: asdict(block) for name, block in self.blocks.items()}
        return {"schema": RUNS_SCHEMA, "version": __version__, **fields}


def summarise_runs(selected: Sequence[EvalReport], last: Sequence[EvalReport | None] = ()) -> RunsSummary:
    """Mean and standard deviation over runs that differ only in their seed.

    Args:
        selected: the selected epoch of each run.
        last: the last epoch of each run in the same order, None if unknown; or empty.

    Raises:
        Refused: there is no run, a model is given twice, or the runs differ in test set, data, protocol, maps, clips,
            epoch selection, or another setting than the seed.
    """
    if not selected:
        raise Refused("no run to summarise")
    last = last or [None] * len(selected)
    if len(last) != len(selected):
        raise ValueError(f"{len(last)} last epochs for {len(selected)} runs")
    known = [report for report in last if report is not None]
    check_alike([*selected, *known])
    _check_group(selected)
    first, rule = selected[0], selected[0].selection
    blocks = {rule: _block(selected)}
    if known and rule != LAST_EPOCH:
        blocks[LAST_EPOCH] = _block(known, LAST_EPOCH)
    return RunsSummary(
        testset=first.testset,
        data_hash=first.data_hash,
        protocol=first.protocol,
        box_rule=first.box_rule,
        n_scored=first.n_scored,
        n_expected=first.n_expected,
        blocks=blocks,
        unfinished=[one.model for one, final in zip(selected, last, strict=True) if _unfinished(one, final)],
    )


def summaries(selected: Sequence[EvalReport], last: Sequence[EvalReport | None] = ()) -> list[RunsSummary]:
    """`summarise_runs` of each group (`group_key`), in the order of their first runs.

    A model given twice counts once. A model without a configuration in its card is a group of its own.
    """
    last = last or [None] * len(selected)
    groups: dict[str, dict[str, tuple[EvalReport, EvalReport | None]]] = {}
    for position, pair in enumerate(zip(selected, last, strict=True)):
        alone = "" if "config" in pair[0].model_card else f" {position}"
        groups.setdefault(group_key(pair[0]) + alone, {}).setdefault(pair[0].model_hash, pair)
    return [
        summarise_runs([one for one, _ in pairs.values()], [other for _, other in pairs.values()])
        for pairs in groups.values()
    ]


def group_key(report: EvalReport) -> str:
    """Equal for reports with the same scoring rules whose models differ only in their seed."""
    scored = [report.testset, report.data_hash, report.protocol.as_json(), report.box_rule, report.selection]
    ids = [row.id for row in report.clips]
    return json.dumps([scored, list(report.maps), ids, settings_of(report.model_card)], sort_keys=True)


def check_alike(reports: Sequence[EvalReport]) -> None:
    """Refuse reports on different data or by different rules."""
    fields = {"test set": "testset", "data": "data_hash", "protocol": "protocol", "box rule": "box_rule"}
    first = reports[0]
    for other in reports[1:]:
        differ = [name for name, field in fields.items() if getattr(other, field) != getattr(first, field)]
        if differ:
            raise Refused(f"{first.model} and {other.model} were scored differently: {', '.join(differ)}")


def _check_group(reports: Sequence[EvalReport]) -> None:
    """Refuse runs that differ in clips, maps or training settings other than the seed, and a model given twice."""
    first, hashes = reports[0], {reports[0].model_hash: reports[0].model}
    settings = settings_of(first.model_card)
    for other in reports[1:]:
        names = f"{first.model} and {other.model}"
        if other.selection != first.selection:
            hint = "Score them separately: their means are not comparable."
            raise Refused(f"{names} chose their epochs differently ({first.selection}, {other.selection})", hint=hint)
        theirs = settings_of(other.model_card)
        differ = sorted(name for name in {**settings, **theirs} if settings.get(name) != theirs.get(name))
        if differ:
            raise Refused(f"{names} differ in more than the seed: {', '.join(differ)}")
        if list(other.maps) != list(first.maps) or [c.id for c in other.clips] != [c.id for c in first.clips]:
            raise Refused(f"{names} have scores of different maps or clips")
        if other.model_hash in hashes:
            raise Refused(f"{hashes[other.model_hash]} and {other.model} are the same model; it counts once")
        hashes[other.model_hash] = other.model


def _block(reports: Sequence[EvalReport], selection: str = "") -> SelectionScores:
    stated = str(reports[0].model_card.get("selection") or NOT_STATED)
    return SelectionScores(
        selection=selection or stated,
        runs=[_score(report) for report in reports],
        maps={
            kind: {name: spread([getattr(r.maps[kind].overall, name) for r in reports]) for name in METRICS}
            for kind in reports[0].maps
        },
    )


def _score(report: EvalReport) -> RunScore:
    card = report.model_card
    return RunScore(
        run=report.model,
        seed=card.get("config", {}).get("seed"),
        epoch=card.get("epoch"),
        model_hash=report.model_hash,
        maps={kind: {name: getattr(scores.overall, name) for name in METRICS} for kind, scores in report.maps.items()},
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation (n - 1 in the denominator); the latter NaN for one value."""
    std = statistics.stdev(values) if len(values) > 1 else float("nan")
    return {"mean": statistics.fmean(values), "std": std}


def _unfinished(report: EvalReport, last: EvalReport | None) -> bool:
    final = last or (report if report.selection == LAST_EPOCH else None)
    card = final.model_card if final else {}
    epoch, epochs = card.get("epoch"), card.get("config", {}).get("epochs")
    return epoch is not None and epochs is not None and epoch < epochs
