"""The known test sets, the published lists of clip ids shipped with the package, and the user's own lists."""

from __future__ import annotations

import lzma
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath

from avloc.errors import UsageError, nearest

TESTSETS: Mapping[str, str] = types.MappingProxyType(
    {
        "flickr": "flickr_test",
        "flickr-250": "flickr_250",
        "flickr-ext": "flickr_ext",
        "vggss": "vggss_test",
        "vggss-4692": "vggss_test_4692",
        "vggss-ext": "vggss_ext",
        "vggss-heard": "vggss_heard_test",
        "vggss-unheard": "vggss_unheard_test",
    }
)
"""`eval --testset` -> name of the list of all clips it needs."""

TRUTH_RULES = {"flickr": "consensus", "vggss": "union"}
"""Beginning of a test list's name -> rule that makes one truth of a clip's boxes (`avloc.metrics.ground_truth`)."""

EXTENDED = ("flickr-ext", "vggss-ext")
"""Test sets with silent pairs."""

SHARED_STORES = {
    "flickr-250": "flickr",
    "flickr-ext": "flickr",
    "vggss-4692": "vggss",
    "vggss-ext": "vggss",
    "vggss-heard": "vggss",
    "vggss-unheard": "vggss",
}
"""Test set -> test set whose store may hold its clips too."""

TEST_LISTS = frozenset(TESTSETS.values())
"""The published lists that are test sets."""

_SOUNDING: Mapping[str, str] = types.MappingProxyType({"flickr-ext": "flickr_250", "vggss-ext": "vggss_test"})
"""Extended test set -> list of its sounding clips; in other test sets all clips are sounding."""

_EXTENDED: Mapping[str, str] = types.MappingProxyType(
    {"flickr_250": "flickr_test", "flickr_ext": "flickr_test", "vggss_ext": "vggss_test"}
)
"""Derived list -> shipped list to which the clips of SLAVC's pairs are appended.

Flickr-SoundNet has 250 test clips (github.com/ardasnck/learning_to_localize_sound_source, `test_list.txt`); the list
used in publications lacks one of them, 3908875350, which is in SLAVC's pairs.
"""

_SPAN = re.compile(r"([\w-]{11})_(\d+)_(\d+)", re.ASCII)
_SPAN_MS = 10_000
_VGGSOUND_ID = re.compile(r"[\w-]{11}_\d{6}", re.ASCII)
_ENDING = ".txt.xz"
_PAIRED = "_plus_silent"
_VGGSOUND_ROW = re.compile(r'\s*"?([\w-]{11})"?\s*,\s*"?(\d{1,6})(?:\.0*)?"?\s*,.+,\s*"?(?:train|test)"?\s*', re.ASCII)
"""YouTube id, start in seconds, label (quoted if it has commas), split."""
_MEDIA_ENDINGS = (".mp4", ".mkv", ".webm", ".jpg", ".jpeg", ".png", ".wav", ".flac", ".mp3", ".ogg")


@dataclass(frozen=True)
class SilentPair:
    """A row of SLAVC's extended sets: a frame with silence or with the sound of another clip."""

    video: str
    """Clip of the frame."""
    audio: str
    """Clip of the sound."""
    label: str


@dataclass(frozen=True, kw_only=True)
class IdList:
    """Clips selected by `--ids`."""

    ids: tuple[str, ...]
    """Canonical ids in the order of the list, each once."""
    name: str
    """Name of the published list with these ids, or ''."""
    is_test: bool
    """Whether every id is in `test_ids`."""


def canonical_id(clip_id: str) -> str:
    """Normalize a clip id.

    VGGSound clips are `ytid_ssssss` (start in seconds) in most lists and `ytid_startms_endms` (always ten seconds) in
    others; the former is canonical. Other ids are unchanged.
    """
    match = _SPAN.fullmatch(clip_id)
    if match and int(match[3]) - int(match[2]) == _SPAN_MS:
        return f"{match[1]}_{int(match[2]) // 1000:06d}"
    return clip_id


def is_vggsound_id(clip_id: str) -> bool:
    """Whether a canonical id has VGGSound's form, with a start time after the last `_`."""
    return _VGGSOUND_ID.fullmatch(clip_id) is not None


def media_id(path: PurePath, *, to_first_dot: bool = False) -> str:
    """Canonical id of a file: its stem, or its name up to the first dot, as in frame + sound folders."""
    return canonical_id(path.name.split(".", maxsplit=1)[0] if to_first_dot else path.stem)


def shipped(name: str) -> bytes:
    """Decompressed contents of a file in `annotations/data`."""
    return lzma.decompress(files("avloc.annotations").joinpath("data", f"{name}.xz").read_bytes())


@cache
def list_names() -> tuple[str, ...]:
    """Names of the published id lists, shipped and derived, sorted."""
    entries = [entry.name for entry in files("avloc.annotations").joinpath("data").iterdir()]
    names = [name.removesuffix(_ENDING) for name in entries if name.endswith(_ENDING)]
    return tuple(sorted([*_EXTENDED, *(name for name in names if not name.endswith(_PAIRED))]))


def list_name(text: str) -> str:
    """Resolve the name of a published list, with `_` or `-`, or of a test set of `eval --testset`.

    Test sets take precedence: `vggss_heard` is the training list, `vggss-heard` the test set.

    Raises:
        UsageError: unknown name.
    """
    name = TESTSETS.get(text, text.replace("-", "_"))
    known = list_names()
    if name not in known:
        hint = nearest(text, (*known, *TESTSETS))
        raise UsageError(f"--ids {text}: neither a file nor a published list; valid: {', '.join(known)}", hint=hint)
    return name


@cache
def published_list(name: str) -> tuple[str, ...]:
    """Canonical ids of a published list; test lists in their published order, training lists sorted.

    `vggss_ext` and `flickr_ext` have all clips of the extended test sets: first the sounding clips, then those used
    only by the silent pairs, in their order.

    Raises:
        UsageError: unknown name.
    """
    name = list_name(name)
    base = _EXTENDED.get(name, name)
    ids = shipped(f"{base}.txt").decode().split()
    if base != name:
        ids += [clip_id for pair in _pairs(base) for clip_id in (pair.video, pair.audio)]
    return tuple(dict.fromkeys(ids))


def testset_ids(testset: str) -> tuple[str, ...]:
    """Canonical ids of the sounding clips of a test set of `eval --testset`; empty if unknown.

    For the extended sets these are the clips of `flickr-250` and `vggss`; see `silent_pairs` for the others.
    """
    name = _SOUNDING.get(testset) or TESTSETS.get(testset)
    return published_list(name) if name else ()


def silent_pairs(testset: str) -> tuple[SilentPair, ...]:
    """The pairs of `flickr-ext` or `vggss-ext` without a sounding object, in SLAVC's order.

    Raises:
        UsageError: the test set has no silent pairs.
    """
    if testset not in _SOUNDING:
        raise UsageError(f"{testset} has no silent pairs; valid: {', '.join(_SOUNDING)}")
    return _pairs(_EXTENDED[TESTSETS[testset]])


@cache
def _pairs(base: str) -> tuple[SilentPair, ...]:
    lines = shipped(f"{base}{_PAIRED}.txt").decode().splitlines()[1:]
    return tuple(SilentPair(*line.split(",")) for line in lines)


@cache
def pair_only_ids() -> frozenset[str]:
    """Clips of `vggss-ext` that are in no other test list and have no boxes; `flickr-ext` has none."""
    return frozenset(published_list("vggss_ext")).difference(published_list("vggss_test"))


@cache
def test_ids() -> frozenset[str]:
    """All clips of the known test sets, including those that only SLAVC's pairs use."""
    return frozenset(clip_id for name in TEST_LISTS for clip_id in published_list(name))


def read_ids(text: str) -> IdList:
    """Read `--ids`: a file with one id per line (first column of a CSV, also xz-compressed), or a published list.

    Rows of VGGSound's own CSV (id, start, label, split) become `ytid_ssssss`, of all splits. A file with exactly the
    ids of a published test list gets its name.

    Raises:
        UsageError: neither a file nor a list, or a file without ids.
    """
    path = Path(text)
    if not path.is_file():
        name = list_name(text)
        ids = published_list(name)
    else:
        ids = _ids_in(path)
        name = next((n for n in sorted(TEST_LISTS) if frozenset(published_list(n)) == frozenset(ids)), "")
    return IdList(ids=ids, name=name, is_test=test_ids().issuperset(ids))


def _ids_in(path: Path) -> tuple[str, ...]:
    try:
        data = path.read_bytes()
        lines = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8-sig").splitlines()
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise UsageError(f"--ids {path} is not a text file with one id per line: {error}") from None
    lines = [line for line in lines if line.split(",")[0].strip()]
    ids = _vggsound_ids(lines) or [_id_of(line.split(",")[0].strip()) for line in lines]
    if not ids:
        raise UsageError(f"--ids {path} holds no id")
    return tuple(dict.fromkeys(ids))


def _vggsound_ids(lines: Sequence[str]) -> list[str]:
    """Ids of VGGSound's own CSV, with or without header; empty for other files."""
    first = 0 if lines and re.search(r',\s*"?\d', lines[0]) else 1
    rows = [_VGGSOUND_ROW.fullmatch(line) for line in lines[first:]]
    return [f"{row[1]}_{int(row[2]):06d}" for row in rows if row] if all(rows) else []


def _id_of(field: str) -> str:
    path = PurePath(field)
    return media_id(path) if path.suffix.lower() in _MEDIA_ENDINGS else canonical_id(field)
