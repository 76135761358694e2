"""Sources of hints, and the source that runs a teacher."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from avloc.distill.plan import DistillOptions
from avloc.errors import InputError, Refused
from avloc.progress import Listener
from avloc.registry import AUDIO_TEACHERS, SECONDS_TEACHERS, VISUAL_TEACHERS, resolve
from avloc.sharding import worker_count

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
    names = dict.fromkeys(options.teachers)
    teachers = [_build(name, context, of_seconds).in_precision(options.precision) for name in names]
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
    """Decode the next clips in worker processes while the network runs on the current batch."""
    from torch import Tensor
    from torch.utils.data import DataLoader

    from avloc.dataset import PATIENCE_S
    from avloc.loader_processes import (
        IN_ADVANCE,
        MOST,
        batches_in_flight,
        check_shared_memory,
        follow_parent,
    )
    from avloc.teachers.base import TeacherInputs

    workers = min(worker_count(options.workers), MOST)
    workers = 0 if workers == 1 else min(workers, len(ids))
    inputs_of, on_gpu = TeacherInputs(teacher, store, ids), teacher.device.type == "cuda"
    if workers and isinstance(first := inputs_of[0], Tensor):
        check_shared_memory(first.nbytes, batches_in_flight(workers, len(ids)), "use --workers 1")
    loader = DataLoader(
        inputs_of,
        batch_size=None,  # a clip at a time: the memory that processes share may be small
        prefetch_factor=IN_ADVANCE if workers else None,
        num_workers=workers,
        pin_memory=on_gpu,
        worker_init_fn=follow_parent,
        timeout=PATIENCE_S if workers else 0,
    )
    # Copied at once, to pinned memory or here, since what lies in shared memory has an open file.
    received = (decoded.clone() if isinstance(decoded, Tensor) and not on_gpu else decoded for decoded in loader)
    clips = zip(ids, received, strict=True)
    while batch := dict(islice(clips, options.batch)):
        for clip_id, decoded in batch.items():
            if isinstance(decoded, Refused):
                raise decoded
            if isinstance(decoded, InputError):
                yield clip_id, decoded
        inputs = {clip_id: decoded for clip_id, decoded in batch.items() if not isinstance(decoded, InputError)}
        yield from zip(inputs, teacher.hints(list(inputs.values())), strict=True)
