"""Evaluate models on the test sets of AVE: accuracy of events per second, and of cross-modal matching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avloc import __version__
from avloc.ave import metrics
from avloc.ave.event_table import BACKGROUND, EventTable
from avloc.ave.features import EventSet
from avloc.ave.inference import EventPredictor, model_classes
from avloc.checkpoint import ModelFile, load_model
from avloc.errors import NoInputLeft, UsageError
from avloc.evaluate.testset import find_store
from avloc.progress import Listener, Notice, silent

AVE_TESTSET, WEAK_TESTSET, MATCH_TESTSET = "ave", "ave-weak", "ave-match"
"""Test sets: models trained with labels per second, models trained with labels per clip, cross-modal matching."""
SCHEMA = "avloc.eval-events/1"
_TRAINED_FOR = {("ave", False): AVE_TESTSET, ("ave", True): WEAK_TESTSET, ("ave-match", None): MATCH_TESTSET}
"""Method and its setting `weak` -> test set."""


@dataclass(frozen=True, kw_only=True)
class EventReport:
    """The scores of one model."""

    testset: str
    store: str
    events_hash: str
    """Hash of the annotations."""
    model: str
    model_hash: str
    selection: str
    clean_split: bool
    n_expected: int
    """Rows of the test part, except those left out by `clean_split`."""
    n_scored: int
    missing: tuple[str, ...]
    """Clips without features."""
    shared: tuple[str, ...]
    """Videos of the test part that are also in the training part, scored or left out."""
    accuracy: float = math.nan
    """Accuracy per second; background is a class."""
    classes: tuple[str, ...] = ()
    """Names of the classes, background last."""
    class_accuracy: tuple[float, ...] = ()
    """Accuracy on the seconds of each class; NaN for a class without any."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Seconds of each class (row) predicted as each class (column)."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Accuracy of predicting the commonest class, background, or the clip's true event for every second; in matching,
    of a random window."""
    visual_to_audio: float = math.nan
    """Share of the events of the video that are found at their second in the audio."""
    audio_to_visual: float = math.nan
    skipped: int = 0
    """Rows that cannot be matched: the event fills the clip, or there is none."""

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`, before NaN becomes null."""
        return {"schema": SCHEMA, "version": __version__, **asdict(self)}


def evaluate_events(
    models: Sequence[Path],
    testset: str,
    store: Path | None = None,
    *,
    clean_split: bool = False,
    device: str = "auto",
    listener: Listener = silent,
) -> list[EventReport]:
    """Score each model on the test part of a store of events.

    Args:
        models: model files or run folders.
        testset: `ave`, `ave-weak` or `ave-match`.
        store: as `find_store` takes it.
        clean_split: leave out rows of videos that are also in the training part.
        device: runs the models, in float32.
        listener: receives progress and notices.

    Raises:
        UsageError: no model is named, one does not fit the test set, or the store has no test part.
        StoreNotFound: there is no store.
        Refused: it has no events, or its features are unfinished.
        WeightsError: a model cannot be read.
    """
    if not models:
        hint = "Train one: avloc train STORE --method ave --out RUN"
        raise UsageError(f"--testset {testset} needs a model; the one in the package predicts maps", hint=hint)
    loaded = [load_model(path) for path in models]
    for model in loaded:
        _check_method(model, testset)
    test = _test_part(find_store(AVE_TESTSET, store), clean_split, listener, match=testset == MATCH_TESTSET)
    return [_report(model, test, testset, device, listener) for model in loaded]


def _check_method(model: ModelFile, testset: str) -> None:
    """Refuse a model that was not trained for the test set."""
    method, weak = model.config.method, model.config.own.get("weak")
    fitting = _TRAINED_FOR.get((method, weak))
    if fitting != testset:
        valid = f"--testset {fitting}" if fitting else "a model of --method ave or ave-match"
        labels = " trained with weak labels" if fitting == WEAK_TESTSET else ""
        raise UsageError(f"{model.path} is a model of {method}{labels}, not for --testset {testset}; valid: {valid}")


@dataclass(frozen=True, kw_only=True)
class _TestPart:
    """The rows to score; `missing` and `shared` as in `EventReport`."""

    folder: Path
    table: EventTable
    rows: EventSet
    missing: tuple[str, ...]
    shared: tuple[str, ...]
    clean_split: bool


def _test_part(folder: Path, clean_split: bool, listener: Listener, *, match: bool) -> _TestPart:
    table = EventTable.of(folder)
    test = table.part("test", match=match)
    if not test:
        hint = "Prepare the folder with the published order files beside the annotations."
        raise UsageError(f"{folder} has no test part", hint=hint)
    trained = {row.annotation.video for row in table.part("train", match=match)}
    shared = tuple(sorted({row.annotation.video for row in test} & trained))
    if shared:
        action = "left out" if clean_split else "scored too; --clean-split leaves them out"
        listener(Notice(f"{len(shared)} videos of the test part are in the training part as well, {action}"))
    if clean_split:
        test = [row for row in test if row.annotation.video not in shared]
        if not test:
            raise UsageError("--clean-split leaves nothing to score: all test videos are in the training part")
    rows = EventSet(folder, table, test, pooled=match)
    there = {row.clip for row in rows.rows}
    missing = tuple(row.clip for row in test if row.clip not in there)
    return _TestPart(folder=folder, table=table, rows=rows, missing=missing, shared=shared, clean_split=clean_split)


def _report(model: ModelFile, test: _TestPart, testset: str, device: str, listener: Listener) -> EventReport:
    trained = model.card.get("hints")
    for hints in (test.rows.audio, test.rows.visual):
        teacher = hints.stamp["teacher"]
        if not isinstance(trained, dict) or trained.get(teacher) != hints.stamp:
            listener(Notice(f"{model.name} was not trained on the features of {teacher} in {test.folder}"))
    score = _score_matching if testset == MATCH_TESTSET else _score_events
    return EventReport(
        testset=testset,
        store=str(test.folder),
        events_hash=test.table.hash(),
        model=model.name,
        model_hash=model.sha256,
        selection=str(model.card.get("selection", "not said")),
        clean_split=test.clean_split,
        n_expected=len(test.rows) + len(test.missing),
        n_scored=len(test.rows),
        missing=test.missing,
        shared=test.shared,
        **score(model, test, device, listener),
    )


def _score_events(model: ModelFile, test: _TestPart, device: str, listener: Listener) -> dict[str, Any]:
    classes = (*test.table.classes, BACKGROUND)
    if model_classes(model) != classes:
        raise UsageError(f"{model.path} predicts other events than {test.folder} has, or in another order")
    predictor, truth = EventPredictor(model, device), test.rows.labels.numpy()
    predicted = np.zeros_like(truth)
    for rows, batch in test.rows.batches(listener):
        predicted[rows] = predictor.predict(batch.visual, batch.audio).scores.argmax(2).cpu().numpy()
    counts = metrics.confusion(predicted, truth, len(classes))
    return {
        "classes": classes,
        "accuracy": metrics.accuracy(predicted, truth),
        "class_accuracy": tuple(metrics.class_accuracies(counts).tolist()),
        "confusion": tuple(map(tuple, counts.tolist())),
        "baselines": {
            "commonest class": metrics.majority_accuracy(truth),
            "background": metrics.accuracy(len(classes) - 1, truth),
            "the clip's event": metrics.accuracy(test.rows.classes.numpy()[:, None], truth),
        },
    }


def _score_matching(model: ModelFile, test: _TestPart, device: str, listener: Listener) -> dict[str, Any]:
    predictor, correct = EventPredictor(model, device), []
    events = (test.rows.labels != test.rows.background).numpy()
    for rows, batch in test.rows.batches(listener):
        for distance, event in zip(predictor.distances(batch).cpu().numpy(), events[rows], strict=True):
            if (sums := metrics.window_sums(distance, event)) is not None:
                correct.append(metrics.matched(sums, event))
    if not correct:
        raise NoInputLeft("nothing to match: the event of every test row fills the clip, or there is none")
    audio_to_visual, visual_to_audio = np.mean(correct, 0).tolist()
    return {
        "visual_to_audio": visual_to_audio,
        "audio_to_visual": audio_to_visual,
        "skipped": len(events) - len(correct),
        "baselines": {"window at random": metrics.chance_of_match(events)},
    }
