"""The published localizers, one file each: subclasses of `Method`, named in `avloc.registry`."""

from __future__ import annotations

from avloc.config import ModelConfig
from avloc.errors import UsageError, nearest
from avloc.methods.base import Embeddings, HintBatch, Method, PublishedModel, Supervision
from avloc.registry import METHOD_SPECS, SPECS, resolve


def any_class(name: str) -> type[PublishedModel]:
    """The class of a published method.

    Raises:
        UsageError: unknown method.
    """
    if name not in SPECS:
        raise UsageError(f"unknown method {name!r}; valid: {', '.join(SPECS)}", hint=nearest(name, SPECS))
    found: type[PublishedModel] = resolve(SPECS[name].network)
    return found


def build(config: ModelConfig) -> Method:
    """The networks of a localizer, with initial weights.

    Raises:
        UsageError: unknown method or backbone, a size or rate that the method does not have, or a method without maps.
    """
    found = any_class(config.method)
    if not issubclass(found, Method):
        reason = f"{config.method} predicts {found.predicts}, not maps; valid: {', '.join(METHOD_SPECS)}"
        raise UsageError(reason, hint=found.usage)
    return found(config)


__all__ = [
    "Embeddings",
    "HintBatch",
    "Method",
    "PublishedModel",
    "Supervision",
    "any_class",
    "build",
]
