"""`avloc eval --testset ave`: what happens in each second, and where one modality finds the event of the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc import __version__
from avloc.errors import NoInputLeft, UsageError
from avloc.evaluate.plan import AVE, MATCH, WEAK, find_store
from avloc.metrics import events as metrics
from avloc.progress import Listener, Notice, Progress, silent

if TYPE_CHECKING:
    from avloc.checkpoint import ModelFile
    from avloc.features import EventSet
    from avloc.methods.events import Features
    from avloc.store.events import EventTable

SCHEMA = "avloc.eval-events/1"
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class EventOptions:
    """What is scored, and on what."""

    testset: str
    """One of `EVENT_TESTSETS`."""
    models: tuple[Path, ...]
    store: Path | None = None
    clean_split: bool = False
    """Leave out rows of videos that are in the training part too."""
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class EventReport:
    """The scores of one model."""

    testset: str
    store: str
    events_hash: str
    """Of the annotations."""
    model: str
    model_hash: str
    selection: str
    clean_split: bool
    n_expected: int
    """Rows of the test part, less those that `clean_split` leaves out."""
    n_scored: int
    missing: tuple[str, ...]
    """Clips without features."""
    shared: tuple[str, ...]
    """Videos of the test part that are in the training part too, scored or left out."""
    accuracy: float = math.nan
    """Share of the seconds told right; background is a class."""
    classes: tuple[str, ...] = ()
    """Names of the classes, background last."""
    class_accuracy: tuple[float, ...] = ()
    """The same for the seconds of each class; NaN for a class without any."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Seconds of each class (row) that were told to be of each class (column)."""
    baselines: dict[str, float] = field(default_factory=dict)
    """What needs no model that tells seconds apart: the commonest class, background, or the true event of the clip for
    every second of it; a window at random."""
    visual_to_audio: float = math.nan
    """Share of the events that are seen and found in the sound, to the second."""
    audio_to_visual: float = math.nan
    skipped: int = 0
    """Rows that nothing can be searched in: the event lasts from end to end, or never is."""

    def as_json(self) -> dict[str, Any]:
        """Plain data for one line of JSON; NaN becomes null."""
        plain = {"schema": SCHEMA, "version": __version__, **asdict(self)}
        plain["class_accuracy"] = [None if math.isnan(value) else value for value in self.class_accuracy]
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in plain.items()}


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
        raise UsageError(f"--testset {options.testset} needs a model; the one in the package makes maps", hint=hint)
    models = [load_model(path) for path in options.models]
    for model in models:
        check_kind(model, options.testset)
    material = open_events(options, listener)
    return [_report(model, material, options, listener) for model in models]


def check_kind(model: ModelFile, testset: str) -> None:
    """A model must be taught as the test set says.

    Raises:
        UsageError: it is not.
    """
    method, weak = model.config.method, model.config.own.get("weak")
    kind = {("ave", False): AVE, ("ave", True): WEAK, ("ave-match", None): MATCH}.get((method, weak))
    if kind != testset:
        valid = f"--testset {kind}" if kind else "a model of --method ave or ave-match"
        taught = " taught by whole clips" if kind == WEAK else ""
        raise UsageError(f"{model.path} is a model of {method}{taught}, not for --testset {testset}; valid: {valid}")


@dataclass(frozen=True)
class Material:
    """The rows to score."""

    folder: Path
    table: EventTable
    rows: EventSet
    missing: tuple[str, ...]
    shared: tuple[str, ...]


def open_events(options: EventOptions, listener: Listener) -> Material:
    """The test part of the store; says which of its videos were trained on."""
    from avloc.features import EventSet
    from avloc.store.events import EventTable

    folder = find_store(AVE, options.store)
    table, match = EventTable.of(folder), options.testset == MATCH
    test = table.part("test", match=match)
    if not test:
        hint = "Prepare the folder with the published order files beside the annotations."
        raise UsageError(f"{folder} has no test part", hint=hint)
    trained = {row.said.video for row in table.part("train", match=match)}
    shared = tuple(sorted({row.said.video for row in test} & trained))
    if shared:
        verdict = "left out" if options.clean_split else "scored too; --clean-split leaves them out"
        listener(Notice(f"{len(shared)} videos of the test part are in the training part as well, {verdict}"))
    if options.clean_split:
        test = [row for row in test if row.said.video not in shared]
        if not test:
            raise UsageError("--clean-split leaves nothing to score: all test videos are trained on too")
    rows = EventSet(folder, table, test, pooled=match)
    there = {row.clip for row in rows.rows}
    return Material(folder, table, rows, tuple(row.clip for row in test if row.clip not in there), shared)


def _report(model: ModelFile, material: Material, options: EventOptions, listener: Listener) -> EventReport:
    _compare_features(model, material, listener)
    found = {MATCH: _matching}.get(options.testset, _telling)(model, material, options.device, listener)
    return EventReport(
        testset=options.testset,
        store=str(material.folder),
        events_hash=material.table.hash(),
        model=model.name,
        model_hash=model.sha256,
        selection=str(model.card.get("selection", "not said")),
        clean_split=options.clean_split,
        n_expected=len(material.rows) + len(material.missing),
        n_scored=len(material.rows),
        missing=material.missing,
        shared=material.shared,
        **found,
    )


def _compare_features(model: ModelFile, material: Material, listener: Listener) -> None:
    """Say where the features are made otherwise than those that the model has learned from."""
    learned = model.card.get("hints")
    for hints in (material.rows.heard, material.rows.seen):
        teacher = hints.stamp["teacher"]
        if not isinstance(learned, dict) or learned.get(teacher) != hints.stamp:
            listener(Notice(f"{model.name} has not learned from the features of {teacher} in {material.folder}"))


def _telling(model: ModelFile, material: Material, device: str, listener: Listener) -> dict[str, Any]:
    from avloc.engine.events import told_names
    from avloc.store.events import BACKGROUND

    classes = (*material.table.classes, BACKGROUND)
    if told_names(model) != classes:
        raise UsageError(f"{model.path} tells other events than {material.folder} has, or in another order")
    told, truth = _told(model, material.rows, device, listener), material.rows.labels.numpy()
    of_clips = material.rows.classes.numpy()
    counts = metrics.confusion(told, truth, len(classes))
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


def _told(model: ModelFile, rows: EventSet, device: str, listener: Listener) -> NDArray[np.int64]:
    """The class [rows, T] with the highest score in every second."""
    from avloc.engine.events import EventEngine

    engine = EventEngine(model, device)
    out = [engine.tell(batch.visual, batch.audio).scores.argmax(2).cpu().numpy() for batch in _batches(rows, listener)]
    return np.concatenate(out) if out else np.zeros((0, 0), np.int64)


def _matching(model: ModelFile, material: Material, device: str, listener: Listener) -> dict[str, Any]:
    from avloc.engine.events import EventEngine

    engine, right, events = EventEngine(model, device), [], []
    for batch in _batches(material.rows, listener):
        distances, present = engine.distances(batch).cpu().numpy(), (batch.labels != batch.background).numpy()
        for distance, event in zip(distances, present, strict=True):
            events.append(event)
            if (sums := metrics.window_sums(distance, event)) is not None:
                right.append(metrics.matched(sums, event))
    if not right:
        raise NoInputLeft("nothing to match: the event of every test row lasts from end to end, or never is")
    by_sound, by_sight = np.mean(right, 0).tolist()
    chance = metrics.chance_of_match(np.array(events))
    return {
        "visual_to_audio": by_sight,
        "audio_to_visual": by_sound,
        "skipped": len(events) - len(right),
        "baselines": {"window at random": chance},
    }


def _batches(rows: EventSet, listener: Listener) -> Iterator[Features]:
    for start in range(0, len(rows), _BATCH):
        stop = min(start + _BATCH, len(rows))
        yield rows.batch(range(start, stop))
        listener(Progress(task="eval", done=stop, total=len(rows)))
