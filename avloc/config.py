"""Every setting that changes a number, as frozen, validated dataclasses. No torch here.

They are written into the model file, the run folder and the report. Field names are the keys of `--set` and of the TOML
file; nested dataclasses are tables.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from avloc.errors import UsageError, nearest
from avloc.option_rules import check_applies
from avloc.registry import AUDIO_TEACHERS, FASTEST_HZ, LONGEST_S, SPECS, VISUAL_TEACHERS, check_setting, merged

T = TypeVar("T")

_WIDEST, _LARGEST_FRAME = 1 << 16, 1 << 13
"""Upper limits, so that a mistake or a hostile file does not fill the memory."""

TRAIN_SHORTER_SIDE = 256
"""Shorter side of the frames of a training store in pixels, unless `prepare --side` sets it."""

PANNS_SOUNDS = ("auto", "source", "store")
"""Input of PANNs: `avloc.teachers.panns.choose_sound`."""

LAST_EPOCH = "last epoch"
"""`selection` in the card of a model without validation."""
TEST_SELECTED = "test-selected"
"""Prefix of `selection` in the card of a model whose epoch was selected on clips of a known test set."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The networks and their input."""

    method: str = "avc"
    """Name of the published method (`avloc.methods`)."""
    vision_trunk: str = "resnet18"
    """Image backbone (`avloc.networks.backbones`); `resnet18:layer2` ends after that layer."""
    audio_trunk: str = "resnet18"
    """Audio backbone; the first convolution of an image network is replaced by one with a single input channel."""
    dim: int = 2048
    """Width of the joint embedding space."""
    tau: float = 0.03
    """Temperature of the contrastive loss."""
    seconds: float = 3.0
    """Length of the audio input in seconds."""
    rate: int = 22_050
    """Sample rate of the audio input in Hz; 0 takes each file's own rate (EZ-VSL); `yamnet` needs 16000."""
    frame: int = 224
    """Side of the square network input in pixels."""
    own: dict[str, Any] = field(default_factory=dict)
    """Settings of this method only (`avloc.registry`)."""

    def __post_init__(self) -> None:
        if self.method in SPECS:
            object.__setattr__(self, "own", SPECS[self.method].own_settings(self.own))
        check_setting(0 < self.dim <= _WIDEST, "model.dim", self.dim, f"a positive integer, {_WIDEST} at most")
        check_setting(self.tau > 0, "model.tau", self.tau, "a positive number")
        check_setting(0.1 <= self.seconds <= LONGEST_S, "model.seconds", self.seconds, f"0.1 to {LONGEST_S} seconds")
        rates = f"0 or a sample rate of 8000 to {FASTEST_HZ} Hz"
        check_setting(self.rate == 0 or 8_000 <= self.rate <= FASTEST_HZ, "model.rate", self.rate, rates)
        check_setting(32 <= self.frame <= _LARGEST_FRAME, "model.frame", self.frame, f"32 to {_LARGEST_FRAME} pixels")

    def __hash__(self) -> int:
        return hash(repr(self))


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Factors of the named loss terms (AVC, section 3.4), where 0 drops a term and its hints; and negatives."""

    contrastive: float = 1.0
    agreement: float = 1.0
    """Two views of one picture (SSPL)."""
    event: float = 1.0
    """Event of each second (AVE)."""
    audio_hint: float = 1_000.0
    visual_hint: float = 100_000.0
    box: float = 0.0
    """Similarity of every cell against the boxes of the clip; in no published method."""
    peak: float = 0.0
    """Whether the most similar cells lie in the boxes; in no published method."""
    same_class: str = "negative"
    """`negative`: every other clip of the batch is a negative, as published; `masked`: only clips of other labels."""

    def __post_init__(self) -> None:
        for name in ("contrastive", "agreement", "event", "audio_hint", "visual_hint", "box", "peak"):
            check_setting(0 <= getattr(self, name) < float("inf"), f"loss.{name}", getattr(self, name), "0 or more")
        valid = ("negative", "masked")
        check_setting(self.same_class in valid, "loss.same_class", self.same_class, " or ".join(valid))

    @property
    def boxes(self) -> float:
        """Total weight of the terms that use boxes."""
        return self.box + self.peak


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, without warm-up or clipping; by default without a schedule (paper, section 4)."""

    name: str = "adam"
    """`adam`, or `adamw` with decoupled weight decay."""
    lr: float = 1e-4
    schedule: str = "constant"
    """`constant`, or `cosine`: annealed to 0 at the end of the last epoch (SGDR, equation 5, without restarts)."""
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_setting(self.name in ("adam", "adamw"), "optim.name", self.name, "adam or adamw")
        check_setting(0 < self.lr < float("inf"), "optim.lr", self.lr, "a positive number")
        check_setting(self.schedule in ("constant", "cosine"), "optim.schedule", self.schedule, "constant or cosine")
        for name in ("beta1", "beta2"):
            check_setting(0 <= getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "0 or more, less than 1")
        check_setting(0 <= self.weight_decay < float("inf"), "optim.weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random crop and flip per sample."""

    scale: float = 1.1
    """Shorter side of the picture over the crop's side; 1 crops the largest square."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    map: str = "follow"
    """`follow` crops and flips the visual hint with the picture; `legacy` does not, as in the published code."""

    def __post_init__(self) -> None:
        check_setting(1 <= self.scale <= 10, "augment.scale", self.scale, "1 to 10")
        check_setting(0 <= self.flip <= 1, "augment.flip", self.flip, "a probability")
        check_setting(self.map in ("follow", "legacy"), "augment.map", self.map, "follow or legacy")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; the defaults are the paper's."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 100
    batch: int = 128
    seed: int = 10
    init: str = "imagenet"
    """Initial weights: `imagenet` (pretrained image backbone, and audio backbone if it is an audio network), `concepts`
    (the same, and projections from `avloc.networks.concepts`), `random`, or a model file."""
    freeze: bool = False
    """Freeze both backbones, including running statistics; only the projections are trained."""
    thaw: str = ""
    """Modules to train although the backbones are frozen, by name, comma-separated: `imgnet.layer4`."""
    audio_teacher: str = "panns"
    """Teacher of the audio hint term: `panns`, `yamnet` or `vggish`."""
    visual_teacher: str = "detr"
    """Teacher of the visual hint term: `detr` or `lite0`."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 if the hardware is faster in it."""
    workers: int = -1
    """Loader processes (`avloc.loader_processes.process_count`); they do not change the result."""
    compile: bool = False
    """Compile the backbones in training steps (`avloc.train.compilation`); experimental."""

    def __post_init__(self) -> None:
        for name, known in (("audio_teacher", AUDIO_TEACHERS), ("visual_teacher", VISUAL_TEACHERS)):
            check_setting(getattr(self, name) in known, name, getattr(self, name), ", ".join(known))
        check_setting(self.freeze or not self.thaw, "thaw", self.thaw, "empty, unless freeze = true")
        check_setting(self.epochs > 0, "epochs", self.epochs, "a positive integer")
        check_setting(self.batch > 1, "batch", self.batch, "2 or more: most methods compare a clip with its batch")
        check_setting(0 <= self.seed < 2**63, "seed", self.seed, "0 or more, below 2^63")
        check_setting(self.workers >= -1, "workers", self.workers, "0 or more, or -1: by the number of cores")
        valid = ("auto", "fp32", "bf16")
        check_setting(self.precision in valid, "precision", self.precision, ", ".join(valid))


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain dictionaries, for TOML and JSON."""
    return dataclasses.asdict(config)


def from_dict(kind: type[T], data: Mapping[str, Any], prefix: str = "") -> T:
    """Rebuild a dataclass; missing keys keep their defaults.

    Raises:
        UsageError: an unknown key, or a value of the wrong type.
    """
    known = get_type_hints(kind)
    if (unknown := next((name for name in data if name not in known), None)) is not None:
        valid = ", ".join(prefix + name for name in known)
        raise UsageError(f"unknown setting {prefix}{unknown}; valid: {valid}", hint=nearest(unknown, known))
    return kind(**{name: _converted(known[name], value, prefix + name) for name, value in data.items()})


def _converted(kind: Any, value: Any, name: str) -> Any:
    if get_origin(kind) is UnionType:  # `float | None`: given as a float, or left out
        kind = get_args(kind)[0]
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} is a table of settings, not {value!r}")
        return from_dict(kind, value, f"{name}.")  # type: ignore[arg-type]
    if get_origin(kind) is dict and isinstance(value, Mapping):
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{name} = {value!r} is impossible; valid: a value of type {kind.__name__}")
    return value


def dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table with dotted names."""
    out: dict[str, Any] = {}
    for name, value in table.items():
        out |= dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return out


def resolve_config(table: Mapping[str, Any], method: str = "", given: Mapping[str, str] | None = None) -> TrainConfig:
    """A configuration from nested settings (keys as in `to_dict`), over the defaults of the method.

    A table named after the method holds its own settings. Without `method`, `model.method` names it, by default AVC.
    `given` is as in `check_used`.

    Raises:
        UsageError: an unknown method or setting, or a setting that the method does not use.
    """
    model = table.get("model", {})
    if not isinstance(model, Mapping) or not isinstance(model.get("own", {}), Mapping):
        raise UsageError("model and model.own are tables of settings; valid: --set model.KEY=VALUE, METHOD.KEY=VALUE")
    listed = model.get("method", "")
    if method and listed not in ("", method):
        raise UsageError(f"--method {method} and model.method = {listed!r} contradict each other; valid: one of them")
    method = method or listed or next(iter(SPECS))
    if method not in SPECS:
        raise UsageError(f"unknown method {method!r}; valid: {', '.join(SPECS)}", hint=nearest(method, SPECS))
    spec = SPECS[method]
    if other := next((name for name, one in SPECS.items() if one.name in table and one is not spec), None):
        raise UsageError(f"settings of {other} go with --method {other}, not with {method}")
    own = table.get(spec.name, {})
    check_setting(isinstance(own, Mapping), spec.name, own, f"--set {spec.name}.KEY=VALUE")
    rest = {name: value for name, value in table.items() if name != spec.name}
    rest = merged(rest, {"model": {"method": method, "own": own}})
    config = from_dict(TrainConfig, merged(spec.defaults(rest["model"]["own"]), rest))
    check_used(config, given)
    return config


def check_used(config: TrainConfig, given: Mapping[str, str] | None = None) -> None:
    """Raise a UsageError for a setting that the method does not use, or if all loss weights are 0.

    `given` are the settings on the command line, each with its spelling there. Their values do not matter.
    """
    spec = SPECS[config.model.method]
    default = from_dict(TrainConfig, spec.defaults(config.model.own))
    ours, defaults = (dotted(to_dict(each)) for each in (config, default))
    # Files written by avloc list every setting, and Python code does not record which were given. There an unused
    # setting is refused only if it differs from its default.
    changed = {name: f"{name} = {value!r}" for name, value in ours.items() if value != defaults[name]}
    check_applies({**changed, **(given or {})}, spec.unused, f"does not apply to --method {config.model.method}")
    weight = getattr(config.loss, spec.term)
    total = weight or config.loss.boxes or config.loss.audio_hint or config.loss.visual_hint
    check_setting(bool(total), f"loss.{spec.term}", weight, f"more than 0, or {spec.name} has no loss")


def read_toml(path: Path) -> dict[str, Any]:
    """Settings from a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"no such configuration file: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def write_toml(table: Mapping[str, Any]) -> str:
    """Tables (`to_dict` of a dataclass) as TOML text; the inverse of `read_toml`."""
    import tomli_w

    return tomli_w.dumps(table)


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """`--set key=value` pairs as nested tables. Values are TOML; anything else is a string."""
    out: dict[str, Any] = {}
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not all(part.isidentifier() for part in key.strip().split(".")):
            raise UsageError(f"--set {assignment!r} is not key=value, as in --set optim.lr=0.001")
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        out = merged(out, value)
    return out
