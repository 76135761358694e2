"""Scores of pictures with several sources, each with its own sound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from avloc.metrics.localization import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class SourceScores:
    """IIoU@0.5 and IAUC over `n_pictures` pictures with two or more sources."""

    n_pictures: int
    iiou_50: float
    iauc: float
    area_iiou_50: float
    """The same with as many of the hottest pixels as each truth has."""
    area_iauc: float


def source_scores(groups: Sequence[str], cious: ArrayLike, area_cious: ArrayLike) -> SourceScores:
    """cIoU@0.5 and AUC of pictures, where the cIoU of a picture is that of its worst source.

    Pictures with a single source are left out; the published code counts them.

    Args:
        groups: [n] picture of each source, in any order.
        cious: [n] of the sources; a picture with a NaN reaches no threshold.
        area_cious: [n] of the sources, under the ground-truth-area threshold.

    Returns:
        NaN without such pictures.

    Raises:
        ValueError: different lengths.

    Source: Senocak et al., TPAMI 2025 (IS3); SSLalignment `utils.py` (`Evaluator_iiou`).
    """
    fixed, at_area = _worst(groups, cious), _worst(groups, area_cious)
    return SourceScores(
        n_pictures=fixed.n,
        iiou_50=fixed.ciou_50,
        iauc=fixed.auc,
        area_iiou_50=at_area.ciou_50,
        area_iauc=at_area.auc,
    )


def _worst(groups: Sequence[str], cious: ArrayLike) -> Summary:
    members: defaultdict[str, list[float]] = defaultdict(list)
    for group, value in zip(groups, np.asarray(cious, np.float64), strict=True):
        members[group].append(value)
    # np.min propagates NaN; Python's min depends on the order.
    return summarise([float(np.min(values)) for values in members.values() if len(values) > 1])
