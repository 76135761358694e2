"""Options and reports of `distill-cache`. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avloc.config import PANNS_SOUNDS
from avloc.errors import UsageError, nearest
from avloc.protocols import PRECISIONS
from avloc.registry import AUDIO_TEACHERS, SECONDS_TEACHERS, VISUAL_TEACHERS
from avloc.sharding import UNSHARDED, JobShard

TEACHERS = tuple(dict.fromkeys((*AUDIO_TEACHERS, *VISUAL_TEACHERS, *SECONDS_TEACHERS)))
PUBLISHED_TEACHERS = ("panns", "detr")
"""AVC's teachers: the defaults, and those whose hints can be imported."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Options of `distill-cache`.

    Raises:
        UsageError: an invalid value or combination.
    """

    teachers: tuple[str, ...] = PUBLISHED_TEACHERS
    """Some of `TEACHERS`."""
    import_npy: Path | None = None
    """Import the hints from `audio_feats/` and `detr_dec_feats/` of this folder instead of running teachers."""
    sound: str = "auto"
    """Audio input of PANNs, one of `PANNS_SOUNDS`; see `avloc.teachers.choose_sound`."""
    normalise: bool = True
    """Normalise PANNs embeddings to unit length."""
    confidence: float = 0.3
    """Use DETR queries above this class probability."""
    batch: int = 8
    """Clips per batch."""
    workers: int = 0
    """Decoding processes; 0 is one per core, and 1 decodes in the main process."""
    precision: str = "fp32"
    """One of `avloc.protocols.PRECISIONS`; bf16 runs convolutions and matrix products in bfloat16."""
    weights_dir: Path | None = None
    """Folder searched first for the teachers' weights."""
    device: str = "auto"
    """`auto`, or a PyTorch device."""
    shard: JobShard = UNSHARDED
    """Process only clips of this shard; shards can run concurrently on one store."""

    def __post_init__(self) -> None:
        for name in self.teachers:
            if name not in TEACHERS:
                hint = nearest(name, TEACHERS)
                raise UsageError(f"--teacher {name} is unknown; valid: {', '.join(TEACHERS)}", hint=hint)
        if not self.teachers:
            raise UsageError(f"no --teacher given; valid: {', '.join(TEACHERS)}")
        foreign = [name for name in self.teachers if name not in PUBLISHED_TEACHERS]
        if self.import_npy is not None and foreign:
            valid = ", ".join(PUBLISHED_TEACHERS)
            raise UsageError(f"--import-npy cannot import hints of {foreign[0]}; valid with it: --teacher {valid}")
        if self.sound not in PANNS_SOUNDS:
            hint = nearest(self.sound, PANNS_SOUNDS)
            raise UsageError(f"--sound {self.sound} is unknown; valid: {', '.join(PANNS_SOUNDS)}", hint=hint)
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision} is unknown; valid: {', '.join(PRECISIONS)}")
        if not 0 <= self.confidence < 1:
            raise UsageError(f"--confidence {self.confidence} is impossible; valid: 0 or more, less than 1")
        for flag, value, least in (("--batch", self.batch, 1), ("--workers", self.workers, 0)):
            if value < least:
                raise UsageError(f"{flag} {value} is impossible; valid: {least} or more")


@dataclass(frozen=True, kw_only=True)
class TeacherReport:
    """Counts of one teacher."""

    teacher: str
    folder: str
    done: int
    """New hints."""
    already: int
    """Clips that already had one."""
    no_hint: int
    """New hints that are "no hint"."""
    missing: int
    """Clips without a file in the imported folder."""
    failed: dict[str, str]
    """Clip id -> error."""


@dataclass(frozen=True, kw_only=True)
class DistillReport:
    """Result of `distill-cache`; a shard counts its own clips."""

    shard: str | None = None
    """The shard, such as `2/4`; None if unsharded."""
    teachers: tuple[TeacherReport, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 if a clip failed."""
        return int(any(teacher.failed for teacher in self.teachers))
