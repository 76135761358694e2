"""How two models differ, clip by clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avloc import __version__
from avloc.evaluate.records import EvalReport
from avloc.evaluate.seed_groups import check_alike
from avloc.metrics import paired_difference
from avloc.protocols import Protocol

COMPARE_SCHEMA = "avloc.compare/1"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Model `a` against model `b` on the clips that both scored."""

    a: str
    b: str
    a_selection: str
    """How the epoch was chosen (`EvalReport.selection`)."""
    b_selection: str
    a_hash: str
    b_hash: str
    testset: str
    data_hash: str
    protocol: Protocol
    box_rule: str
    n: int
    """Clips that both scored."""
    only_a: list[str]
    only_b: list[str]
    maps: dict[str, dict[str, dict[str, float]]]
    """Kind of map -> metric -> `difference` (a - b), `low` and `high` of its 95 % interval, `p`
    (`avloc.metrics.paired_difference`)."""
    not_compared: list[str]
    """Kinds of map that only one of the two has."""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        fields = {**vars(self), "protocol": self.protocol.as_json()}
        return {"schema": COMPARE_SCHEMA, "version": __version__, **fields}


def compare(a: EvalReport, b: EvalReport) -> Comparison:
    """Paired differences between two models, over the clips that both scored.

    Raises:
        Refused: they were scored on different data or by different rules.
    """
    check_alike([a, b])
    rows_a, rows_b = ({row.id: row for row in report.clips} for report in (a, b))
    both = sorted(rows_a.keys() & rows_b.keys())
    pairs = {
        kind: paired_difference(
            [rows_a[clip_id].scores[kind].ciou for clip_id in both],
            [rows_b[clip_id].scores[kind].ciou for clip_id in both],
            a.protocol.success,
        )
        for kind in a.maps
        if kind in b.maps
    }
    return Comparison(
        a=a.model,
        b=b.model,
        a_selection=a.selection,
        b_selection=b.selection,
        a_hash=a.model_hash,
        b_hash=b.model_hash,
        testset=a.testset,
        data_hash=a.data_hash,
        protocol=a.protocol,
        box_rule=a.box_rule,
        n=len(both),
        only_a=sorted(rows_a.keys() - rows_b.keys()),
        only_b=sorted(rows_b.keys() - rows_a.keys()),
        maps=pairs,
        not_compared=sorted(a.maps.keys() ^ b.maps.keys()),
    )
