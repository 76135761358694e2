"""Clips to test with, of files that are not trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.recipe.clips import LAYOUTS, SILENCE, Clip, Part, rounded, write_set
from tests.recipe.pictures import Scene, roughened
from tests.recipe.sounds import SAMPLES, together
from tests.recipe.split import CLASSES, EVERYDAY, Classes, class_of, sound_class_of

SCENES = 960
EVERYDAY_SCENES = 480
MIXED = 480
SOUNDS_A_PICTURE = 3
WRONG_PICTURES = 700
FEWEST_EVERYDAY = 5
"""Classes with fewer pictures of `everyday` to test with have no everyday scenes of their own."""
MIXED_FILE = "mixed.json"
ALONE = "ab"
"""End of the names of clips with one of the two sounds of a mixture."""
RIGHT, WRONG, SILENT = "right", "wrong", "silent"
"""Ends of the names of the clips of `wrong_pairs`."""
_TRIES = 200


def scored_scene(part: Part, layout: str, seed: int, index: int) -> Clip:
    """Two objects; the boxes are the part of the one that sounds."""
    rng = np.random.default_rng((seed, index))
    kind = part.kinds[index % len(part.kinds)]
    others = [other for other in part.kinds if other != kind]
    kinds = [kind, others[rng.integers(len(others))]]
    rng.shuffle(kinds)
    scene = next(scene for _ in range(_TRIES) if len((scene := _scene(part, layout, kinds, rng)).places) == 2)
    audio_class = part.sounds.draw(part.sounds.fitting(kind), rng)
    sound = part.sounds.any_of(audio_class, rng)
    return Clip(roughened(scene.picture, rng), sound, audio_class, scene.visible, scene.places[kind])


def scored_scenes(part: Part, seed: int) -> Iterator[tuple[str, Clip]]:
    """As many of each layout; their names end in it."""
    for index in range(SCENES):
        layout = list(LAYOUTS)[index % len(LAYOUTS)]
        yield f"scene-{index:04d}-{layout}", scored_scene(part, layout, seed, index // len(LAYOUTS))


def everyday_kinds(part: Part) -> list[str]:
    """Classes with several pictures in `everyday`."""

    def count(kind: str) -> int:
        return sum(path.startswith(f"{EVERYDAY}/") for path in part.album.pool[kind])

    return [kind for kind in part.kinds if count(kind) >= FEWEST_EVERYDAY]


def everyday_scenes(part: Part, seed: int) -> Iterator[tuple[str, Clip]]:
    """Scenes as in `scored_scenes`; what sounds is of a class of `everyday`, and nothing else may make its sound."""
    kinds = everyday_kinds(part)
    for index in range(EVERYDAY_SCENES):
        layout, rng = list(LAYOUTS)[index % len(LAYOUTS)], np.random.default_rng((seed, index))
        kind = kinds[index // len(LAYOUTS) % len(kinds)]
        scene, (audio_class, _) = two_things(part, layout, kind, rng)
        sound = part.sounds.any_of(audio_class, rng)
        boxes = scene.places[kind]
        name = f"everyday-{index:04d}-{layout}"
        yield name, Clip(roughened(scene.picture, rng), sound, audio_class, scene.visible, boxes)


def two_things(part: Part, layout: str, kind: str, rng: np.random.Generator) -> tuple[Scene, tuple[str, str]]:
    """A scene of a thing of a class and another one, and a sound class of each that only that thing may make."""
    for _ in range(_TRIES):
        other = part.kinds[rng.integers(len(part.kinds))]
        kinds = [kind, other]
        audio = tuple(part.sounds.draw(part.sounds.fitting(one), rng) for one in kinds)
        rng.shuffle(kinds)
        if other == kind:
            continue
        scene = _scene(part, layout, kinds, rng)
        if len(scene.places) == 2 and all(
            makers(scene, name) == [one] for one, name in zip((kind, other), audio, strict=True)
        ):
            return scene, (audio[0], audio[1])
    raise ValueError(f"no scene of {kind} and another thing that makes other sounds in {_TRIES} tries")


def makers(scene: Scene, audio_class: str) -> list[str]:
    """Classes of the pictures in a scene that may show a sound class."""
    return [kind for kind, names in scene.shown.items() if audio_class in names]


def _scene(part: Part, layout: str, kinds: list[str], rng: np.random.Generator) -> Scene:
    return LAYOUTS[layout](part.album, kinds, rng)


def write_mixed(folder: Path, part: Part, seed: int) -> None:
    """Scenes of two things that both sound, equally loud; then each of them alone in the same picture.

    The names of the latter end in the letters of `ALONE`. boxes.json has class and boxes of one thing, in mixtures the
    first; mixed.json has those of both for each mixture: path -> [{"audio_class", "boxes"}, ...].
    """
    both: dict[str, list[dict]] = {}

    def clips() -> Iterator[tuple[str, Clip]]:
        for index in range(MIXED):
            layout, rng = list(LAYOUTS)[index % len(LAYOUTS)], np.random.default_rng((seed, index))
            kind = part.kinds[index // len(LAYOUTS) % len(part.kinds)]
            scene, audio = two_things(part, layout, kind, rng)
            other = next(one for one in scene.places if one != kind)
            name, places = f"mixed-{index:04d}-{layout}", [scene.places[kind], scene.places[other]]
            both[f"frames/{name}.jpg"] = [
                {"audio_class": one, "boxes": rounded(boxes)} for one, boxes in zip(audio, places, strict=True)
            ]
            sounds = [part.sounds.any_of(one, rng) for one in audio]
            picture = roughened(scene.picture, rng)
            yield name, Clip(picture, together(*sounds), audio[0], scene.visible, places[0])
            for letter, *one in zip(ALONE, sounds, audio, places, strict=True):
                yield f"{name}-{letter}", Clip(picture, one[0], one[1], scene.visible, one[2])

    write_set(folder, clips())
    (folder / MIXED_FILE).write_text(json.dumps(both, indent=0), encoding="utf-8")


def boxed_clips(part: Part, seed: int) -> Iterator[tuple[str, Clip]]:
    """Every picture that can be scored by its boxes, as it is, with three sounds that fit it; names have its class."""
    classes = part.album.classes
    paths = [path for kind in part.kinds for path in part.album.pool[kind] if classes.is_well_boxed(path)]
    for index, path in enumerate(sorted(paths)):
        rng, kind = np.random.default_rng((seed, index)), class_of(path)
        choice = [sound for name in part.sounds.fitting(kind) for sound in part.sounds.pool[name]]
        again = len(choice) < SOUNDS_A_PICTURE
        for letter, k in zip("abc", rng.choice(len(choice), SOUNDS_A_PICTURE, replace=again), strict=True):
            sound, boxes = part.sounds.whole(choice[k]), part.album.boxes.sources(path)
            clip = Clip(classes.data / path, sound, sound_class_of(choice[k]), classes.shown(path), boxes)
            yield f"boxed-{index:04d}-{kind}-{letter}", clip


def wrong_pairs(part: Part, seed: int) -> Iterator[Clip]:
    """Pictures three times each: with a sound that fits, with one of a class that they do not show, with silence."""
    rng = np.random.default_rng(seed)
    paths = [path for kind in part.kinds for path in part.album.pool[kind]]
    chosen = [paths[k] for k in rng.permutation(len(paths))[:WRONG_PICTURES]]
    for path in chosen:
        visible = part.album.classes.shown(path)
        right = part.sounds.draw(part.sounds.fitting(class_of(path)), rng)
        others = sorted(part.pictured - set(visible))
        wrong = others[rng.integers(len(others))]
        silence = np.zeros(SAMPLES, np.float32)
        for audio_class, sound in (
            (right, part.sounds.any_of(right, rng)),
            (wrong, part.sounds.any_of(wrong, rng)),
            (SILENCE, silence),
        ):
            yield Clip(part.album.picture(path), sound, audio_class, visible)


def write_scored(data: Path, out: Path, kinds: list[str], seed: int) -> None:
    """All sets for testing; `test/scenes` has the 32 classes of `classes` alone and stays the same with more of others.

    Args:
        data: the folder with `classes` and `everyday`.
        out: the folder for `test` and `wrong`.
        kinds: classes that are trained on.
        seed: of all draws.
    """
    seeds = [int(number) for number in np.random.SeedSequence((seed, 1)).generate_state(5)]
    write_set(out / "test" / "scenes", scored_scenes(Part.test(Classes(data, (CLASSES,))), seeds[0]))
    part = Part.test(Classes(data), kinds)
    write_set(out / "test" / "boxed", boxed_clips(part, seeds[1]))
    names = (RIGHT, WRONG, SILENT)
    pairs = enumerate(wrong_pairs(part, seeds[2]))
    write_set(out / "wrong", ((f"pair-{i // 3:04d}-{names[i % 3]}", clip) for i, clip in pairs))
    write_set(out / "test" / "scenes-everyday", everyday_scenes(part, seeds[3]))
    write_mixed(out / "test" / "mixed", part, seeds[4])
