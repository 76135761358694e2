"""`avloc eval --testset ave`: accuracy of events per second, and of cross-modal matching."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc import __version__
from avloc.ave import metrics
from avloc.errors import NoInputLeft, UsageError
from avloc.evaluate.testset import find_store
from avloc.progress import Listener, Notice, Progress, silent

if TYPE_CHECKING:
    from avloc.ave.event_table import EventTable
    from avloc.ave.features import EventSet
    from avloc.ave.networks import Features
    from avloc.checkpoint import ModelFile

AVE, WEAK, MATCH = "ave", "ave-weak", "ave-match"
"""Test sets: models trained with labels per second, models trained with labels per clip, cross-modal matching."""
SCHEMA = "avloc.eval-events/1"
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class EventOptions:
    """Models to score, and the test set."""

    testset: str
    """`ave`, `ave-weak` or `ave-match`."""
    models: tuple[Path, ...]
    store: Path | None = None
    clean_split: bool = False
    """Leave out rows of videos that are also in the training part."""
    device: str = "auto"


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
    """Rows of the test part, without those left out by `clean_split`."""
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
    """Accuracy of predicting the commonest class, background, or the clip's true event for every second; of a random
    window in matching."""
    visual_to_audio: float = math.nan
    """Share of events given in the video and found in the audio, to the second."""
    audio_to_visual: float = math.nan
    skipped: int = 0
    """Rows that cannot be matched: the event fills the clip, or there is none."""

    def as_json(self) -> dict[str, Any]:
        """One line of JSON; NaN becomes null when it is printed."""
        return {"schema": SCHEMA, "version": __version__, **asdict(self)}


def evaluate_events(options: EventOptions, listener: Listener = silent) -> list[EventReport]:
    """Score each model on the test part of a store of events.

    Raises:
        UsageError: no model is named, one is of another kind than the test set, or the store has no test part.
        StoreNotFound: there is no store.
        Refused: it has no events, or its features are unfinished.
        WeightsError: a model cannot be read.
    """
    from avloc.checkpoint import load_model

    if not options.models:
        hint = "Train one: avloc train STORE --method ave --out RUN"
        raise UsageError(f"--testset {options.testset} needs a model; the one in the package predicts maps", hint=hint)
    models = [load_model(path) for path in options.models]
    for model in models:
        check_kind(model, options.testset)
    test = open_test_part(options, listener)
    return [_report(model, test, options, listener) for model in models]


def check_kind(model: ModelFile, testset: str) -> None:
    """Check that a model was trained for the test set.

    Raises:
        UsageError: it was not.
    """
    method, weak = model.config.method, model.config.own.get("weak")
    kind = {("ave", False): AVE, ("ave", True): WEAK, ("ave-match", None): MATCH}.get((method, weak))
    if kind != testset:
        valid = f"--testset {kind}" if kind else "a model of --method ave or ave-match"
        labels = " trained with weak labels" if kind == WEAK else ""
        raise UsageError(f"{model.path} is a model of {method}{labels}, not for --testset {testset}; valid: {valid}")


@dataclass(frozen=True)
class EvalRows:
    """The rows to score."""

    folder: Path
    table: EventTable
    rows: EventSet
    missing: tuple[str, ...]
    shared: tuple[str, ...]


def open_test_part(options: EventOptions, listener: Listener) -> EvalRows:
    """Open the test part of the store; a notice counts its videos that are also in the training part."""
    from avloc.ave.event_table import EventTable
    from avloc.ave.features import EventSet

    folder = find_store(AVE, options.store)
    table, match = EventTable.of(folder), options.testset == MATCH
    test = table.part("test", match=match)
    if not test:
        hint = "Prepare the folder with the published order files beside the annotations."
        raise UsageError(f"{folder} has no test part", hint=hint)
    trained = {row.annotation.video for row in table.part("train", match=match)}
    shared = tuple(sorted({row.annotation.video for row in test} & trained))
    if shared:
        verdict = "left out" if options.clean_split else "scored too; --clean-split leaves them out"
        listener(Notice(f"{len(shared)} videos of the test part are in the training part as well, {verdict}"))
    if options.clean_split:
        test = [row for row in test if row.annotation.video not in shared]
        if not test:
            raise UsageError("--clean-split leaves nothing to score: all test videos are in the training part")
    rows = EventSet(folder, table, test, pooled=match)
    there = {row.clip for row in rows.rows}
    return EvalRows(folder, table, rows, tuple(row.clip for row in test if row.clip not in there), shared)


def _report(model: ModelFile, test: EvalRows, options: EventOptions, listener: Listener) -> EventReport:
    _compare_features(model, test, listener)
    score = _score_matching if options.testset == MATCH else _score_events
    found = score(model, test, options.device, listener)
    return EventReport(
        testset=options.testset,
        store=str(test.folder),
        events_hash=test.table.hash(),
        model=model.name,
        model_hash=model.sha256,
        selection=str(model.card.get("selection", "not said")),
        clean_split=options.clean_split,
        n_expected=len(test.rows) + len(test.missing),
        n_scored=len(test.rows),
        missing=test.missing,
        shared=test.shared,
        **found,
    )


def _compare_features(model: ModelFile, test: EvalRows, listener: Listener) -> None:
    """Issue a notice where the model was trained on other features."""
    trained = model.card.get("hints")
    for hints in (test.rows.audio, test.rows.visual):
        teacher = hints.stamp["teacher"]
        if not isinstance(trained, dict) or trained.get(teacher) != hints.stamp:
            listener(Notice(f"{model.name} was not trained on the features of {teacher} in {test.folder}"))


def _score_events(model: ModelFile, test: EvalRows, device: str, listener: Listener) -> dict[str, Any]:
    from avloc.ave.event_table import BACKGROUND
    from avloc.ave.inference import class_names

    classes = (*test.table.classes, BACKGROUND)
    if class_names(model) != classes:
        raise UsageError(f"{model.path} predicts other events than {test.folder} has, or in another order")
    predicted, truth = _predict(model, test.rows, device, listener), test.rows.labels.numpy()
    of_clips = test.rows.classes.numpy()
    counts = metrics.confusion(predicted, truth, len(classes))
    return {
        "classes": classes,
        "accuracy": metrics.accuracy(counts),
        "class_accuracy": tuple(metrics.class_accuracies(counts).tolist()),
        "confusion": tuple(map(tuple, counts.tolist())),
        "baselines": {
            "commonest class": metrics.majority_accuracy(truth),
            "background": metrics.background_accuracy(truth, len(classes)),
            "the clip's event": metrics.accuracy(
                metrics.confusion(np.broadcast_to(of_clips[:, None], truth.shape), truth, len(classes))
            ),
        },
    }


def _predict(model: ModelFile, rows: EventSet, device: str, listener: Listener) -> NDArray[np.int64]:
    """The class [rows, T] with the highest score in every second."""
    from avloc.ave.inference import EventPredictor

    predictor = EventPredictor(model, device)
    out = [predictor.predict(x.visual, x.audio).scores.argmax(2).cpu().numpy() for x in _batches(rows, listener)]
    return np.concatenate(out) if out else np.zeros((0, 0), np.int64)


def _score_matching(model: ModelFile, test: EvalRows, device: str, listener: Listener) -> dict[str, Any]:
    from avloc.ave.inference import EventPredictor

    predictor, correct, events = EventPredictor(model, device), [], []
    for batch in _batches(test.rows, listener):
        distances, present = predictor.distances(batch).cpu().numpy(), (batch.labels != batch.background).numpy()
        for distance, event in zip(distances, present, strict=True):
            events.append(event)
            if (sums := metrics.window_sums(distance, event)) is not None:
                correct.append(metrics.matched(sums, event))
    if not correct:
        raise NoInputLeft("nothing to match: the event of every test row fills the clip, or there is none")
    audio_to_visual, visual_to_audio = np.mean(correct, 0).tolist()
    chance = metrics.chance_of_match(np.array(events))
    return {
        "visual_to_audio": visual_to_audio,
        "audio_to_visual": audio_to_visual,
        "skipped": len(events) - len(correct),
        "baselines": {"window at random": chance},
    }


def _batches(rows: EventSet, listener: Listener) -> Iterator[Features]:
    for start in range(0, len(rows), _BATCH):
        stop = min(start + _BATCH, len(rows))
        yield rows.batch(range(start, stop))
        listener(Progress(task="eval", done=stop, total=len(rows)))
