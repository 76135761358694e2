"""Sharding: split one command over processes or machines that write to the same folder.

A clip's shard follows from a hash of its id alone, so shards need no communication, and each can be resumed. Every
shard writes HDF5 files under its own names; shared files (`store.json`, `skipped.jsonl` and the like) are read and
rewritten under `lock_shared_files`. An unsharded run is shard 1/1.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from avloc.errors import UsageError
from avloc.files import LOCK, folder_lock, remove_leftovers
from avloc.progress import Listener, Notice

_SHARED_LOCK = ".turn"
_SHARED_LOCK_TIMEOUT_S = 600.0
"""The lock is held while a column of every HDF5 file is read, which takes seconds; longer means a stuck process."""
_CGROUP = Path("/sys/fs/cgroup")
_QUOTA_FILES = (
    (_CGROUP / "cpu.max",),
    (_CGROUP / "cpu" / "cpu.cfs_quota_us", _CGROUP / "cpu" / "cpu.cfs_period_us"),
)
"""Microseconds of processor time in each period, and the period: version 2 of Linux control groups, and version 1."""
_SHARD_TEXT = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_LOCK_NAME = re.compile(rf"{re.escape(LOCK)}-(?P<job>.+)-(?P<number>\d+)-of-(?P<count>\d+)")


@dataclass(frozen=True)
class JobShard:
    """Shard `number` of `count`, counted from 1. Raises UsageError if `number` is out of range."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise _invalid(str(self))

    @staticmethod
    def parse(text: str) -> JobShard:
        """Parse text such as `2/4`. Raises UsageError for other text."""
        match = _SHARD_TEXT.fullmatch(text)
        if not match:
            raise _invalid(text)
        return JobShard(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def is_unsharded(self) -> bool:
        """Whether this is shard 1/1."""
        return self.count == 1

    @property
    def suffix(self) -> str:
        """Suffix of the shard's file names, such as `-2-of-4`; '' if unsharded."""
        return "" if self.is_unsharded else f"-{self.number}-of-{self.count}"

    @property
    def label(self) -> str | None:
        """Name in reports, such as `2/4`; None if unsharded."""
        return None if self.is_unsharded else str(self)

    def contains(self, clip_id: str) -> bool:
        """Whether a clip belongs to this shard, by SHA-256 of its id: the same on every machine and in every run."""
        digest = hashlib.sha256(clip_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


UNSHARDED = JobShard()


def _invalid(text: str) -> UsageError:
    return UsageError(f"--shard {shlex.quote(text)} is impossible; valid: i/n with i from 1 to n, such as 2/4")


def select_shard(flag: str | None, listener: Listener, environment: Mapping[str, str] = os.environ) -> JobShard:
    """The shard of this process: `flag` if given (value of `--shard`), else `launcher_shard`, with a notice.

    Raises:
        UsageError: the flag or the environment is invalid.
    """
    if flag is not None:
        return JobShard.parse(flag)
    shard = launcher_shard(environment)
    if not shard.is_unsharded:
        source = f"RANK {shard.number - 1} and WORLD_SIZE {shard.count}"
        listener(Notice(f"shard {shard} only, by {source}; --shard 1/1 runs unsharded"))
    return shard


def launcher_shard(environment: Mapping[str, str] = os.environ) -> JobShard:
    """The shard of a process started by a launcher such as torchrun, by RANK (from 0) and WORLD_SIZE.

    Unsharded if one of them is not set or WORLD_SIZE is 1.

    Raises:
        UsageError: invalid values.
    """
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None or size is None or size == "1":
        return UNSHARDED
    if not (re.fullmatch(r"\d{1,9}", rank) and re.fullmatch(r"\d{1,9}", size) and int(rank) < int(size)):
        reason = f"RANK={rank} and WORLD_SIZE={size} are invalid; valid: a RANK from 0 to less than WORLD_SIZE"
        raise UsageError(reason, hint="Unset them, or give `prepare` and `distill-cache` a --shard.")
    return JobShard(int(rank) + 1, int(size))


@contextmanager
def lock_shard(folder: Path, shard: JobShard, job: str) -> Iterator[None]:
    """Lock one shard of a job on `folder`, which is created if absent.

    Other shards of the same job (name of the command) and count can run concurrently.

    Raises:
        Refused: another process holds the same shard, runs unsharded or with another shard count, or runs another job.
    """
    own = LOCK if shard.is_unsharded else f"{LOCK}-{job}{shard.suffix}"
    compatible = re.compile(rf"{re.escape(f'{LOCK}-{job}')}-\d+-of-{shard.count}")
    with ExitStack() as stack:
        with lock_shared_files(folder, shard):
            # Acquire first, then check the others: of two conflicting processes, the later one finds the earlier.
            stack.enter_context(_locked(folder, own))
            for path in sorted(folder.glob(f"{LOCK}*")):
                if path.name != own and not compatible.fullmatch(path.name):
                    with _locked(folder, path.name):
                        pass  # the process that left this file has ended
        yield


def _locked(folder: Path, name: str) -> AbstractContextManager[None]:
    holder = _LOCK_NAME.fullmatch(name)
    if not holder:
        return folder_lock(folder, name)
    who = f": shard {holder['number']}/{holder['count']} of {holder['job']}"
    return folder_lock(folder, name, who=f"{who}; only other shards of {holder['count']} can run concurrently")


def lock_shared_files(folder: Path, shard: JobShard) -> AbstractContextManager[None]:
    """Lock the files in `folder` that shards share, while they are read and rewritten; a no-op if unsharded.

    Not reentrant.

    Raises:
        Refused: another shard has held the lock for ten minutes.
    """
    if shard.is_unsharded:
        return nullcontext()
    return folder_lock(folder, _SHARED_LOCK, wait_s=_SHARED_LOCK_TIMEOUT_S)


def remove_partial_files(folder: Path, shard: JobShard) -> None:
    """Delete incomplete files left in `folder` by killed writers, except those another shard may be writing.

    Call it under `lock_shared_files`.
    """
    for names in ("*",) if shard.is_unsharded else (f"shard{shard.suffix}-*", "*.json*"):
        remove_leftovers(folder, names)


def worker_count(requested: int) -> int:
    """Number of processes that decode; 0 means one per available core, within the quota of a container."""
    if requested:
        return requested
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _core_quota())


def _core_quota() -> int:
    """Cores that a container may use (`docker run --cpus`), rounded up."""
    for files in _QUOTA_FILES:
        words = [word for path in files if path.is_file() for word in path.read_text(encoding="ascii").split()]
        if len(words) == 2 and all(map(str.isdecimal, words)):  # neither "max" nor -1, which are no limit
            return max(1, math.ceil(int(words[0]) / int(words[1])))
    return sys.maxsize
