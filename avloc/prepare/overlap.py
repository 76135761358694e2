"""Test clips among the inputs of a training store: noticed, counted and named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from avloc.annotations import pair_only_ids, test_ids
from avloc.prepare.sources import Skip, Source

_LISTED = "VGG-SS or Flickr-SoundNet"
_PAIRED = "SLAVC's extended VGG-SS"


@dataclass(kw_only=True)
class Overlap:
    """The test clips, apart by where they are test material: published counts are of the listed ones alone."""

    listed: list[Source] = field(default_factory=list)
    """Test clips of VGG-SS or Flickr-SoundNet."""
    paired: list[Source] = field(default_factory=list)
    """Clips that only the silent pairs of `vggss-ext` use."""

    def __len__(self) -> int:
        return len(self.listed) + len(self.paired)

    def notes(self, source: Source) -> bool:
        """Whether `source` is a test clip, or shows the picture of one; takes it in if so."""
        ids = {source.id, source.frame_id} & test_ids()
        if ids:
            (self.paired if ids <= pair_only_ids() else self.listed).append(source)
        return bool(ids)

    @property
    def ids(self) -> frozenset[str]:
        """All of them."""
        return frozenset(source.id for source in (*self.listed, *self.paired))

    def notices(self, *, kept: bool) -> Iterator[str]:
        """What a person should know of them, a line for each part that is not empty."""
        verdict = "kept, as asked" if kept else "left out; --allow-test-overlap keeps them"
        for sources, name in self._parts():
            if sources:
                yield f"test clips of {name} among the inputs: {len(sources)}, {verdict}"

    def left_out(self) -> str:
        """All of them in one phrase."""
        return ", ".join(f"{len(sources)} test clips of {name} left out" for sources, name in self._parts() if sources)

    def skips(self) -> list[Skip]:
        """An entry of `skipped.jsonl` for each."""
        return [
            Skip(id=source.id, input=source.input, reason=f"is a test clip of {name}; --allow-test-overlap keeps it")
            for sources, name in self._parts()
            for source in sources
        ]

    def _parts(self) -> tuple[tuple[list[Source], str], ...]:
        return (self.listed, _LISTED), (self.paired, _PAIRED)
