"""Configures the standard streams, which may be closed, a broken pipe, or in an encoding other than UTF-8."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO, cast

EXIT_NO_READER = 128 + 13
"""Exit code that a shell reports for SIGPIPE."""
_ERROR = 2
_ESCAPES = "avloc-escapes"


def configure_streams() -> None:
    """Make the streams usable: any text can be printed, and a broken pipe ends the program cleanly.

    A closed standard output behaves like a broken pipe. A closed standard error discards its output; a closed
    standard input is empty. Each gets its own file descriptor back: otherwise the next opened file would get it, and
    the output of libraries with it.
    """
    codecs.register_error(_ESCAPES, _escaped)
    if sys.stdin is None:
        sys.stdin = _reopen(0, os.open(os.devnull, os.O_RDONLY), "r")
    out = sys.stdout or _reopen(1, _broken_pipe(), "w")
    sys.stdout = _safe_stream(out, own=sys.stdout is sys.__stdout__)
    err = sys.stderr or _reopen(_ERROR, os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = _safe_stream(err, own=sys.stderr is sys.__stderr__)


def _broken_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _reopen(number: int, descriptor: int, mode: str) -> TextIO:
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return cast(TextIO, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _safe_stream(stream: TextIO, *, own: bool) -> TextIO:
    """The stream with `_escaped` as error handler; the process's own also exits with `EXIT_NO_READER`."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors=_ESCAPES)
    if not own or sys.platform == "win32":  # a console is not a file there
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
    """Standard output or error. Exiting here, below every buffer, leaves other broken pipes alone."""

    def write(self, data: Any) -> int:
        """Write, or exit through every `finally` if the pipe is broken.

        After a failure further output is discarded: flushing the buffers at exit would fail again. A full disk under
        standard error is ignored, since it cannot be reported.
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
    r"""Escape what an encoding lacks as `\u65e5`; bytes of a path that is not UTF-8 are printed unchanged."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    wide = error.encoding.lower().startswith(("utf-16", "utf-32"))  # a single byte is invalid there
    if "\udc80" <= first <= "\udcff" and not wide:
        return bytes([ord(first) - 0xDC00]), error.start + 1
    # Not Python's shorter \xe9, which is invalid in JSON and TOML.
    return f"\\u{ord(first):04x}" if ord(first) < 0x10000 else f"\\U{ord(first):08x}", error.start + 1
