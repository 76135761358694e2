"""Clip ids, published id lists, boxes, masks and labels."""

from avloc.annotations.boxes import Annotation, Annotations, published_boxes, read_annotations
from avloc.annotations.labels import Label, parse_label, relations
from avloc.annotations.lists import (
    TEST_LISTS,
    TESTSETS,
    IdList,
    SilentPair,
    canonical_id,
    is_vggsound_id,
    list_name,
    list_names,
    media_id,
    pair_only_ids,
    published_list,
    read_ids,
    silent_pairs,
    test_ids,
    testset_ids,
    testset_list,
)

__all__ = [
    "TESTSETS",
    "TEST_LISTS",
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
