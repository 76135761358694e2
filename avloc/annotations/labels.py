"""What is heard and what is seen, as the label of a clip says it.

The grammar is `heard | seen, seen`: `violin | violin, dog` is a violin that is heard in a picture of a violin and a
dog, `siren | dog` a dog with a wrong sound. Without ` | ` what is heard is what is seen. '' says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RIGHT, OPEN, WRONG = 1, 0, -1
"""What a picture and a sound are to each other: they belong together, nobody knows, they do not."""

_BETWEEN, _COMMA = " | ", ","


@dataclass(frozen=True, kw_only=True)
class Label:
    """One clip's label, taken apart."""

    heard: str
    seen: frozenset[str]

    @property
    def known(self) -> bool:
        """Whether the label says anything."""
        return bool(self.heard)


def parse_label(text: str) -> Label:
    """Take a label apart; blanks around names count for nothing."""
    heard, sign, seen = text.partition(_BETWEEN)
    names = seen.split(_COMMA) if sign else [heard]
    return Label(heard=heard.strip(), seen=frozenset(name.strip() for name in names if name.strip()))


def relations(labels: Sequence[str]) -> NDArray[np.int8]:
    """What picture n and sound m of a batch are to each other, by their labels.

    Returns:
        [B, B], picture first: WRONG where both have labels and what is heard in m is not seen in n; RIGHT for a clip's
        own sound that is not wrong, and for that of a clip without a label; else OPEN.
    """
    parsed = [parse_label(text) for text in labels]
    out = np.full((len(parsed), len(parsed)), OPEN, np.int8)
    np.fill_diagonal(out, RIGHT)
    for n, picture in enumerate(parsed):
        for m, sound in enumerate(parsed):
            if picture.known and sound.known and sound.heard not in picture.seen:
                out[n, m] = WRONG
    return out
