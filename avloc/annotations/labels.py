"""Parse clip labels of the form `sounding | visible, visible`.

`violin | violin, dog` is the sound of a violin with a picture of a violin and a dog; `siren | dog` is a mismatch.
Without ` | ` the sounding class is the only visible one. '' is no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MATCH, UNKNOWN, MISMATCH = 1, 0, -1
"""Relation of a picture and a sound."""

_SEPARATOR, _COMMA = " | ", ","


@dataclass(frozen=True, kw_only=True)
class Label:
    """Sounding class and visible classes of a clip; '' and none without a label."""

    sounding: str
    visible: frozenset[str]


def parse_label(text: str) -> Label:
    """Parse a label; spaces around names are ignored."""
    sounding, separator, visible = text.partition(_SEPARATOR)
    names = visible.split(_COMMA) if separator else [sounding]
    return Label(sounding=sounding.strip(), visible=frozenset(name.strip() for name in names if name.strip()))


def relations(labels: Sequence[str]) -> NDArray[np.int8]:
    """Relations of picture n and sound m of a batch, by their labels.

    Returns:
        [B, B], picture first: MISMATCH if both have labels and the sounding class of m is not visible in n; else MATCH
        on the diagonal and UNKNOWN elsewhere.
    """
    parsed = [parse_label(text) for text in labels]
    classes = {label.sounding: row for row, label in enumerate(parsed)}  # "" of unlabelled clips is one of them
    sounding = np.array([classes[label.sounding] for label in parsed], np.intp)
    visible = np.zeros((len(parsed), len(parsed)), np.bool_)
    for row, label in enumerate(parsed):
        visible[row, [classes[name] for name in label.visible if name in classes]] = True
    labelled = np.array([bool(label.sounding) for label in parsed], np.bool_)
    out = np.where(np.eye(len(parsed), dtype=np.bool_), MATCH, UNKNOWN).astype(np.int8)
    out[~visible[:, sounding] & labelled[:, None] & labelled] = MISMATCH
    return out
