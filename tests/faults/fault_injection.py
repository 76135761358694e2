"""Run the program and inject a fault at a chosen moment: `python -m tests.faults.fault_injection TABLE ARGUMENTS`.

TABLE is JSON. `folder` is the folder whose changes count. The moment is `event` K, before the K-th change to a file
there, or `second` S, S seconds after the first change. The fault is one of

    signal N    send the signal to this process
    power       send SIGKILL; if the change is a rename, it reaches the disk, and a file that was not flushed before is
                cut in half first
    error N     the change fails with that errno
    delete P    delete each finished file that matches the glob `written` with probability P / 100

`clock` makes the wall clock run backwards. `log` names a file that gets one line for each change and each flushed
folder.

Shards hold four clips here, so that a small store has many; training saves its state after every step, so that it can
resume in the middle of an epoch; the large networks of some methods are narrow.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.faults.changes import FLUSHED, ChangeLog

_SHARD_CLIPS = 4
_LOADER_TIMEOUT_S = 20
_CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0, "os.link": 1}
"""Audit event -> index of the argument that is the changed path."""


class FaultInjector:
    """Audit hook that counts the changes to a folder's files and injects the fault."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.folder = Path(table["folder"]).resolve()
        self.signal, self.event, self.second = table.get("signal"), table.get("event"), table.get("second")
        self.power = bool(table.get("power"))
        self.log = ChangeLog(Path(table["log"])) if "log" in table else None
        self.error, self.delete, self.written = table.get("error"), table.get("delete"), table.get("written")
        self.pid, self.changes = os.getpid(), 0
        self.flushed: dict[int, tuple[int, int]] = {}
        self._busy = False

    def install(self) -> None:
        flush = os.fsync

        def fsync(descriptor: int) -> None:
            flush(descriptor)
            state = os.fstat(descriptor)
            self.flushed[state.st_ino] = (state.st_size, state.st_mtime_ns)
            if stat.S_ISDIR(state.st_mode):
                self._note(FLUSHED, str(Path(f"/proc/self/fd/{descriptor}").readlink()))

        os.fsync = fsync
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or os.getpid() != self.pid:
            return
        self._busy = True
        try:
            path = self._changed(event, arguments)
            if path is not None and self.folder in Path(path).resolve().parents:
                self._count(event, arguments, path)
        finally:
            self._busy = False

    def _count(self, event: str, arguments: tuple[Any, ...], path: str) -> None:
        self.changes += 1
        self._note(event, path)
        if self.changes == 1 and self.second is not None:
            threading.Timer(self.second, self.inject).start()
        if self.changes != self.event:
            return
        if self.power and event == "os.rename":
            self._cut(str(arguments[0]))
            Path(arguments[0]).rename(arguments[1])
        if self.error:
            raise OSError(self.error, os.strerror(self.error), path)
        self.inject()

    def _note(self, event: str, path: str) -> None:
        if self.log:
            self.log.write(event, path)

    def _cut(self, path: str) -> None:
        """Simulate a power cut: halve the file unless it was flushed after its last write."""
        state = Path(path).stat()
        if self.flushed.get(state.st_ino) != (state.st_size, state.st_mtime_ns):
            os.truncate(path, state.st_size // 2)

    def inject(self) -> None:
        if self.delete:
            self._delete(random.Random(self.delete))
        else:
            os.kill(self.pid, self.signal)

    def _delete(self, chance: random.Random) -> None:
        for path in sorted(Path(self.folder).glob(self.written)):
            if path.is_file() and not path.name.startswith(".") and chance.random() < self.delete / 100:
                path.unlink()

    def _changed(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "open":
            path, _, flags = arguments
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
            return os.fsdecode(path) if writes and isinstance(path, (str, bytes, os.PathLike)) else None
        return os.fsdecode(arguments[_CHANGES[event]]) if event in _CHANGES else None


def main() -> None:
    from avloc import dataset
    from avloc.store import HintWriter, StoreWriter
    from avloc.train import loop
    from tests.small_models import narrowed

    dataset.PATIENCE_S = _LOADER_TIMEOUT_S
    loop.SAVE_EVERY_S = 0.0
    table = json.loads(sys.argv[1])
    for writer in (StoreWriter, HintWriter):
        defaults = writer.__init__.__kwdefaults__
        assert defaults is not None
        defaults["shard_clips"] = _SHARD_CLIPS
    if table.get("clock"):
        ticks = itertools.count(4e9, -1000)
        time.time = lambda: next(ticks)
    FaultInjector(table).install()
    sys.argv = ["avloc", *sys.argv[2:]]
    from avloc.cli import main as avloc

    with narrowed():
        avloc()


if __name__ == "__main__":
    main()
