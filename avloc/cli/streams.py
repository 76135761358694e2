"""The three standard streams, whatever a shell made of them: closed, without a reader, or in a small encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO, cast

EXIT_NO_READER = 128 + 13
"""What a shell reports of a program whose reader went away (SIGPIPE)."""
_ERROR = 2
_ESCAPES = "avloc-escapes"


def settle() -> None:
    """Make the streams usable: no text fails to be printed, and a lost reader ends the program in order.

    Where standard output is closed, printing has the same end as where its reader went away. A closed standard error
    loses what is written there; a closed standard input is empty. Each takes its own number again, which the next
    file to be opened would get else, with what libraries print in it.
    """
    codecs.register_error(_ESCAPES, _escaped)
    if sys.stdin is None:
        sys.stdin = _opened(0, os.open(os.devnull, os.O_RDONLY), "r")
    out = sys.stdout or _opened(1, _without_reader(), "w")
    sys.stdout = _lasting(out, own=sys.stdout is sys.__stdout__)
    err = sys.stderr or _opened(_ERROR, os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = _lasting(err, own=sys.stderr is sys.__stderr__)


def _without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _opened(number: int, descriptor: int, mode: str) -> TextIO:
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return cast(TextIO, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _lasting(stream: TextIO, *, own: bool) -> TextIO:
    """The stream with `_escaped`; the process's own one also leaves with `EXIT_NO_READER` when nobody reads it."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors=_ESCAPES)
    if not own or sys.platform == "win32":  # a console is no file there
        return stream
    buffer = io.BufferedWriter(_Output(stream.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=_ESCAPES,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Output(io.FileIO):
    """Standard output or error. Raising here, below every buffer, keeps other broken pipes apart from this one."""

    def write(self, data: Any) -> int:
        """Write, or leave the program through every `finally` where nobody reads any more.

        Once it has failed, nothing more is tried: what the buffers still hold would fail again on the way out. Of
        standard error on a full disk nothing is said, since there is no place to say it.
        """
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                sys.exit(EXIT_NO_READER)
            if self.fileno() == _ERROR:
                return len(data)
            raise


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""What an encoding does not hold: `\u65e5`; but the bytes of a path that is not UTF-8 are printed as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    wide = error.encoding.lower().startswith(("utf-16", "utf-32"))  # one byte alone is nothing there
    if "\udc80" <= first <= "\udcff" and not wide:
        return bytes([ord(first) - 0xDC00]), error.start + 1
    # Not Python's shorter \xe9, which JSON and TOML do not know.
    return f"\\u{ord(first):04x}" if ord(first) < 0x10000 else f"\\U{ord(first):08x}", error.start + 1
