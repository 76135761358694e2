"""What the command line runs for `eval --testset ave` and `localize --events` (`avloc.registry.MODES`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from avloc.console.terminal import live
from avloc.errors import MissingClips, NoInputLeft


def evaluate(
    *,
    testset: str,
    store: Path | None,
    run: Sequence[Path] | None,
    model: Sequence[Path] | None,
    clean_split: bool,
    max_missing: int,
    device: str,
    as_json: bool,
) -> None:
    """Score models on the test part of AVE and print the reports.

    Raises:
        NoInputLeft: no row has features.
        MissingClips: more rows than `max_missing` have none.
    """
    from avloc.ave.evaluation import EventOptions, evaluate_events
    from avloc.ave.printing import print_report

    models = (*(run or ()), *(model or ()))
    options = EventOptions(testset=testset, models=models, store=store, clean_split=clean_split, device=device)
    with live() as listener:
        reports = evaluate_events(options, listener)
    for report in reports:
        print_report(report, as_json=as_json)
    if not reports[0].n_scored:
        raise NoInputLeft(f"none of {reports[0].n_expected} rows could be scored: there are no features of their clips")
    missing = len(reports[0].missing)
    if missing > max_missing:
        hint = f"Allow it with --max-missing {missing}."
        raise MissingClips(f"{missing} rows are missing; --max-missing allows {max_missing}", hint=hint)


def localize(
    *, inputs: Sequence[str], out: str, model: Path | None, weights_dir: Path | None, device: str, as_json: bool
) -> tuple[list[str], int, bool]:
    """Predict and print the events of each input.

    Returns:
        The inputs that failed, the number of inputs, and whether a timeline does not cover all of its video.
    """
    from avloc.ave.localization import VideoEventOptions, localize_events
    from avloc.ave.printing import print_video_events

    options = VideoEventOptions(
        inputs=tuple(inputs), model=model, weights_dir=weights_dir, out=out, as_json=as_json, device=device
    )
    results = []
    with live() as listener, closing(localize_events(options, listener)) as found:
        for result in found:
            print_video_events(result, listener, as_json=as_json)
            results.append((result.input, result.timeline is None, bool(result.error)))
    return [name for name, failed, _ in results if failed], len(results), any(error for *_, error in results)
