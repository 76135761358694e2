"""The published systems, one file each: subclasses of `Method` or `EventMethod`, named in `avloc.registry`."""

from __future__ import annotations

from importlib import import_module

from avloc.config import ModelConfig
from avloc.errors import UsageError, nearest
from avloc.methods.base import Embeddings, HintBatch, Method, Published, Supervision
from avloc.methods.events import EventMethod
from avloc.registry import EVENT_SPECS, METHOD_SPECS, SPECS


def any_class(name: str) -> type[Method] | type[EventMethod]:
    """The class of a published method of either kind.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in SPECS:
        raise UsageError(f"unknown method {name!r}; valid: {', '.join(SPECS)}", hint=nearest(name, SPECS))
    module, _, kind = SPECS[name].network.partition(".")
    found: type[Method] | type[EventMethod] = getattr(import_module(f"avloc.methods.{module}"), kind)
    return found


def build(config: ModelConfig) -> Method:
    """The networks of a configuration that make maps, with initial weights.

    Raises:
        UsageError: unknown method or trunk, a size or rate that the method does not have, or a method that tells
            events.
    """
    found = any_class(config.method)
    if not issubclass(found, Method):
        hint = "Valid with it: avloc localize --events, and avloc eval --testset ave, ave-weak or ave-match."
        raise UsageError(f"{config.method} tells events and makes no maps; valid: {', '.join(METHOD_SPECS)}", hint=hint)
    return found(config)


def build_events(config: ModelConfig) -> EventMethod:
    """The networks of a configuration that tell events, with initial weights.

    Raises:
        UsageError: the method is of the other kind, or unknown.
    """
    found = any_class(config.method)
    if not issubclass(found, EventMethod):
        raise UsageError(f"{config.method} makes maps and tells no events; valid: {', '.join(EVENT_SPECS)}")
    return found(config)


__all__ = [
    "Embeddings",
    "EventMethod",
    "HintBatch",
    "Method",
    "Published",
    "Supervision",
    "any_class",
    "build",
    "build_events",
]
