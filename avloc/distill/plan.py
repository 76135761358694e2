"""What `distill-cache` is asked to do, and what it did. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avloc.config import AUDIO_TEACHERS, PANNS_SOUNDS, VISUAL_TEACHERS
from avloc.errors import UsageError, nearest
from avloc.registry import SECONDS_TEACHERS
from avloc.sharding import UNSHARDED, JobShard

TEACHERS = tuple(dict.fromkeys((*AUDIO_TEACHERS, *VISUAL_TEACHERS, *SECONDS_TEACHERS)))
PUBLISHED_TEACHERS = ("panns", "detr")
"""AVC's: those that are asked by default, and whose hints its users hold as arrays."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """What `distill-cache` is asked to do."""

    teachers: tuple[str, ...] = PUBLISHED_TEACHERS
    """Some of `TEACHERS`."""
    import_npy: Path | None = None
    """Take the hints from this folder's `audio_feats/` and `detr_dec_feats/` instead of running teachers."""
    sound: str = "auto"
    """What PANNs hears: `source`, `store` or `auto`."""
    normalise: bool = True
    """Keep PANNs embeddings at length 1."""
    confidence: float = 0.3
    """DETR queries count above this class probability."""
    batch: int = 8
    """Clips read and asked about at once."""
    workers: int = 2
    """Threads that decode."""
    weights_dir: Path | None = None
    """Searched first for the teachers' weights."""
    device: str = "auto"
    """`auto`, or a name torch knows."""
    shard: JobShard = UNSHARDED
    """Only clips of this shard; other shards can run concurrently on the same store."""

    def __post_init__(self) -> None:
        for name in self.teachers:
            if name not in TEACHERS:
                hint = nearest(name, TEACHERS)
                raise UsageError(f"--teacher {name} is unknown; valid: {', '.join(TEACHERS)}", hint=hint)
        if not self.teachers:
            raise UsageError(f"no --teacher is named; valid: {', '.join(TEACHERS)}")
        self._check_import()
        if self.sound not in PANNS_SOUNDS:
            hint = nearest(self.sound, PANNS_SOUNDS)
            raise UsageError(f"--sound {self.sound} is unknown; valid: {', '.join(PANNS_SOUNDS)}", hint=hint)
        if not 0 <= self.confidence < 1:
            raise UsageError(f"--confidence {self.confidence} is impossible; valid: 0 or more, less than 1")
        for flag, value in (("--batch", self.batch), ("--workers", self.workers)):
            if value < 1:
                raise UsageError(f"{flag} {value} is impossible; valid: 1 or more")

    def _check_import(self) -> None:
        foreign = [name for name in self.teachers if name not in PUBLISHED_TEACHERS]
        if self.import_npy is not None and foreign:
            valid = ", ".join(PUBLISHED_TEACHERS)
            raise UsageError(f"--import-npy holds no hints of {foreign[0]}; valid with it: --teacher {valid}")


@dataclass(frozen=True, kw_only=True)
class TeacherReport:
    """What was done for one teacher."""

    teacher: str
    folder: str
    done: int
    """Hints made now."""
    already: int
    """Clips that had one."""
    no_hint: int
    """Those made now in which the teacher had nothing to say."""
    missing: int
    """Clips for which an imported folder holds no file."""
    failed: dict[str, str]
    """Clip id -> reason."""


@dataclass(frozen=True, kw_only=True)
class DistillReport:
    """What `distill-cache` did; a shard counts its own clips."""

    shard: str | None = None
    """Shard of this report, such as `2/4`; None if unsharded."""
    teachers: tuple[TeacherReport, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 where some clips failed."""
        return int(any(teacher.failed for teacher in self.teachers))
