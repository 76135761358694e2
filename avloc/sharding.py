"""Splitting one command over processes or machines, all of which write into one folder.

Which part a clip belongs to follows from its id alone, so parts need not know of each other, and a part can be resumed.
Every part writes shards under names of its own. What parts share (`store.json`, `skipped.jsonl` and the like) is read
and rewritten in a `turn`. A command that is not split is the one part of one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from avloc.errors import UsageError
from avloc.files import LOCK, folder_lock, remove_leftovers
from avloc.progress import Listener, Notice

_TURN = ".turn"
_TURN_WAIT_S = 600.0
"""A turn takes as long as it takes to read a column of every shard: seconds. Who waits longer waits for a stuck one."""
_TYPED = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_LOCK_NAME = re.compile(rf"{re.escape(LOCK)}-(?P<job>.+)-(?P<number>\d+)-of-(?P<count>\d+)")


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`, from 1; the default is the whole.

    Raises:
        UsageError: there is no such part.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise _impossible(str(self))

    @staticmethod
    def parse(text: str) -> Part:
        """The part that `2/4` names.

        Raises:
            UsageError: it names none.
        """
        typed = _TYPED.fullmatch(text)
        if not typed:
            raise _impossible(text)
        return Part(int(typed[1]), int(typed[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether it is all there is."""
        return self.count == 1

    @property
    def suffix(self) -> str:
        """What names of files get that are its own: `-2-of-4`; '' of the whole."""
        return "" if self.is_whole else f"-{self.number}-of-{self.count}"

    @property
    def label(self) -> str | None:
        """How reports name it: `2/4`; None for the whole."""
        return None if self.is_whole else str(self)

    def has(self, clip_id: str) -> bool:
        """Whether a clip belongs to it: by SHA-256 of the id, the same on every machine and in every run."""
        digest = hashlib.sha256(clip_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


WHOLE = Part()


def _impossible(text: str) -> UsageError:
    return UsageError(f"--shard {shlex.quote(text)} is impossible; valid: i/n with i from 1 to n, as 2/4")


def choose_part(typed: str | None, listener: Listener, environment: Mapping[str, str] = os.environ) -> Part:
    """The part of this process: as typed, else as it was launched, else the whole.

    Args:
        typed: `2/4`, or None for nothing.
        listener: hears of a part that nobody typed.
        environment: see `launched`.

    Raises:
        UsageError: no part is named by what is typed or set.
    """
    if typed is not None:
        return Part.parse(typed)
    part = launched(environment)
    if not part.is_whole:
        listener(
            Notice(
                f"part {part} only, by RANK {part.number - 1} and WORLD_SIZE {part.count}; --shard 1/1 does the whole"
            )
        )
    return part


def launched(environment: Mapping[str, str] = os.environ) -> Part:
    """Which of the processes this is that a launcher started; the whole where it is the only one.

    Args:
        environment: where RANK (from 0) and WORLD_SIZE are looked for; both must be set, and WORLD_SIZE be more than 1.

    Raises:
        UsageError: they name no process.
    """
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None or size is None or size == "1":
        return WHOLE
    if not (re.fullmatch(r"\d{1,9}", rank) and re.fullmatch(r"\d{1,9}", size) and int(rank) < int(size)):
        reason = f"RANK={rank} and WORLD_SIZE={size} name no part; valid: a RANK from 0 to less than WORLD_SIZE"
        raise UsageError(reason, hint="Unset them, or give `prepare` and `distill-cache` a --shard.")
    return Part(int(rank) + 1, int(size))


@contextmanager
def claim(folder: Path, part: Part, job: str) -> Iterator[None]:
    """Hold a part of a job on `folder`; the hold dies with the process.

    Beside it can run the other parts of the same job and of as many.

    Args:
        folder: what is written to; made if it is not there.
        part: which part.
        job: the command.

    Raises:
        Refused: another process holds the same part, the whole, a part of another number of parts, or another job.
    """
    own = LOCK if part.is_whole else f"{LOCK}-{job}{part.suffix}"
    beside = re.compile(rf"{re.escape(f'{LOCK}-{job}')}-\d+-of-{part.count}")
    with ExitStack() as stack:
        with turn(folder, part):
            # First hold, then look: of two that exclude each other, the later one sees the earlier, whole or part.
            stack.enter_context(_held(folder, own))
            for path in sorted(folder.glob(f"{LOCK}*")):
                if path.name != own and not beside.fullmatch(path.name):
                    with _held(folder, path.name):
                        pass  # whoever left this file has ended
        yield


def _held(folder: Path, name: str) -> AbstractContextManager[None]:
    holder = _LOCK_NAME.fullmatch(name)
    if not holder:
        return folder_lock(folder, name)
    who = f": part {holder['number']}/{holder['count']} of {holder['job']}"
    return folder_lock(folder, name, who=f"{who}; only other parts of {holder['count']} can run beside it")


def turn(folder: Path, part: Part) -> AbstractContextManager[None]:
    """Hold what the parts that write to `folder` share, for the moment it takes to read and rewrite it.

    Not to be taken inside itself. The whole has nobody to take turns with.

    Raises:
        Refused: another part has held it for ten minutes.
    """
    return nullcontext() if part.is_whole else folder_lock(folder, _TURN, wait_s=_TURN_WAIT_S)


def clear(folder: Path, part: Part) -> None:
    """Delete what killed writers left in `folder` half-written, but nothing that another part may be writing.

    Call it in a turn: then nobody is writing what is shared.
    """
    for names in ("*",) if part.is_whole else (f"shard{part.suffix}-*", "*.json*"):
        remove_leftovers(folder, names)
