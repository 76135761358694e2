"""What is plugged into the commands: published methods and teachers, those of other packages too.

Everything is data. Code is given by dotted name and imported on first use (`resolve`), so that the library and worker
processes find it as the command line does. No torch here.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from typing import Any

from avloc.errors import UsageError, nearest

LONGEST_S, FASTEST_HZ = 600, 768_000
"""Limits in seconds and Hz: longer or faster sound is a mistake, or a file's attempt to exhaust memory."""


def resolve(name: str) -> Any:
    """The class or function of a dotted name; its module is imported on first use."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def check_setting(fine: bool, name: str, value: object, valid: str) -> None:
    """Raise a UsageError with a setting's name, value and valid values, unless it is fine."""
    if not fine:
        raise UsageError(f"{name} = {value!r} is impossible; valid: {valid}")


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """Format of the clips of a store."""

    seconds: float = 3.0
    """Length of the sound in seconds."""
    rate: int = 22_050
    """Sample rate of the stored sound in Hz."""
    shorter_side: int = 0
    """Shorter side of the stored frames in pixels; 0 keeps the original picture (test stores)."""

    def __post_init__(self) -> None:
        check_setting(0 < self.seconds <= LONGEST_S, "seconds", self.seconds, f"more than 0, {LONGEST_S} at most")
        check_setting(8_000 <= self.rate <= FASTEST_HZ, "rate", self.rate, f"a sample rate in Hz, 8000 to {FASTEST_HZ}")

    @property
    def samples(self) -> int:
        """Stored samples of one clip."""
        return int(self.seconds * self.rate)


def merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated by `update`, table by table."""
    out = dict(base)
    for name, value in update.items():
        both_tables = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merged(out[name], value) if both_tables else value
    return out


@dataclass(frozen=True)
class Setting:
    """A setting of one method: its default, and the range of valid values."""

    default: bool | int | float
    least: float = 0.0
    most: float = math.inf

    def checked(self, name: str, value: object) -> bool | int | float:
        """The value; an integer is converted if the default is a float.

        Raises:
            UsageError: the value has another type, or is out of range.
        """
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        check_setting(type(value) is kind, name, value, f"a value of type {kind.__name__}")
        assert isinstance(value, bool | int | float)
        check_setting(self.least <= value <= self.most, name, value, f"{self.least:g} to {self.most:g}")
        return value


@dataclass(frozen=True, kw_only=True)
class WhenDisabled:
    """Defaults that differ when a setting of the method is disabled."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, bool | int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One published method."""

    network: str
    """Dotted name of the class, an `avloc.methods.base.PublishedModel`."""
    task: str = "avloc.train.localizer.LocalizerTask"
    """Dotted name of the task of the training loop, an `avloc.train.task.Task`."""
    store: StoreSpec = field(default_factory=StoreSpec)
    """Format of a store made with `prepare --for METHOD`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The authors' settings where they differ from AVC's, as tables of a `TrainConfig`."""
    own: Mapping[str, Setting] = field(default_factory=dict)
    """Settings of this method alone."""
    without: Mapping[str, WhenDisabled] = field(default_factory=dict)
    """Own setting -> the authors' other settings when it is disabled."""
    unused: tuple[str, ...] = ()
    """Settings, and parameters of `train`, that have no effect on it."""
    protocol: str = "avloc"
    """The protocol of its authors; avloc's own for AVC, whose code scores against the first box alone; '' for a method
    without maps."""
    hints: bool = False
    """Whether its loss uses the hints of teachers."""
    segments: bool = False
    """Whether it is trained with superpixels of the frames (`avloc.media.superpixels`), or rectangles (`grid`)."""
    term: str = "contrastive"
    """The loss term that selects the epoch if the held-out clips have no boxes."""

    @property
    def name(self) -> str:
        """Table of its own settings, `--set NAME.KEY=VALUE`: `--method` with underscores for dashes."""
        return str(self.settings.get("model", {}).get("method", "avc")).replace("-", "_")

    def own_settings(self, given: Mapping[str, Any]) -> dict[str, bool | int | float]:
        """Its own settings; those not given have their defaults.

        Raises:
            UsageError: unknown setting, or an invalid value.
        """
        if (unknown := next((name for name in given if name not in self.own), None)) is not None:
            valid, hint = ", ".join(self.own) or "none", nearest(unknown, self.own)
            raise UsageError(f"unknown setting {unknown} of {self.name}; valid: {valid}", hint=hint)
        defaults = {name: own.default for name, own in self.own.items()}
        for disabled in self._disabled(given):
            defaults |= disabled.own
        return {
            name: self.own[name].checked(f"{self.name}.{name}", value) for name, value in {**defaults, **given}.items()
        }

    def defaults(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`settings`, updated by `without` for its own settings as given."""
        return reduce(merged, (disabled.settings for disabled in self._disabled(given)), dict(self.settings))

    def _disabled(self, given: Mapping[str, Any]) -> list[WhenDisabled]:
        return [changes for name, changes in self.without.items() if not given.get(name, self.own[name].default)]


AUDIO_TEACHERS: Mapping[str, str] = {
    "panns": "avloc.teachers.panns.PannsTeacher",
    "yamnet": "avloc.teachers.yamnet.YamnetTeacher",
    "vggish": "avloc.teachers.vggish.VggishTeacher",
}
"""Name -> class of an audio teacher: one hint vector per clip."""
VISUAL_TEACHERS: Mapping[str, str] = {
    "detr": "avloc.teachers.detr.DetrTeacher",
    "lite0": "avloc.teachers.lite0.Lite0Teacher",
}
"""Name -> class of a visual teacher: hint maps over the frame, with a number or a vector per cell."""

_TEN_SECONDS = StoreSpec(seconds=10.0, rate=16_000)
_WITHOUT_HINTS = {"audio_hint": 0.0, "visual_hint": 0.0}
_VGG = {"vision_trunk": "vgg16", "audio_trunk": "vggish", "dim": 512, "rate": 16_000}
_TEACHER_SETTINGS = ("loss.audio_hint", "loss.visual_hint", "audio_teacher", "visual_teacher", "augment.map")
_LABEL_SETTINGS = ("loss.same_class", "loss.box", "loss.peak")
_OTHER_TERMS = ("loss.agreement", "loss.event")
_ENABLED, _DISABLED = Setting(default=True), Setting(default=False)

METHOD_SPECS: Mapping[str, MethodSpec] = types.MappingProxyType(
    {
        "avc": MethodSpec(network="avloc.methods.avc.AVC", hints=True, unused=_OTHER_TERMS),
        "ezvsl": MethodSpec(
            network="avloc.methods.ezvsl.EZVSL",
            settings={"model": {"method": "ezvsl", "dim": 512}, "loss": _WITHOUT_HINTS},
            unused=(*_OTHER_TERMS, *_TEACHER_SETTINGS),
            protocol="ezvsl",
        ),
        "lvs": MethodSpec(
            network="avloc.methods.lvs.LVS",
            store=_TEN_SECONDS,
            settings={"model": {"method": "lvs", "dim": 512, "seconds": 10.0, "rate": 16_000}, "loss": _WITHOUT_HINTS},
            own={
                "positive": Setting(0.65, -1.0, 1.0),
                "negative": Setting(0.4, -1.0, 1.0),
                "temperature": Setting(0.07, 1e-6),
                "trimap": _ENABLED,
                "legacy_diagonal": _DISABLED,
            },
            unused=("thaw", *_OTHER_TERMS, *_TEACHER_SETTINGS),
            protocol="lvs",
        ),
        "sspl": MethodSpec(
            network="avloc.methods.sspl.SSPL",
            store=StoreSpec(seconds=3.0, rate=16_000),
            settings={
                "model": {"method": "sspl", **_VGG},
                "loss": _WITHOUT_HINTS,
                "optim": {"name": "adamw", "lr": 2e-5, "weight_decay": 1e-4},
                "epochs": 20,
                "batch": 256,
            },
            own={"pcm": _ENABLED, "head_lr": Setting(2.5)},
            without={"pcm": WhenDisabled(settings={"optim": {"lr": 5e-4}, "epochs": 100}, own={"head_lr": 4.0})},
            unused=(
                *("model.tau", "freeze", "thaw", "loss.contrastive", "loss.event"),
                *_LABEL_SETTINGS,
                *_TEACHER_SETTINGS,
            ),
            protocol="sspl",
            term="agreement",
        ),
        "sacl": MethodSpec(
            network="avloc.methods.sacl.SACL",
            store=StoreSpec(seconds=3.0, rate=16_000),
            settings={
                "model": {"method": "sacl", **_VGG, "vision_trunk": "resnet18"},
                "loss": _WITHOUT_HINTS,
                "optim": {"name": "adamw", "lr": 2e-4, "weight_decay": 1e-4},
                "batch": 256,
            },
            own={
                "temperature": Setting(0.005, 1e-6),
                "negatives": Setting(0.75, 0.0, 1.0),
                "retained": Setting(0.5, 0.0, 0.99),
                "grid": Setting(0, 0, 14),
                "legacy_segments": _DISABLED,
            },
            unused=("model.tau", *_OTHER_TERMS, *_LABEL_SETTINGS, *_TEACHER_SETTINGS),
            protocol="sacl",
            segments=True,
        ),
    }
)
"""Name -> localizer, the default first."""

_FEATURES = {"vision_trunk": "vgg19", "audio_trunk": "vggish", "dim": 512, "seconds": 10.0, "rate": 16_000}
_SMALL = {"loss": _WITHOUT_HINTS, "optim": {"lr": 1e-3}, "init": "random", "precision": "fp32"}
_MEDIA_SETTINGS = (
    *(f"model.{name}" for name in ("vision_trunk", "audio_trunk", "dim", "tau", "seconds", "rate", "frame")),
    *("augment.scale", "augment.flip", "freeze", "thaw", "precision", "workers", "compile", "weights_dir"),
)
"""Unused by methods that are trained on features in the store."""

EVENT_SPECS: Mapping[str, MethodSpec] = {
    "ave": MethodSpec(
        network="avloc.ave.networks.AVE",
        task="avloc.ave.training.EventTask",
        store=_TEN_SECONDS,
        settings={"model": {"method": "ave", **_FEATURES}, **_SMALL, "epochs": 300, "batch": 64},
        own={"classes": Setting(28, 1, 10_000), "dmrn": _DISABLED, "weak": _DISABLED, "cross_entropy": _DISABLED},
        unused=("loss.agreement", "loss.contrastive", *_MEDIA_SETTINGS, *_LABEL_SETTINGS, *_TEACHER_SETTINGS),
        protocol="",
        term="event",
    ),
    "ave-match": MethodSpec(
        network="avloc.ave.matching.AveMatch",
        task="avloc.ave.training.EventTask",
        store=_TEN_SECONDS,
        settings={"model": {"method": "ave-match", **_FEATURES}, **_SMALL, "epochs": 20, "batch": 8},
        own={"margin": Setting(2.0, 1e-6, 1e6)},
        unused=(*_OTHER_TERMS, *_MEDIA_SETTINGS, *_LABEL_SETTINGS, *_TEACHER_SETTINGS),
        protocol="",
    ),
}
"""Name -> method that predicts the event of each second (AVE)."""

SPECS: Mapping[str, MethodSpec] = types.MappingProxyType({**METHOD_SPECS, **EVENT_SPECS})
"""All methods."""


VIDEO_READERS: Mapping[str, str] = {
    "middle": "avloc.media.video_frames.read_moment",
    "first": "avloc.ave.video_seconds.read_first_seconds",
}
"""Seconds of a video that `prepare` stores -> dotted name of the function that reads them, with its frame."""

SECONDS_TEACHERS: Mapping[str, str] = {name: f"avloc.ave.teachers.{name}_teacher" for name in ("vgg19", "vggish")}
"""Name -> function of an `avloc.teachers.base.TeacherContext`: a teacher of features per second, or None for stores
that do not need one."""
