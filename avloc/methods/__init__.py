"""The published systems, one file each: subclasses of `Method`, named in `avloc.published`."""

from __future__ import annotations

from importlib import import_module

from avloc.config import ModelConfig
from avloc.errors import UsageError
from avloc.methods.base import Embeddings, HintBatch, Method, Published, Supervision
from avloc.published import METHOD_SPECS


def method_class(name: str) -> type[Method]:
    """The class of a published method.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in METHOD_SPECS:
        raise UsageError(f"unknown method {name!r}; valid: {', '.join(METHOD_SPECS)}")
    module, _, kind = METHOD_SPECS[name].network.partition(".")
    found: type[Method] = getattr(import_module(f"avloc.methods.{module}"), kind)
    return found


def build(config: ModelConfig) -> Method:
    """The networks of a configuration, with initial weights.

    Raises:
        UsageError: unknown method or trunk, or a size or rate that the method does not have.
    """
    return method_class(config.method)(config)


__all__ = ["Embeddings", "HintBatch", "Method", "Published", "Supervision", "build", "method_class"]
