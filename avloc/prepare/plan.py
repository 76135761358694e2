"""What the store is to hold: options checked, lists and annotations read, and whether a store already there fits."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from avloc import __version__
from avloc.annotations import Annotations, IdList, published_boxes, published_list, read_annotations, read_ids
from avloc.config import TRAIN_SHORTER_SIDE
from avloc.errors import Refused, UsageError, nearest
from avloc.prepare.sources import LAYOUTS
from avloc.registry import MODES, SPECS, StoreSpec
from avloc.sharding import WHOLE, Part
from avloc.store import FIRST, TRACK, WINDOW, StoreHeader

_LEAST_SIDE = 32
_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)s?", re.ASCII)

_LISTS = ", "
_NO_LIST = "(no list)"
"""Stands in the provenance of a grown store for a run without `--ids`."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What to prepare, and for whom."""

    layout: str = "auto"
    """`auto`, or the only kind of input to take: `videos`, `folders` (frame + sound), `hdf5`; `ave` is AVE's folder."""
    annotations: Path | None = None
    """Flickr-SoundNet XML folder, VGG-SS json, boxes of one's own or a folder of masks; makes a test store
    unless `kind` says otherwise."""
    ids: str = ""
    """A file with ids, or the name of a published list: only these clips."""
    method: str = "avc"
    """Whose seconds and rate the store gets."""
    rate: int = 0
    """Sample rate in Hz; 0 is the method's."""
    seconds: float = 0.0
    """Length of the sound; 0 is the method's."""
    side: int = 0
    """Shorter side of the frames of a training store in pixels, never enlarged; 0 is 256."""
    frame: str = "middle"
    """Which frame of a video: `middle`, or a time as `5s` or `7.5`."""
    track: int | None = None
    """Which sound track of a file, counted from 1; None is the main one."""
    whole: bool = False
    """Take the first seconds of each video instead of those around its middle; for annotations by the second."""
    kind: str = ""
    """`train` or `test`; '' is test with annotations or a test list, else train."""
    allow_test_overlap: bool = False
    """Keep test clips of VGG-SS and Flickr-SoundNet in a training store."""
    workers: int = 0
    """Processes; 0 is one a core. The store does not depend on it."""
    part: Part = WHOLE
    """Only clips of this part; the other parts can be made at the same time, into the same store."""
    dry_run: bool = False
    """Only say what would be done."""

    def __post_init__(self) -> None:
        _one_of("--layout", self.layout, (*LAYOUTS, *MODES["prepare"]))
        _one_of("--for", self.method, tuple(SPECS))
        _one_of("--kind", self.kind, ("", "train", "test"))
        if self.side and self.side < _LEAST_SIDE:
            raise UsageError(f"--side {self.side} is impossible; valid: 0 (256 pixels), or {_LEAST_SIDE} or more")
        if self.track is not None and self.track < 1:
            raise UsageError(f"--track {self.track} is not valid; tracks are counted from 1")
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers} is impossible; valid: 0 (one a core) or more")
        if self.frame != "middle" and not _SECONDS.fullmatch(self.frame):
            raise UsageError(f"--frame {self.frame} is impossible; valid: middle, or seconds as in 5s or 7.5")

    @property
    def spec(self) -> StoreSpec:
        """What every clip of the store holds, but for the size of its frame."""
        spec = SPECS[self.method].store
        return replace(spec, rate=self.rate or spec.rate, seconds=self.seconds or spec.seconds)

    @property
    def at(self) -> float | None:
        """Time of the frame in seconds; None is the middle."""
        return None if self.frame == "middle" else float(self.frame.removesuffix("s"))


def _one_of(flag: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        names = ", ".join(filter(None, valid))
        raise UsageError(f"{flag} {value} is unknown; valid: {names}", hint=nearest(value, valid))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options turned into facts."""

    header: StoreHeader
    ids: IdList | None
    annotations: Annotations | None


def make_plan(options: PrepareOptions, named: IdList | None = None) -> Plan:
    """Read the list and the annotations, and draft the store's header.

    Raises:
        UsageError: one of them does not exist or cannot be read, or an option does not go with the kind of store.
    """
    ids = read_ids(options.ids) if options.ids else named
    annotations = read_annotations(options.annotations) if options.annotations else None
    is_test_list = ids is not None and (ids.is_test or bool(annotations))
    kind = options.kind or ("test" if annotations or is_test_list else "train")
    if annotations is None and ids is not None and kind == "test" and _within_vggss(ids):
        annotations = published_boxes()
    if options.side and kind == "test":
        raise UsageError("--side is for training stores: in a test store pictures stay as they are")
    header = StoreHeader(
        spec=replace(options.spec, shorter_side=(options.side or TRAIN_SHORTER_SIDE) if kind == "train" else 0),
        kind=kind,
        box_rule=annotations.rule if annotations else "union",
        testset=ids.name if ids and kind == "test" else "",
        expected=_expected(kind, ids, annotations),
        provenance={
            "avloc": __version__,
            "method": options.method,
            "frame": "middle" if options.at is None else options.at,
            **({WINDOW: FIRST} if options.whole else {}),
            **({TRACK: options.track} if options.track else {}),
            "annotations": _digest(annotations),
            "ids": (ids.name or Path(options.ids).name) if ids and options.ids else "",
            "allow_test_overlap": options.allow_test_overlap,
        },
    )
    return Plan(header=header, ids=ids, annotations=annotations)


def _within_vggss(ids: IdList) -> bool:
    """Whether the boxes of VGG-SS are all that is known of these clips; those of its silent pairs have none."""
    return frozenset(published_list("vggss_ext")).issuperset(ids.ids)


def _expected(kind: str, ids: IdList | None, annotations: Annotations | None) -> tuple[str, ...]:
    if kind == "train":
        return ()
    if ids is not None:
        return ids.ids
    return annotations.ids if annotations else ()


def _digest(annotations: Annotations | None) -> str:
    """Hex SHA-256 of boxes, labels and masks, whatever file they came from; '' for none."""
    if annotations is None:
        return ""
    digest = hashlib.sha256(annotations.rule.encode())
    for name, annotation in sorted({**annotations.by_id, **annotations.by_path}.items()):
        digest.update(f"\n{name}\t{annotation.label}\t".encode())
        digest.update(annotation.boxes.tobytes())
        digest.update(annotation.mask)
    return digest.hexdigest()


def fitting_header(out: Path, header: StoreHeader, part: Part) -> StoreHeader:
    """The header of the store in `out` if it has clips, with what this run adds to its provenance; else `header`.

    A part also keeps to a store without clips: another part may be about to write them.

    Raises:
        Refused: the store there was made otherwise; names what differs.
    """
    if not (out / "store.json").is_file() or (part.is_whole and not any(out.glob("shard-*.h5"))):
        return header
    there = StoreHeader.read(out)
    old, new = _identity(there), _identity(header)
    differing = [
        f"{name} ({_shown(old[name])} there, {_shown(new[name])} asked)" for name in new if old[name] != new[name]
    ]
    if differing:
        reason = f"{out} holds a store made otherwise: {', '.join(differing)}"
        raise Refused(reason, hint="Prepare into another folder with --out, or use the settings of the store there.")
    return replace(there, provenance=_grown(there.provenance, header.provenance))


def _grown(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Provenance of a store that several runs filled: overlap once allowed stays so, lists are joined."""
    lists = dict.fromkeys(name or _NO_LIST for name in (*str(old.get("ids", "")).split(_LISTS), new["ids"]))
    ids = _LISTS.join(lists) if len(lists) > 1 else new["ids"]
    allowed = bool(old.get("allow_test_overlap")) or new["allow_test_overlap"]
    return {**old, "ids": ids, "allow_test_overlap": allowed}


def _identity(header: StoreHeader) -> dict[str, Any]:
    """What must be the same for clips to lie in one store."""
    return {
        **asdict(header.spec),
        "kind": header.kind,
        "box_rule": header.box_rule,
        "testset": header.testset,
        "expected ids": header.expected,
        "frame": header.provenance.get("frame"),
        "sound": header.provenance.get(WINDOW, "middle"),
        "sound track": header.provenance.get(TRACK, "main"),
        "annotations": header.provenance.get("annotations", ""),
    }


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} ids"
    return (str(value)[:12] or "none") if isinstance(value, str) else str(value)
