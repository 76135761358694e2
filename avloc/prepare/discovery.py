"""Find all inputs of a run in the given files and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avloc.errors import UsageError
from avloc.files import real_path
from avloc.prepare import packed
from avloc.prepare.sources import FoundInputs, classify, files_in
from avloc.progress import Listener, Notice


def find_inputs(sources: Sequence[str], out: Path, layout: str, masks: Path | None, listener: Listener) -> FoundInputs:
    """Find the inputs.

    Args:
        sources: files, folders and globs.
        out: the store, which is excluded.
        layout: one of `avloc.prepare.sources.LAYOUTS`.
        masks: folder of masks, whose PNG files are no frames.
        listener: receives notices about the inputs.

    Raises:
        UsageError: a source does not exist, or there are no inputs.
    """
    paths = files_in(sources, out)
    if masks is not None:
        folder = real_path(masks)
        paths = [path for path in paths if path.suffix.lower() != ".png" or folder not in real_path(path).parents]
    found = classify(paths, layout, named=frozenset(Path(text) for text in sources))
    found.sources += packed.packed_sources(found.packed, found.skips)
    if not found.sources and not found.skips:
        raise UsageError(f"nothing to prepare in {', '.join(sources)} (--layout {layout}, {len(paths)} files)")
    if found.ignored:
        listener(Notice(f"{found.ignored} pictures and sounds are not part of a pair and are ignored"))
    if sharing := [source for source in found.sources if source.frame_id != source.id]:
        frames = len({source.path for source in sharing})
        example = f"{sharing[0].sound} goes with {sharing[0].path}"
        listener(Notice(f"{len(sharing)} sounds share {frames} pictures, by their names less the last part: {example}"))
    return found
