"""Which clips a set consists of, and where the sounding object is in each: published lists, ids and boxes."""

from avloc.annotations.boxes import Annotation, Annotations, published_boxes, read_annotations
from avloc.annotations.ids import canonical_id, is_vggsound_id, media_id
from avloc.annotations.labels import OPEN, RIGHT, WRONG, Label, parse_label, relations
from avloc.annotations.lists import (
    TEST_LISTS,
    TESTSETS,
    IdList,
    SilentPair,
    list_name,
    list_names,
    pair_only_ids,
    published_list,
    read_ids,
    silent_pairs,
    test_ids,
    testset_ids,
    testset_list,
)

__all__ = [
    "OPEN",
    "RIGHT",
    "TESTSETS",
    "TEST_LISTS",
    "WRONG",
    "Annotation",
    "Annotations",
    "IdList",
    "Label",
    "SilentPair",
    "canonical_id",
    "is_vggsound_id",
    "list_name",
    "list_names",
    "media_id",
    "pair_only_ids",
    "parse_label",
    "published_boxes",
    "published_list",
    "read_annotations",
    "read_ids",
    "relations",
    "silent_pairs",
    "test_ids",
    "testset_ids",
    "testset_list",
]
