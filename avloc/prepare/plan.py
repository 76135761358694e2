"""Options of `prepare`, the header of the store to make, and compatibility with an existing store."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from avloc import __version__
from avloc.annotations.boxes import Annotations, published_boxes, read_annotations
from avloc.annotations.testsets import IdList, published_list, read_ids
from avloc.config import TRAIN_SHORTER_SIDE
from avloc.errors import Refused, UsageError, nearest
from avloc.option_rules import MODES
from avloc.registry import SPECS, VIDEO_READERS, StoreSpec
from avloc.sharding import UNSHARDED, JobShard
from avloc.store import TRACK, WINDOW_KEY, StoreHeader

_LEAST_SIDE = 32
_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)s?", re.ASCII)

_LISTS = ", "
_NO_LIST = "(no list)"
"""Entry for a run without `--ids` in the provenance of a store that several runs filled."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of `prepare`."""

    layout: str = "auto"
    """`auto`, the only kind of input (`videos`, `folders`: frame + sound, `hdf5`), or `ave` (`avloc.option_rules`)."""
    annotations: Path | None = None
    """Flickr-SoundNet XML folder, VGG-SS json, avloc's box format or a folder of masks."""
    ids: str = ""
    """File with ids, or name of a published list: use only these clips."""
    method: str = "avc"
    """Method whose audio length and sample rate the store gets."""
    rate: int = 0
    """Sample rate in Hz; 0 is the method's."""
    seconds: float = 0.0
    """Length of the audio; 0 is the method's."""
    side: int | None = None
    """Shorter side of the frames of a training store in pixels, never enlarged; 0 and None are 256."""
    frame: str = "middle"
    """Which frame of a video: `middle`, or a time as `5s` or `7.5`."""
    track: int | None = None
    """Audio track of a file, counted from 1; None is the main one."""
    window: str = "middle"
    """Which seconds of a video: `middle`, those around the frame, or another of `registry.VIDEO_READERS`."""
    kind: str = ""
    """`train` or `test`; '' is test with annotations or a test list, else train."""
    allow_test_overlap: bool = False
    """Keep test clips of VGG-SS and Flickr-SoundNet in a training store."""
    workers: int = 0
    """Processes; 0 is one per core. The store does not depend on it."""
    shard: JobShard = UNSHARDED
    """Only clips of this shard; other shards can run concurrently, into the same store."""
    dry_run: bool = False
    """Write nothing."""

    def __post_init__(self) -> None:
        _check_choice("--layout", self.layout, tuple(MODES["prepare"]["layout"]))
        _check_choice("--for", self.method, tuple(SPECS))
        _check_choice("--kind", self.kind, ("", *MODES["prepare"]["kind"]))
        _check_choice("window", self.window, tuple(VIDEO_READERS))
        if self.side and self.side < _LEAST_SIDE:
            raise UsageError(f"--side {self.side} is impossible; valid: 0 (256 pixels), or {_LEAST_SIDE} or more")
        if self.track is not None and self.track < 1:
            raise UsageError(f"--track {self.track} is not valid; tracks are counted from 1")
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers} is impossible; valid: 0 (one per core) or more")
        if self.frame != "middle" and not _SECONDS.fullmatch(self.frame):
            raise UsageError(f"--frame {self.frame} is impossible; valid: middle, or seconds as in 5s or 7.5")

    @property
    def spec(self) -> StoreSpec:
        """Spec of the store's clips, without the frame size."""
        spec = SPECS[self.method].store
        return replace(spec, rate=self.rate or spec.rate, seconds=self.seconds or spec.seconds)

    @property
    def at(self) -> float | None:
        """Time of the frame in seconds; None is the middle."""
        return None if self.frame == "middle" else float(self.frame.removesuffix("s"))


def _check_choice(flag: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        names = ", ".join(filter(None, valid))
        raise UsageError(f"{flag} {value} is unknown; valid: {names}", hint=nearest(value, valid))


@dataclass(frozen=True, kw_only=True)
class StorePlan:
    """Header of the store to make, with the id list and annotations that were read."""

    header: StoreHeader
    ids: IdList | None
    annotations: Annotations | None


def make_plan(options: PrepareOptions, named: IdList | None = None) -> StorePlan:
    """Read the id list (else `named`) and the annotations, and make the store's header.

    Raises:
        UsageError: one of them does not exist or cannot be read, or an option does not apply to this kind of store.
    """
    ids = read_ids(options.ids) if options.ids else named
    annotations = read_annotations(options.annotations) if options.annotations else None
    kind = options.kind or ("test" if annotations or (ids and ids.is_test) else "train")
    if annotations is None and ids is not None and kind == "test":
        # Clips of the silent pairs have no annotation, so VGG-SS has all annotations of `vggss_ext`.
        annotations = published_boxes() if set(ids.ids).issubset(published_list("vggss_ext")) else None
    if kind == "test" and (options.side is not None or options.allow_test_overlap):
        flag = "--side" if options.side is not None else "--allow-test-overlap"
        raise UsageError(f"{flag} applies to training stores only: test stores keep all clips and full pictures")
    expected = ids.ids if ids else annotations.ids if annotations else ()
    header = StoreHeader(
        spec=replace(options.spec, shorter_side=(options.side or TRAIN_SHORTER_SIDE) if kind == "train" else 0),
        kind=kind,
        box_rule=annotations.rule if annotations else "union",
        testset=ids.name if ids and kind == "test" else "",
        expected=expected if kind == "test" else (),
        provenance={
            "avloc": __version__,
            "method": options.method,
            "frame": "middle" if options.at is None else options.at,
            **({WINDOW_KEY: options.window} if options.window != "middle" else {}),
            **({TRACK: options.track} if options.track else {}),
            "annotations": _digest(annotations),
            "ids": (ids.name or Path(options.ids).name) if ids and options.ids else "",
            "allow_test_overlap": options.allow_test_overlap,
        },
    )
    return StorePlan(header=header, ids=ids, annotations=annotations)


def _digest(annotations: Annotations | None) -> str:
    """Hex SHA-256 of boxes, labels and masks, independent of the file format; '' for none."""
    if annotations is None:
        return ""
    digest = hashlib.sha256(annotations.rule.encode())
    for name, annotation in sorted({**annotations.by_id, **annotations.by_path}.items()):
        digest.update(f"\n{name}\t{annotation.label}\t".encode())
        digest.update(annotation.boxes.tobytes())
        digest.update(annotation.mask)
    return digest.hexdigest()


def merge_header(out: Path, header: StoreHeader, shard: JobShard) -> StoreHeader:
    """The header of an existing store in `out`, with this run added to its provenance; else `header`.

    If unsharded, a store without clips does not count; with shards it does, since another shard may be writing them.

    Raises:
        Refused: the existing store has other settings; names what differs.
    """
    if not (out / "store.json").is_file() or (shard.is_unsharded and not any(out.glob("shard-*.h5"))):
        return header
    existing = StoreHeader.read(out)
    old, new = _identity(existing), _identity(header)
    differing = [
        f"{name} ({_describe(old[name])} stored, {_describe(new[name])} requested)"
        for name in new
        if old[name] != new[name]
    ]
    if differing:
        reason = f"{out} holds a store with other settings: {', '.join(differing)}"
        raise Refused(reason, hint="Prepare into another folder with --out, or use the settings of the existing store.")
    return replace(existing, provenance=_merge_provenance(existing.provenance, header.provenance))


def _merge_provenance(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Provenance of a store filled by several runs: id lists are joined, and overlap stays allowed once it was."""
    lists = dict.fromkeys(name or _NO_LIST for name in (*str(old.get("ids", "")).split(_LISTS), new["ids"]))
    ids = _LISTS.join(lists) if len(lists) > 1 else new["ids"]
    allowed = bool(old.get("allow_test_overlap")) or new["allow_test_overlap"]
    return {**old, "ids": ids, "allow_test_overlap": allowed}


def _identity(header: StoreHeader) -> dict[str, Any]:
    """Settings that must be equal for all clips of a store."""
    return {
        **asdict(header.spec),
        "kind": header.kind,
        "box_rule": header.box_rule,
        "testset": header.testset,
        "expected ids": header.expected,
        "frame": header.provenance.get("frame"),
        "sound": header.provenance.get(WINDOW_KEY, "middle"),
        "sound track": header.provenance.get(TRACK, "main"),
        "annotations": header.provenance.get("annotations", ""),
    }


def _describe(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} ids"
    return (str(value)[:12] or "none") if isinstance(value, str) else str(value)
