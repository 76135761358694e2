"""Sources of hints, and the source that runs a teacher."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from avloc.distill.plan import DistillOptions
from avloc.errors import InputError
from avloc.progress import Listener
from avloc.registry import AUDIO_TEACHERS, SECONDS_TEACHERS, VISUAL_TEACHERS, resolve

if TYPE_CHECKING:
    import torch

    from avloc.store import HintStamp, Store
    from avloc.teachers.base import Hint, Teacher, TeacherContext

HintResults = Generator[tuple[str, "Hint | InputError"], None, None]
"""Clip id and its hint or error."""


@dataclass(frozen=True, kw_only=True)
class HintSource:
    """Source of one teacher's hints: the teacher itself, or imported arrays."""

    stamp: HintStamp
    hints: Callable[[Sequence[str]], HintResults]
    """Computes the hints of clip ids, in any order."""
    has: Callable[[str], bool] = lambda _id: True
    """Whether a clip id is available."""


def teacher_sources(store: Store, options: DistillOptions, listener: Listener) -> list[HintSource]:
    """Sources that run the teachers of the options. Weights are located, and loaded on first use.

    Raises:
        UsageError: an invalid option.
        Refused: the sounds of the store do not fit a teacher.
        WeightsError: weights are absent or invalid.
    """
    from avloc.teachers.base import TeacherContext
    from avloc.weights import locate

    find = partial(locate, weights_dir=options.weights_dir, listener=listener)
    without_hints = "Training needs no hints: train --no-audio-hint --no-visual-hint --init random."
    context = TeacherContext(
        store=store,
        device=teacher_device(options.device),
        find=partial(find, instead=without_hints),
        listener=listener,
        sound=options.sound,
        normalise=options.normalise,
        confidence=options.confidence,
    )
    released = "AVE's released features need no teacher: avloc prepare FOLDER --layout ave --out STORE."
    of_seconds = replace(context, find=partial(find, instead=released))
    teachers = [_build(name, context, of_seconds) for name in dict.fromkeys(options.teachers)]
    return [
        HintSource(stamp=teacher.stamp, hints=partial(_run_teacher, teacher, store, options)) for teacher in teachers
    ]


def _build(name: str, context: TeacherContext, of_seconds: TeacherContext) -> Teacher[Any]:
    """A teacher of features per second if the store needs one, else a teacher of hints."""
    if name in SECONDS_TEACHERS:
        teacher: Teacher[Any] | None = resolve(SECONDS_TEACHERS[name])(of_seconds)
        if teacher is not None:
            return teacher
    found: type[Teacher[Any]] = resolve({**AUDIO_TEACHERS, **VISUAL_TEACHERS}[name])
    return found.build(context)


def teacher_device(name: str) -> torch.device:
    """Like `pick_device`, but `auto` in a process of a distributed launch is its own GPU.

    Raises:
        UsageError: no such device.
    """
    from avloc.distributed import own_gpu
    from avloc.engine import pick_device

    device = pick_device(name)
    return (own_gpu() or device) if name == "auto" else device


def _run_teacher(teacher: Teacher[Any], store: Store, options: DistillOptions, ids: Sequence[str]) -> HintResults:
    """Decode the next batch in threads while the network runs on the current one."""
    pool = ThreadPoolExecutor(options.workers)
    try:
        ahead: dict[str, Future[NDArray[Any]]] = {}
        for start in range(0, len(ids), options.batch):
            chunk = ids[start : start + options.batch]
            now, ahead = ahead, {clip_id: pool.submit(teacher.read, store.read(clip_id)) for clip_id in chunk}
            yield from _run_batch(teacher, now)
        yield from _run_batch(teacher, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_batch(teacher: Teacher[Any], decoding: Mapping[str, Future[NDArray[Any]]]) -> HintResults:
    inputs: dict[str, NDArray[Any]] = {}
    for clip_id, future in decoding.items():
        try:
            inputs[clip_id] = future.result()
        except InputError as error:
            yield clip_id, error
    yield from zip(inputs, teacher.hints(list(inputs.values())), strict=True)
