"""Where hints come from, and the first such place: the teachers themselves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from avloc.distill.plan import DistillOptions
from avloc.errors import InputError
from avloc.progress import Listener, Notice
from avloc.registry import SECONDS_TEACHERS, resolve

if TYPE_CHECKING:
    import torch

    from avloc.store import HintStamp, Store
    from avloc.teachers import Hint, Teacher
    from avloc.weights import Located, Weight

Answers = Generator[tuple[str, "Hint | InputError"], None, None]


@dataclass(frozen=True, kw_only=True)
class HintSource:
    """Where the hints of one teacher come from: the teacher itself, or files that somebody made."""

    stamp: HintStamp
    has: Callable[[str], bool]
    """Whether there can be an answer for a clip id."""
    answers: Callable[[Sequence[str]], Answers]
    """The hints of some clips, in any order; the reason in place of one that failed."""


def teacher_sources(store: Store, options: DistillOptions, listener: Listener) -> list[HintSource]:
    """The teachers asked for, their weights found but not yet loaded.

    Raises:
        UsageError: an option cannot be meant.
        WeightsError: weights are absent or wrong.
    """
    teachers = [_build(name, store, options, listener) for name in dict.fromkeys(options.teachers)]

    def source(teacher: Teacher) -> HintSource:
        def answers(ids: Sequence[str]) -> Answers:
            return _answers(teacher, store, ids, options)

        return HintSource(stamp=teacher.stamp(), has=lambda _id: True, answers=answers)

    return [source(teacher) for teacher in teachers]


def _build(name: str, store: Store, options: DistillOptions, listener: Listener) -> Teacher:
    from avloc import teachers
    from avloc.weights import locate

    device = teacher_device(options.device)

    def found(weight: Weight) -> Located:
        instead = "Training needs no hints: train --no-audio-hint --no-visual-hint --init random."
        return locate(weight, weights_dir=options.weights_dir, listener=listener, instead=instead)

    if name in SECONDS_TEACHERS:
        of_seconds: Teacher | None = resolve(SECONDS_TEACHERS[name])(store, found, device)
        if of_seconds is not None:
            return of_seconds
    if name == "detr":
        seen = teachers.DetrSettings(confidence=options.confidence)
        return teachers.DetrTeacher(seen, found(teachers.DetrTeacher.weight), device)
    if name == "lite0":
        return teachers.Lite0Teacher(found(teachers.Lite0Teacher.weight), device)
    if name == "yamnet":
        return teachers.YamnetTeacher(store.spec, found(teachers.YamnetTeacher.weight), device)
    if name == "vggish":
        return teachers.VggishTeacher(store.spec, found(teachers.VggishTeacher.weight), device)
    sound = teachers.choose_sound(store, options.sound)
    heard = teachers.PannsSettings(normalise=options.normalise, sound=sound)
    weights = found(teachers.PannsTeacher.weight)
    listener(Notice(f"PANNs hears the {'source files' if sound == 'source' else 'sound in the store'}"))
    return teachers.PannsTeacher(heard, store.spec, weights, device)


def teacher_device(name: str) -> torch.device:
    """What `pick_device` says; but `auto` is a launched process's own GPU, that parts do not crowd on the first.

    Raises:
        UsageError: no such device here.
    """
    from avloc.distributed import own_gpu
    from avloc.engine import pick_device

    device = pick_device(name)
    return (own_gpu() or device) if name == "auto" else device


def _answers(teacher: Teacher, store: Store, ids: Sequence[str], options: DistillOptions) -> Answers:
    """Decode the next clips in threads while the network works on these."""
    pool = ThreadPoolExecutor(options.workers)
    try:
        ahead: dict[str, Future[NDArray[Any]]] = {}
        for start in range(0, len(ids), options.batch):
            chunk = ids[start : start + options.batch]
            now, ahead = ahead, {clip_id: pool.submit(teacher.read, store.read(clip_id)) for clip_id in chunk}
            yield from _ask(teacher, now)
        yield from _ask(teacher, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _ask(teacher: Teacher, reading: Mapping[str, Future[NDArray[Any]]]) -> Answers:
    material: dict[str, NDArray[Any]] = {}
    for clip_id, future in reading.items():
        try:
            material[clip_id] = future.result()
        except InputError as error:
            yield clip_id, error
    yield from zip(material, teacher.hints(list(material.values())), strict=True)
