"""Stores of prepared clips on disk, and the hints of teachers.

```
store/store.json            spec, kind, provenance, expected ids of a test set
store/shard-00000.h5 ...    clips
store/skipped.jsonl         every skipped input, with the reason
store/hints-panns/          stamp.json + shards keyed by clip id
```
"""

from avloc.store.clips import FLAGS, TRACK, WINDOW_KEY, Clip, Sample, Store, StoreHeader, StoreWriter
from avloc.store.hints import Hints, HintStamp, HintWriter, hint_folder

__all__ = [
    "FLAGS",
    "TRACK",
    "WINDOW_KEY",
    "Clip",
    "HintStamp",
    "HintWriter",
    "Hints",
    "Sample",
    "Store",
    "StoreHeader",
    "StoreWriter",
    "hint_folder",
]
