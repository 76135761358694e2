"""Which options of a command apply to each other, and the one check that refuses the rest. Everything is data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from avloc.errors import UsageError


def check_applies(given: Mapping[str, str], unused: Collection[str], reason: str) -> None:
    """Raise a UsageError for an option or setting that was given but has no effect, whatever its value.

    `given` maps names to their spelling in the error; `reason` follows it, as in "does not apply to --events".
    """
    for name, spelling in given.items():
        if name in unused:
            raise UsageError(f"{spelling} {reason}")


@dataclass(frozen=True, kw_only=True)
class Mode:
    """The options of a command that apply to one value of one of its options."""

    takes: tuple[str, ...] = ()
    """Parameters that apply; empty: all but those that other modes own."""
    own: tuple[str, ...] = ()
    """Parameters that apply only to modes that list them."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Other parameter -> the only value that applies."""
    run: str = ""
    """Dotted name of the function that runs it, with `takes` as arguments; '' for the command's own code."""
    default: bool = False
    """Whether it is selected if the option is not given."""

    def unused(self, values: Mapping[str, Any]) -> list[str]:
        """The parameters that do not apply; `values` has all of them."""
        takes, fixed = self.takes or values, self.fixed.items()
        return [key for key, value in values.items() if key not in takes and (key, value) not in fixed]


_PREPARE = ("sources", "out", "workers", "shard", "dry_run", "as_json")
_PREPARE_CLIPS = (*_PREPARE, "layout", "annotations", "ids", "method", "rate", "kind")
_EVENT_INPUTS = ("inputs", "out", "model", "weights_dir", "device", "as_json")
_EVAL = ("testset", "store", "run", "model", "max_missing", "device", "as_json")
_EVENT_TESTSET = Mode(run="avloc.ave.commands.evaluate", takes=(*_EVAL, "clean_split"), own=("clean_split",))
_MAPS = ("maps", "protocol", "object_prior", "prior", "negatives", "batch", "weights_dir", "precision")
_WITHOUT_MODEL = Mode(takes=("testset", "store", "protocol", "report", "max_missing", "as_json"))
_OBJECT_MAP = Mode(own=("object_prior", "prior"), default=True)
COMMA_SEPARATED = ("maps",)
"""Parameters with several values in one text, with commas."""
MODES: Mapping[str, Mapping[str, Mapping[str, Mode]]] = {
    "prepare": {
        "layout": {
            **dict.fromkeys(("auto", "videos"), Mode()),
            "folders": Mode(takes=(*_PREPARE_CLIPS, "side", "allow_test_overlap", "track")),
            "hdf5": Mode(takes=(*_PREPARE_CLIPS, "side", "allow_test_overlap")),
            "ave": Mode(run="avloc.ave.prepare.prepare_events", takes=_PREPARE, fixed={"method": "ave"}),
        },
        "kind": {"train": Mode(), "test": Mode(takes=(*_PREPARE_CLIPS, "frame", "track"))},
    },
    "distill-cache": {
        "import_npy": {"": Mode(takes=("store", "teacher", "shard", "as_json"))},
        "teacher": {
            "panns": Mode(own=("sound", "raw_embedding"), default=True),
            "detr": Mode(own=("confidence",), default=True),
            **dict.fromkeys(("yamnet", "vggish", "lite0", "vgg19"), Mode()),
        },
    },
    "eval": {
        "testset": {"": Mode(), **dict.fromkeys(("ave", "ave-weak", "ave-match"), _EVENT_TESTSET)},
        "maps_dir": {"": _WITHOUT_MODEL},
        "paper_table": {"": Mode(takes=(*_EVAL, *_MAPS))},
        "maps": {
            **dict.fromkeys(("shipped", "av"), Mode()),
            **dict.fromkeys(("object", "fused", "detr"), _OBJECT_MAP),
            "baselines": _WITHOUT_MODEL,
            "sweep": _OBJECT_MAP,
        },
    },
    "localize": {"events": {"": Mode(run="avloc.ave.commands.localize", takes=_EVENT_INPUTS)}},
}
"""Command -> parameter -> its valid values, with '' for any other -> mode."""
