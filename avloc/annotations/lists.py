"""The published lists shipped with the package, and lists of a person's own."""

from __future__ import annotations

import lzma
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath

from avloc.annotations.ids import canonical_id, media_id
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
"""`eval --testset` -> name of the list of every clip it needs."""

TEST_LISTS = frozenset(TESTSETS.values())
"""The published lists that are test sets."""

_SOUNDING: Mapping[str, str] = types.MappingProxyType({"flickr-ext": "flickr_250", "vggss-ext": "vggss_test"})
"""Extended test set -> list of its sounding clips; every clip of any other test set sounds."""

_EXTENDED: Mapping[str, str] = types.MappingProxyType(
    {"flickr_250": "flickr_test", "flickr_ext": "flickr_test", "vggss_ext": "vggss_test"}
)
"""List that is not shipped -> shipped list that it adds to: the clips of SLAVC's pairs come after those.

Flickr-SoundNet has 250 test clips (github.com/ardasnck/learning_to_localize_sound_source, `test_list.txt`); the list
that systems publish and score on lacks one of them, 3908875350. SLAVC's pairs show it.
"""

_ENDING = ".txt.xz"
_PAIRED = "_plus_silent"
_VGGSOUND_ROW = re.compile(r'\s*"?([\w-]{11})"?\s*,\s*"?(\d{1,6})(?:\.0*)?"?\s*,.+,\s*"?(?:train|test)"?\s*', re.ASCII)
"""YouTube's id, start in seconds, label (with commas, it is in quotes), split."""
_MEDIA_ENDINGS = (".mp4", ".mkv", ".webm", ".jpg", ".jpeg", ".png", ".wav", ".flac", ".mp3", ".ogg")


@dataclass(frozen=True)
class SilentPair:
    """A row of SLAVC's extended sets: a frame with a sound that does not belong to it, or that says nothing."""

    video: str
    """Id of the clip that is seen."""
    audio: str
    """Id of the clip that is heard."""
    label: str


@dataclass(frozen=True, kw_only=True)
class IdList:
    """The ids a person asked for with `--ids`."""

    ids: tuple[str, ...]
    """Canonical, in the order of the list, each once."""
    name: str
    """Name of the published list that these are, or ''."""
    is_test: bool
    """Whether every id is in `test_ids`."""


def shipped(name: str) -> bytes:
    """Decompressed contents of one file in `annotations/data`."""
    return lzma.decompress(files("avloc.annotations").joinpath("data", f"{name}.xz").read_bytes())


@cache
def list_names() -> tuple[str, ...]:
    """Names of the published id lists, sorted: those shipped, and those that add SLAVC's pairs to them."""
    names = (
        entry.name.removesuffix(_ENDING)
        for entry in files("avloc.annotations").joinpath("data").iterdir()
        if entry.name.endswith(_ENDING)
    )
    return tuple(sorted([*_EXTENDED, *(name for name in names if not name.endswith(_PAIRED))]))


def list_name(text: str) -> str:
    """The published list that `text` means: its name with `_` or `-`, or a test set as `eval --testset` calls it.

    One pair is told apart by the dash alone: `vggss_heard` is the training list, `vggss-heard` the test set.

    Raises:
        UsageError: there is none.
    """
    name = TESTSETS.get(text, text.replace("-", "_"))
    if name not in list_names():
        known = list_names()
        hint = nearest(text, (*known, *TESTSETS))
        raise UsageError(f"--ids {text}: neither a file nor a published list; valid: {', '.join(known)}", hint=hint)
    return name


@cache
def published_list(name: str) -> tuple[str, ...]:
    """Ids of a published list, canonical; test lists in their published order, training lists sorted.

    `vggss_ext` and `flickr_ext` name every clip that the extended test set needs: the sounding ones first, then those
    that only its silent pairs show or let hear, in the order of the pairs.

    Raises:
        UsageError: there is no list of this name.
    """
    name = list_name(name)
    base = _EXTENDED.get(name, name)
    ids = shipped(f"{base}.txt").decode().split()
    if base != name:
        ids += [clip_id for pair in _pairs(base) for clip_id in (pair.video, pair.audio)]
    return tuple(dict.fromkeys(ids))


def testset_list(testset: str) -> str:
    """Name of the list of every clip that a test set of `eval --testset` needs; '' where there is none."""
    return TESTSETS.get(testset, "")


def testset_ids(testset: str) -> tuple[str, ...]:
    """Canonical ids of the sounding clips of a test set as `eval --testset` names it; none where it is not a known one.

    The extended sets score the clips of `flickr-250` and `vggss`; their silent pairs come from `silent_pairs`.
    """
    name = _SOUNDING.get(testset) or testset_list(testset)
    return published_list(name) if name else ()


@cache
def silent_pairs(testset: str) -> tuple[SilentPair, ...]:
    """The pairs of `flickr-ext` or `vggss-ext` that must show nothing, in SLAVC's order.

    Raises:
        UsageError: that test set has no silent pairs.
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
    """The clips of `vggss-ext` that are in no other test list; they have no boxes. Those of Flickr all are in one."""
    return frozenset(published_list("vggss_ext")).difference(published_list("vggss_test"))


@cache
def test_ids() -> frozenset[str]:
    """Every clip of a known test set: VGG-SS, Flickr-SoundNet, and what only SLAVC's pairs use (`pair_only_ids`)."""
    return frozenset(clip_id for name in TEST_LISTS for clip_id in published_list(name))


def read_ids(text: str) -> IdList:
    """What `--ids` names: a file with one id a line (first column of a CSV, also xz-compressed), or a published list.

    The rows of VGGSound's own list (id, start, label, split), of every split, become ids as `ytid_ssssss`. A file that
    holds exactly the ids of a published list is that list.

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
        raise UsageError(f"--ids {path} is not a text file with one id a line: {error}") from None
    lines = [line for line in lines if line.split(",")[0].strip()]
    ids = _vggsound_ids(lines) or [_id_of(line.split(",")[0].strip()) for line in lines]
    if not ids:
        raise UsageError(f"--ids {path} holds no id")
    return tuple(dict.fromkeys(ids))


def _vggsound_ids(lines: Sequence[str]) -> list[str]:
    """The ids of VGGSound's own list, with or without a line of names before it; none if it is another list."""
    first = 0 if lines and re.search(r',\s*"?\d', lines[0]) else 1
    rows = [_VGGSOUND_ROW.fullmatch(line) for line in lines[first:]]
    return [f"{row[1]}_{int(row[2]):06d}" for row in rows if row] if all(rows) else []


def _id_of(field: str) -> str:
    path = PurePath(field)
    return media_id(path) if path.suffix.lower() in _MEDIA_ENDINGS else canonical_id(field)
