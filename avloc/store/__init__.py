"""Prepared data on disk: a store of clips, and teachers' hints beside it.

```
store/store.json            spec, kind, provenance, the ids a test set expects
store/shard-00000.h5 ...    clips
store/skipped.jsonl         every input that did not make it, with the reason
store/hints-panns/          stamp.json + shards keyed by clip id
```
"""

from avloc.store.clips import (
    FIRST,
    FLAGS,
    TRACK,
    WINDOW,
    Clip,
    Sample,
    Store,
    StoreHeader,
    StoreWriter,
    clip_digest,
)
from avloc.store.hints import Hints, HintStamp, HintWriter, hint_folder

__all__ = [
    "FIRST",
    "FLAGS",
    "TRACK",
    "WINDOW",
    "Clip",
    "HintStamp",
    "HintWriter",
    "Hints",
    "Sample",
    "Store",
    "StoreHeader",
    "StoreWriter",
    "clip_digest",
    "hint_folder",
]
