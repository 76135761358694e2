"""avloc: where in this picture does the sound come from?

As a library: `model = avloc.load()`, then `model.localize(frame, waveform, rate)` gives an `avloc.Result`. Importing
avloc loads nothing heavy; torch comes with the first of these names that is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avloc.localize.export import export
    from avloc.localize.model import Model, load
    from avloc.localize.result import Result
    from avloc.localize.verdict import clip_match

__version__ = "0.2.0"
__all__ = ["Model", "Result", "__version__", "clip_match", "export", "load"]

_HOMES = {
    "Model": "avloc.localize.model",
    "load": "avloc.localize.model",
    "Result": "avloc.localize.result",
    "export": "avloc.localize.export",
    "clip_match": "avloc.localize.verdict",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
