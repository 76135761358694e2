"""Real clips: folds by repository, what they may be used for, and where their sounds come from."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe.boxes import head_and_shoulders
from tests.recipe.real import AUDIOSET, FOLDS, OBJECTS, folds_of, read_clips, sources_in, trained_on
from tests.recipe_makers import DATA

REAL = DATA.parent / "real"
FACE = (0.4, 0.4, 0.5, 0.5)
DOG, VASE = [0.0, 0.0, 0.5, 0.5, 0.8, "dog"], [0.5, 0.5, 1.0, 1.0, 0.9, "vase"]


def write_clips(folder, rows):
    (folder / "real").mkdir()
    keys = ("id", "clip", "repo", "sound")
    entries = [{**dict(zip(keys, row, strict=True)), "title": "t", "kind": "k"} for row in rows]
    (folder / "real" / "clips.json").write_text(json.dumps(entries))


def test_clips_of_a_repository_share_a_fold_and_generated_sound_is_not_trained_on(tmp_path):
    rows = [
        (f"{repo}{clip}-{part}", f"{repo}{clip}", repo, "original")
        for repo in "abcdefg"
        for clip in range(3)
        for part in range(2)
    ]
    rows[3] = (*rows[3][:3], "generated")
    rows[4] = (*rows[4][:3], "unknown")
    write_clips(tmp_path, rows)
    clips = read_clips(tmp_path)
    folds = {clip.repository: clip.fold for clip in clips}
    assert [clip.fold for clip in clips] == [folds[clip.repository] for clip in clips]
    assert set(folds.values()) == set(range(FOLDS))
    assert trained_on(clips) == [row for row in range(len(rows)) if row != 3]
    assert trained_on(clips, but_fold=folds["c"]) == [row for row in trained_on(clips) if clips[row].fold != folds["c"]]
    assert [row for row, clip in enumerate(clips) if not clip.calibrates] == [3, 4]


@given(st.dictionaries(st.text("abcdef", min_size=1), st.integers(1, 30), min_size=1))
def test_folds_are_balanced_and_do_not_depend_on_the_order(counts):
    folds = folds_of(counts)
    assert folds == folds_of(dict(reversed(counts.items())))
    full = [sum(counts[name] for name in counts if folds[name] == fold) for fold in range(FOLDS)]
    assert max(full) - min(full) <= max(counts.values())


def probability(**values):
    found = torch.zeros(521)
    for name, value in values.items():
        found[AUDIOSET[name][-1] if name != "voice" else 0] = value
    return found


def test_heads_are_used_where_there_is_a_voice():
    assert sources_in(probability(voice=0.31), [FACE], [DOG]) == [head_and_shoulders(FACE)]
    assert sources_in(probability(voice=0.29), [FACE], [DOG]) == []


def test_objects_are_used_where_there_is_their_sound():
    assert sources_in(probability(dog=0.21), [FACE], [DOG, VASE]) == [(0.0, 0.0, 0.5, 0.5)]
    assert sources_in(probability(dog=0.21), [], [[*DOG[:4], 0.39, "dog"]]) == []
    assert sources_in(probability(dog=0.19), [], [DOG]) == []
    assert len(sources_in(probability(dog=0.5, voice=0.5), [FACE], [DOG])) == 2


def test_objects_have_concepts():
    assert set(OBJECTS.values()) <= set(AUDIOSET)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real clips beside the repository")
def test_the_real_folds_have_about_as_many_clips():
    clips = read_clips(DATA.parent)
    counts = [len({clip.clip for clip in clips if clip.fold == fold}) for fold in range(FOLDS)]
    assert max(counts) - min(counts) <= 2
    detected = json.loads((REAL / "auto_boxes.json").read_text())
    names = {row[5] for rows in detected.values() for row in rows}
    assert names >= {"dog", "cat", "bird", "car", "train"}
    assert all(f"frames/{clip.id}.jpg" in detected for clip in clips)
