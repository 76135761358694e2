"""The results of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from avloc import __version__
from avloc.config import LAST_EPOCH, TEST_SELECTED
from avloc.errors import MissingClips, NoInputLeft
from avloc.metrics import ClipScore, ExtendedScores, NegativeScores, SourceScores, Summary
from avloc.protocols import Protocol

SCHEMA = "avloc.eval/2"
HELD_OUT = "held-out"
NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """One clip under one protocol."""

    id: str
    label: str
    flags: tuple[str, ...]
    """Flags of `prepare`: `silent`, `still`, `short`, `narrowband`."""
    area: float
    """Share of the picture that the truth covers."""
    size: str
    """`small`, `medium`, `large` or `huge` (`avloc.metrics.size_of`)."""
    scores: dict[str, ClipScore]
    """Kind of map -> scores."""


@dataclass(frozen=True, kw_only=True)
class MapScores:
    """One kind of map over all clips of a protocol."""

    overall: Summary
    interval: dict[str, list[float]]
    """95 % bootstrap intervals of `ciou_50`, `auc` and `mean_ciou`; NaN for fewer than two clips."""
    area: Summary
    """The same clips under the ground-truth-area threshold."""
    pointing: float
    """Share of clips whose hottest pixel lies inside the truth; NaN for a map without a peak."""
    sizes: dict[str, Summary]
    """Size of the truth -> summary."""
    miou: float = float("nan")
    """Mean IoU of mask and truth, if the truths are masks."""
    max_f: float = float("nan")
    """Largest F-score (beta^2 0.3) of the mean curve, if the truths are masks."""


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """One model on one test set under one protocol."""

    testset: str
    model: str
    """Name of the model; '' if only baselines were scored."""
    model_hash: str
    model_card: dict[str, Any]
    data_hash: str
    protocol: Protocol
    box_rule: str
    n_expected: int
    missing: dict[str, str]
    """Expected ids without a score, and why."""
    missing_pairs: dict[str, str] = field(default_factory=dict)
    """Silent pairs of an extended set without a map, and why."""
    empty_truths: list[str] = field(default_factory=list)
    """Clips whose truth covers no pixel: their cIoU is 0 by definition."""
    maps: dict[str, MapScores]
    """`shipped`, `av`, `object`, `fused`, `detr`, `fused-detr`: those requested whose weights are available."""
    shipped: dict[str, str] = field(default_factory=dict)
    """`resize` and `fusion` of the map `shipped`, from the model's card."""
    baselines: dict[str, MapScores]
    """`centre disc`, `centre square`, `whole frame`, `truth prior`, `random`, `sound ignored`, `ceiling`."""
    sweep: dict[str, MapScores]
    """Weights, as `0.7 av + 0.3 object`, -> scores."""
    not_run: dict[str, str]
    """Map that is left out -> why."""
    no_query: int = 0
    """Clips in which no query of DETR was confident."""
    extended: dict[str, ExtendedScores] = field(default_factory=dict)
    """Kind of map -> scores on an extended set."""
    negatives: dict[str, NegativeScores] = field(default_factory=dict)
    """Rule of the universal threshold -> scores with wrong sounds."""
    sources: dict[str, SourceScores] = field(default_factory=dict)
    """Kind of map -> scores of pictures with several sources."""
    cost: list[dict[str, Any]] = field(default_factory=list)
    """Parameters and multiply-adds of the model alone and with its priors."""
    priors: dict[str, dict[str, str]] = field(default_factory=dict)
    """Prior -> its network and the SHA-256 of its weights."""
    clips: list[ClipRow] = field(repr=False)
    """Sorted by id."""

    @property
    def n_scored(self) -> int:
        """Number of clips with a score."""
        return len(self.clips)

    @property
    def selection(self) -> str:
        """How the epoch was selected: `test-selected`, `held-out`, `last epoch`, `not stated`; '' without a model.

        An epoch selected on the store that is scored is `test-selected`, whatever the card states.
        """
        if not self.model_hash:
            return ""
        stated = str(self.model_card.get("selection") or "")
        if not stated or stated == LAST_EPOCH:
            return stated or NOT_STATED
        chosen_here = self.data_hash and self.model_card.get("validation_data_hash") == self.data_hash
        return TEST_SELECTED if chosen_here or stated.startswith(TEST_SELECTED) else HELD_OUT

    def as_json(self) -> dict[str, Any]:
        """The report as plain data. The same command on the same files gives the same bytes."""
        fields = {name: value for name, value in vars(self).items() if name != "protocol"}
        data = {name: _plain(value) for name, value in fields.items()}
        head = {"schema": SCHEMA, "version": __version__, "protocol": self.protocol.as_json()}
        return {**head, "n_scored": self.n_scored, "selection": self.selection, **data}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def check_missing(
    missing: Sequence[str], n_scored: int, max_missing: int, *, pairs: int = 0, unit: str = "clip"
) -> None:
    """Raise NoInputLeft if nothing was scored, MissingClips if more is missing than allowed; for after the printing.

    `missing` names each missing clip and why; `pairs` counts missing silent pairs.
    """
    if not n_scored:
        raise NoInputLeft(f"none of {len(missing)} {unit}s could be scored; the first: {missing[0]}")
    count = len(missing) + pairs
    if count > max_missing:
        what = f"{len(missing)} {unit}{'s' * (len(missing) != 1)}" + (f" and {pairs} silent pairs" if pairs else "")
        reason = f"{what} {'is' if count == 1 else 'are'} missing; --max-missing allows {max_missing}"
        raise MissingClips(reason, hint=f"Allow it with --max-missing {count}.")
