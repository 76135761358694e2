"""The test set of an evaluation: its store, the clips that each protocol scores, and their annotations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from avloc.annotations.boxes import published_boxes
from avloc.annotations.lists import TESTSETS
from avloc.errors import Refused, StoreNotFound
from avloc.evaluate.plan import EvalOptions, expected_ids, find_store
from avloc.progress import Listener, Notice, silent
from avloc.protocols import Protocol
from avloc.store import FLAGS, Store

_RULES = {"flickr": "consensus", "vggss": "union"}
"""Beginning of a test list's name -> the rule of its boxes."""
_RULES_IN_WORDS = {"consensus": "two annotators must agree for a full 1", "union": "1 inside any box"}


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A test set before any model is run."""

    name: str
    """Name in reports."""
    known: str
    """As `--testset` names it, or as the store says; '' for a set of one's own."""
    protocols: list[Protocol]
    """With what differs on this set (`Protocol.on`)."""
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
        """Clips that some protocol scores and that have a truth, sorted."""
        every = {clip_id for ids in self.expected.values() for clip_id in ids}
        return sorted(every.intersection(self.boxed))


def open_testset(options: EvalOptions, listener: Listener = silent) -> TestSet:
    """Find the store of a test set and the clips that each protocol scores.

    Raises:
        UsageError: neither a test set nor a store was named.
        StoreNotFound: it was not prepared, and more than VGG-SS's boxes is needed.
        Refused: the rule of its boxes is not that of the test set.
    """
    try:
        store = Store(find_store(options.testset, options.store))
    except StoreNotFound:
        known = TESTSETS.get(options.testset, "")
        if not (options.baselines_only and known.startswith("vggss") and options.store is None):
            raise
        return _from_package(options)
    options = replace(options, testset=options.testset or _prepared_for(store))
    _check_rule(options.testset, store)
    if store.header.kind == "train":
        listener(Notice(f"{store.folder} is a training store: its frames are shrunk, and test clips were left out"))
    boxed = store.annotated()
    return TestSet(
        name=options.testset or _own_name(store),
        known=options.testset,
        protocols=options.records(),
        store=store,
        boxed=boxed,
        expected={p.name: expected_ids(p, options.testset, store, boxed) for p in options.records()},
        labels=dict(zip(store.ids, store.column("label"), strict=True)),
        flags=_flags_of(store),
        box_rule=store.header.box_rule,
        data_hash=store.data_hash(),
        pictures=store.picture_groups(),
    )


def _flags_of(store: Store) -> dict[str, tuple[str, ...]]:
    rows = store.column("flags")
    return {
        clip_id: tuple(name for name, on in zip(FLAGS, row, strict=True) if on)
        for clip_id, row in zip(store.ids, rows, strict=True)
    }


def _prepared_for(store: Store) -> str:
    """The published test set in a store's header; '' for any other."""
    name = next((name for name, listed in TESTSETS.items() if listed == store.header.testset), "")
    return name if _rule_of(name) in ("", store.header.box_rule) else ""


def _own_name(store: Store) -> str:
    """The folder's name, or its path if the name is that of a published set, whose clips these are not."""
    name = store.folder.resolve().name
    return str(store.folder) if name in TESTSETS else name


def _rule_of(testset: str) -> str:
    """The rule of a published set's boxes; '' for any other."""
    return next((rule for name, rule in _RULES.items() if TESTSETS.get(testset, "").startswith(name)), "")


def _check_rule(testset: str, store: Store) -> None:
    rule = _rule_of(testset)
    if rule and store.header.box_rule != rule:
        has, needs = store.header.box_rule, rule
        hint = "Prepare it with the annotations of the test set: Flickr-SoundNet's are a folder of XML files."
        reason = f"{store.folder} holds boxes of the rule {has!r}; {testset} is scored by {needs!r}"
        raise Refused(f"{reason} ({_RULES_IN_WORDS[needs]})", hint=hint)


def _from_package(options: EvalOptions) -> TestSet:
    """VGG-SS's boxes are in the package: its baselines need no store."""
    known = published_boxes()
    boxed = sorted(known.by_id)
    return TestSet(
        name=options.testset,
        known=options.testset,
        protocols=options.records(),
        store=None,
        boxed=boxed,
        expected={p.name: expected_ids(p, options.testset, None, boxed) for p in options.records()},
        labels={clip_id: annotation.label for clip_id, annotation in known.by_id.items()},
        flags={},
        box_rule=known.rule,
    )
