"""One `avloc eval` command: models, runs and groups of runs scored together, summed up and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from avloc.errors import UsageError
from avloc.evaluate.plan import EvalOptions
from avloc.evaluate.records import EvalReport
from avloc.evaluate.run import Evaluation, evaluate
from avloc.evaluate.runs import Comparison, RunModels, RunsSummary, compare, expand, summaries
from avloc.events import Listener, silent


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything that one command has to say."""

    evaluation: Evaluation
    chosen: list[EvalReport]
    """Reports of the models that were named and of the chosen epoch of each run."""
    summaries: list[RunsSummary] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)


def evaluate_runs(
    options: EvalOptions, paths: Sequence[Path], against: Path | None = None, listener: Listener = silent
) -> Session:
    """Score what some paths mean, the last epoch of each run included.

    Args:
        options: what to score on; its models are replaced by those of the paths.
        paths: model files, run folders, folders of `seed-N` runs; none means the model in the package.
        against: a model or run with which every other is compared clip by clip.
        listener: hears notices and progress.

    Raises:
        UsageError: nothing lies at a path, or `against` is not one model.
        Refused: see `evaluate` and `avloc.evaluate.runs`.
    """
    if options.baselines_only:
        evaluation = evaluate(options, listener)
        return Session(evaluation=evaluation, chosen=evaluation.reports)
    runs, rival = expand(paths), _one(against)
    if rival is not None and not runs:
        raise UsageError("--compare needs a model to compare with, as in: avloc eval RUN --compare OTHER")
    every = [*runs, *([rival] if rival and rival.selected not in [run.selected for run in runs] else [])]
    named = {path: name for run in every for path, name in zip(run.models, _names(run), strict=True)}
    evaluation = evaluate(replace(options, models=tuple(named), names=tuple(named.values())), listener)
    if not runs:
        return Session(evaluation=evaluation, chosen=evaluation.reports)
    width = len(options.records())
    of = {path: evaluation.reports[i * width : (i + 1) * width] for i, path in enumerate(named)}
    return Session(
        evaluation=evaluation,
        chosen=[report for run in every for report in of[run.selected]],
        summaries=_summaries(runs, of, width),
        comparisons=[
            compare(mine, theirs)
            for run in runs
            if rival and run.selected != rival.selected
            for mine, theirs in zip(of[run.selected], of[rival.selected], strict=True)
        ],
    )


def _one(path: Path | None) -> RunModels | None:
    if path is None:
        return None
    found = expand([path])
    if len(found) > 1:
        raise UsageError(f"--compare {path} means {len(found)} runs; valid: one model or run")
    return found[0]


def _names(run: RunModels) -> list[str]:
    return [run.name, f"{run.name} (last epoch)"][: len(run.models)]


def _summaries(runs: Sequence[RunModels], of: dict[Path, list[EvalReport]], width: int) -> list[RunsSummary]:
    """Of run folders, and of model files that differ in their seed alone; a file by itself sums up to nothing."""
    found = [
        summary
        for column in range(width)
        for summary in summaries(
            [of[run.selected][column] for run in runs],
            [of[run.last][column] if run.last else None for run in runs],
        )
    ]
    folders = {run.name for run in runs if run.last is not None}
    return [
        summary
        for summary in found
        if any(len(block.runs) > 1 or block.runs[0].run in folders for block in summary.blocks.values())
    ]
