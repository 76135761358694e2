"""The test set of an evaluation: its store, the clips that each protocol scores, and their annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from avloc.annotations.boxes import published_boxes
from avloc.annotations.testsets import (
    EXTENDED,
    SHARED_STORES,
    TESTSETS,
    TRUTH_RULES,
    SilentPair,
    silent_pairs,
    testset_ids,
)
from avloc.errors import Refused, StoreNotFound, UsageError, nearest, normal_form
from avloc.evaluate.options import EvalOptions
from avloc.option_rules import MODES
from avloc.progress import Listener, Notice, silent
from avloc.protocols import Protocol
from avloc.store import FLAGS, Store

_RULES_IN_WORDS = {"consensus": "two annotators must agree for a full 1", "union": "1 inside any box"}


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A test set before any model is run."""

    name: str
    """Name in reports."""
    known: str
    """The value of `--testset`, or the test set in the store's header; '' for a user-made set."""
    protocols: list[Protocol]
    """As they apply to this set (`Protocol.on`)."""
    store: Store | None
    boxed: list[str]
    """Clips with a truth, sorted."""
    expected: dict[str, list[str]]
    """Protocol -> the clips that it scores."""
    labels: dict[str, str]
    flags: dict[str, tuple[str, ...]]
    box_rule: str
    data_hash: str = ""
    """Of all clips of the store."""
    pictures: dict[str, str] = field(default_factory=dict)
    """Clip -> name of its picture; clips that share one have several sources."""

    @property
    def wanted(self) -> list[str]:
        """Clips with a truth that some protocol scores, sorted."""
        every = {clip_id for ids in self.expected.values() for clip_id in ids}
        return sorted(every.intersection(self.boxed))


def open_testset(options: EvalOptions, listener: Listener = silent) -> TestSet:
    """Find the store of a test set and the clips that each protocol scores.

    Raises:
        UsageError: see `find_store`.
        StoreNotFound: it is not prepared, and the evaluation needs more than the boxes of VGG-SS.
        Refused: the store's box rule is not that of the test set.
    """
    try:
        store = Store(find_store(options.testset, options.store))
    except StoreNotFound:
        known = TESTSETS.get(options.testset, "")
        if not (options.without_model and known.startswith("vggss") and options.store is None):
            raise
        return _from_package(options)
    options = replace(options, testset=options.testset or _prepared_for(store))
    _check_rule(options.testset, store)
    if store.header.kind == "train":
        listener(Notice(f"{store.folder} is a training store: its frames are shrunk, and test clips were left out"))
    boxed = store.annotated()
    return TestSet(
        name=options.testset or _name_of(store),
        known=options.testset,
        protocols=options.protocol_records(),
        store=store,
        boxed=boxed,
        expected={p.name: expected_ids(p, options.testset, store, boxed) for p in options.protocol_records()},
        labels=dict(zip(store.ids, store.column("label"), strict=True)),
        flags={
            clip_id: tuple(name for name, on in zip(FLAGS, row, strict=True) if on)
            for clip_id, row in zip(store.ids, store.column("flags"), strict=True)
        },
        box_rule=store.header.box_rule,
        data_hash=store.data_hash(),
        pictures=store.picture_groups(),
    )


def _prepared_for(store: Store) -> str:
    """The published test set in a store's header; '' for any other."""
    name = next((name for name, listed in TESTSETS.items() if listed == store.header.testset), "")
    return name if _rule_of(name) in ("", store.header.box_rule) else ""


def _name_of(store: Store) -> str:
    """The folder's name, or its path if the name is that of a published set."""
    name = store.folder.resolve().name
    return str(store.folder) if name in TESTSETS else name


def _rule_of(testset: str) -> str:
    """The rule of a published set's boxes; '' for any other."""
    return next((rule for name, rule in TRUTH_RULES.items() if TESTSETS.get(testset, "").startswith(name)), "")


def _check_rule(testset: str, store: Store) -> None:
    rule = _rule_of(testset)
    if rule and store.header.box_rule != rule:
        has, needs = store.header.box_rule, rule
        hint = "Prepare it with the annotations of the test set: Flickr-SoundNet's are a folder of XML files."
        reason = f"{store.folder} holds boxes of the rule {has!r}; {testset} is scored by {needs!r}"
        raise Refused(f"{reason} ({_RULES_IN_WORDS[needs]})", hint=hint)


def _from_package(options: EvalOptions) -> TestSet:
    """VGG-SS without a store, if no model is run: its boxes are in the package."""
    known = published_boxes()
    boxed = sorted(known.by_id)
    return TestSet(
        name=options.testset,
        known=options.testset,
        protocols=options.protocol_records(),
        store=None,
        boxed=boxed,
        expected={p.name: expected_ids(p, options.testset, None, boxed) for p in options.protocol_records()},
        labels={clip_id: annotation.label for clip_id, annotation in known.by_id.items()},
        flags={},
        box_rule=known.rule,
    )


def find_store(testset: str, store: Path | None) -> Path:
    """`--store`, else `$AVLOC_DATA/<testset>`, else `./data/<testset>`.

    The clips of a subset or extension of a test set may also be in the store of that set.

    Raises:
        UsageError: neither a test set nor a store was named, or a published set is misspelled.
        StoreNotFound: no store was found; the hint has the `prepare` command.
    """
    known = (*TESTSETS, *filter(None, MODES["eval"]["testset"]))
    similar = nearest(testset, known)
    if testset not in known and normal_form(testset) in map(normal_form, known):
        raise UsageError(f"--testset {testset} is unknown; valid: {', '.join(known)}, or another name", hint=similar)
    if store is not None:
        return store
    if not testset:
        raise UsageError("name what to score: --testset vggss, or --store DIR")
    roots = [Path(os.environ["AVLOC_DATA"])] if os.environ.get("AVLOC_DATA") else []
    names = [testset, *([SHARED_STORES[testset]] if testset in SHARED_STORES else [])]
    places = [root / name for name in names for root in [*roots, Path("data")]]
    for place in places:
        if (place / "store.json").is_file():
            return place
    hint = _how_to_prepare(testset, places[0])
    if testset not in known and similar:
        hint = f"{similar} {hint}"
    raise StoreNotFound(f"no prepared test set {testset!r} in {' or '.join(map(str, places))}", hint=hint)


def _how_to_prepare(testset: str, place: Path) -> str:
    known = TESTSETS.get(testset, "")
    if not known:
        return f"Prepare it from the material you have: avloc prepare MEDIA --annotations BOXES.json --out {place}"
    if testset.startswith("flickr"):
        source = "Clips and XML annotations: https://github.com/ardasnck/learning_to_localize_sound_source"
        return f"{source}: avloc prepare Data --ids {known} --annotations Annotations --out {place}"
    source = "The clips are VGGSound's (https://www.robots.ox.ac.uk/~vgg/data/vggsound/); their boxes come with avloc"
    return f"{source}: avloc prepare VIDEOS --ids {known} --out {place}"


def expected_ids(protocol: Protocol, testset: str, store: Store | None, boxed: Sequence[str]) -> list[str]:
    """Canonical ids of the clips that a protocol scores.

    Args:
        protocol: may replace the test set's list by another, or by all clips of the store.
        testset: '' for a user-made store.
        store: None if only baselines are scored.
        boxed: clips with a truth.
    """
    if protocol.clips == "store" and store is not None and testset in ("", "vggss"):
        return list(boxed)
    name = protocol.lists.get(testset, testset)
    if TESTSETS.get(name, ""):
        return list(testset_ids(name))
    return list(boxed) if store is None else list(store.header.expected) or store.ids


def pairs_of(testset: str) -> tuple[SilentPair, ...]:
    """Silent pairs of a test set; none unless it is extended."""
    return silent_pairs(testset) if testset in EXTENDED else ()
