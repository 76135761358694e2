"""`avloc eval --maps-dir`: maps of other programs have the scores that the same maps of a model have."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import avloc
from avloc.annotations.testsets import published_list
from avloc.engine import ClipCells, HeatMaps
from avloc.errors import InputError, Refused, UsageError
from avloc.evaluate import EvalOptions, evaluate, evaluate_runs
from avloc.evaluate.external_maps import parse_map, with_external_maps
from avloc.json_text import to_json
from avloc.localize import Localization, LocalizeOptions, localize
from avloc.media.pictures import decode_picture, encode_png
from avloc.progress import Notice, silent
from avloc.protocols import PROTOCOLS
from avloc.store import Store
from tests import pages
from tests.eval_makers import to_clip, write
from tests.media_makers import disc, make_video, tone
from tests.program import ROOT
from tests.responsive_model import save_responsive
from tests.synthetic_scenes import RATE, SIDE, Scene, scenes

pytestmark = pytest.mark.usefixtures("offline")
COUNT = 6
EVERY = tuple(PROTOCOLS)


@pytest.fixture(scope="module")
def all_scenes() -> list[Scene]:
    return list(scenes(COUNT, held_out=False, seed=7))


@pytest.fixture(scope="module")
def store(tmp_path_factory, all_scenes) -> Path:
    return write(tmp_path_factory.mktemp("external") / "store", [to_clip(scene) for scene in all_scenes])


@pytest.fixture(scope="module")
def responsive(tmp_path_factory) -> Path:
    return save_responsive(tmp_path_factory.mktemp("responsive") / "responsive.safetensors")


@pytest.fixture(scope="module")
def scored(responsive, store):
    """The model's own evaluation, by every protocol."""
    options = {"maps": ("av",), "protocols": EVERY, "workers": 0, "device": "cpu"}
    return evaluate(EvalOptions(store=store, models=(responsive,), **options))


@pytest.fixture
def maps(tmp_path, scored) -> Path:
    """A folder of the model's cosines."""
    return save(tmp_path / "maps", {cells.id: cells.maps["av"] for cells in scored.cells[0]})


def save(folder: Path, values: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for clip_id, value in values.items():
        np.save(folder / f"{clip_id}.npy", value)
    return folder


def external(folder: Path, store: Path | None, **options):
    return evaluate(EvalOptions(maps_dir=folder, store=store, **{"protocols": EVERY, **options})).reports


def rows(report, kind: str) -> dict[str, dict[str, object]]:
    """Scores of each clip; the IoU, which is NaN for boxes, left out."""
    return {row.id: {**asdict(row.scores[kind]), "iou": None} for row in report.clips}


# --- scores -----------------------------------------------------------------------------------------------------


def test_the_cells_of_a_model_have_the_scores_of_the_model(maps, store, scored):
    reports = external(maps, store)
    assert [report.protocol for report in reports] == [report.protocol for report in scored.reports]
    for ours, models in zip(reports, scored.reports, strict=True):
        assert list(ours.maps) == ["external"]
        assert (rows(ours, "external"), ours.baselines.keys()) == (
            rows(models, "av"),
            models.baselines.keys() - {"sound ignored"},
        )
        assert repr(ours.maps["external"]) == repr(models.maps["av"]), "with intervals and sizes; NaN equals NaN"
        assert (ours.n_scored, ours.missing, ours.data_hash) == (COUNT, {}, models.data_hash)
    assert len({score["ciou"] for score in rows(reports[0], "external").values()}) > 2, "the clips differ"


def test_heat_maps_as_large_as_the_protocols_square_have_exactly_the_scores_of_the_model(tmp_path, store, scored):
    for name in ("avloc", "lvs", "sspl"):
        (models,) = [report for report in scored.reports if report.protocol.name == name]
        clips = scored.cells[0]
        found = HeatMaps([cells.maps for cells in clips]).heat({"av": 1.0}, models.protocol).numpy()
        heats = {cells.id: heat for cells, heat in zip(clips, found, strict=True)}
        assert {heat.shape for heat in heats.values()} == {(224, 224)}
        (ours,) = external(save(tmp_path / name, heats), store, protocols=(name,))
        assert rows(ours, "external") == rows(models, "av")


def test_maps_of_localize_have_the_scores_of_the_model_but_for_the_second_resize(tmp_path, responsive, store, scored):
    model, clips, heats = avloc.load(responsive), Store(store), {}
    for clip_id in clips.ids:
        clip = clips.read(clip_id)
        frame = decode_picture(clip.picture)
        heats[clip_id] = model.localize(frame, (clip.sound / 32_767).astype(np.float32), RATE).heatmap
        assert heats[clip_id].shape == frame.shape[:2]
    (ours,) = external(save(tmp_path / "heats", heats), store, protocols=("avloc",))
    models = rows(scored.reports[0], "av")
    assert {name: score["ciou"] for name, score in rows(ours, "external").items()} == pytest.approx(
        {name: score["ciou"] for name, score in models.items()}, abs=0.02
    )


def test_the_arrays_that_localize_writes_for_videos_are_scored(here, tmp_path, responsive):
    places = {"left": (0.25, 0.5), "right": (0.75, 0.5), "low": (0.5, 0.8)}
    (tmp_path / "videos").mkdir()
    for number, (name, place) in enumerate(places.items()):
        picture = disc((64, 48), place)
        sound = tone(4, RATE, hz=200 * (number + 1))
        make_video(
            tmp_path / "videos" / f"{name}.mp4", sound=sound, rate=RATE, frame_fn=lambda _t, picture=picture: picture
        )
    boxes = {name: [[x - 0.2, y - 0.2, x + 0.2, y + 0.2]] for name, (x, y) in places.items()}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    store, maps = tmp_path / "store", tmp_path / "maps"
    videos = (tmp_path / "videos", "--out")
    assert here("prepare", *videos, store, "--annotations", tmp_path / "boxes.json", "--workers", 1).code == 0
    assert here("localize", *videos, f"{maps}/{{stem}}.npy", "--model", responsive).code == 0
    done = here("eval", "--store", store, "--maps-dir", maps, "--protocol", "avloc")
    assert (done.code, "scored 3 of 3 expected clips, 0 missing" in done.out) == (0, True)
    (ours,) = external(maps, store, protocols=("avloc",))
    options = LocalizeOptions(inputs=(str(tmp_path / "videos"),), model=responsive, as_json=True, device="cpu")
    results = [one for one in localize(options) if isinstance(one, Localization)]
    heats = {Path(one.input).stem: one.result.heatmap for one in results}
    (expected,) = external(save(tmp_path / "heats", heats), store, protocols=("avloc",))
    assert rows(ours, "external") == rows(expected, "external")
    assert len({score["ciou"] for score in rows(ours, "external").values()}) == 3, "the clips differ"


def grown_twin(cells: np.ndarray, side: int = 224) -> np.ndarray:
    """Bilinear, the centres of the outer cells on the border, in double precision."""
    value = cells.astype(np.float64)
    for axis, length in enumerate(cells.shape):
        at = np.arange(side) * (length - 1) / (side - 1)
        low = np.minimum(at.astype(int), max(length - 2, 0))
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, length - 1)
        value = value.take(low, axis) * (1 - share) + value.take(high, axis) * share
    return value


LARGE = {"min_value": -1000, "max_value": 1000}
NUMBERS = st.sampled_from(["<f2", "<f4", "<f8", ">f8", "|b1", "|i1", "|u1", "<i4", ">i8", "<u8"])


@given(
    cells=NUMBERS.flatmap(
        lambda kind: arrays.arrays(
            kind,
            arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
            elements={
                "f": st.floats(width=16, **LARGE),
                "b": st.booleans(),
                "i": st.integers(-100, 100),
                "u": st.integers(0, 100),
            }[np.dtype(kind).kind],
        )
    ),
    transposed=st.booleans(),
)
def test_maps_of_any_shape_and_type_are_resized_by_the_protocol(cells, transposed):
    if transposed:  # stored in Fortran order
        cells = np.asfortranarray(cells)
    file = io.BytesIO()
    np.save(file, cells)
    read = parse_map(file.getvalue())
    assert (read.dtype, read.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(read, cells.astype(np.float32))
    (heat,) = HeatMaps([{"external": read}]).heat({"external": 1.0}, PROTOCOLS["avloc"]).numpy()
    twin = grown_twin(cells)
    if cells.min() == cells.max():
        assert not heat.any()
    else:
        np.testing.assert_allclose(heat, (twin - twin.min()) / (twin.max() - twin.min()), atol=1e-3)


def test_a_map_of_one_pixel_marks_the_whole_picture_or_nothing_as_the_protocol_says(tmp_path, store):
    folder = save(tmp_path / "maps", dict.fromkeys(Store(store).ids, np.float32([[7]])))
    for report in external(folder, store):
        whole = report.baselines["whole frame"].overall.mean_ciou
        nothing = report.protocol.flat == "nan"
        assert report.maps["external"].overall.mean_ciou == (0 if nothing else whole)
        assert report.maps["external"].pointing == 0


NINTHS = np.arange(9).reshape(3, 3)
CLOSE = {
    "offset": 1e9 + NINTHS,
    "tiny range": 0.5 + NINTHS * 2.0**-40,
    "subnormal": NINTHS * 5e-324,
    "big-endian": (1e9 + NINTHS).astype(">f8"),
    "long double": np.longdouble(1e15) + NINTHS,
    "int32": np.int32(2**31 - 9) + NINTHS.astype(np.int32),
    "int64": 2**53 + NINTHS,
    "lowest int64": -(2**63) + NINTHS,
    "highest uint64": np.uint64(2**64 - 9) + NINTHS.astype(np.uint64),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", CLOSE)
def test_values_that_are_equal_in_float32_stay_different(kind, transposed):
    value = np.asfortranarray(CLOSE[kind]) if transposed else CLOSE[kind]
    expected = HeatMaps([{"external": parse_map(npy(NINTHS))}])
    read = HeatMaps([{"external": parse_map(npy(value))}])
    for protocol in PROTOCOLS.values():
        heats = [maps.heat({"external": 1.0}, protocol) for maps in (read, expected)]
        np.testing.assert_allclose(*heats, atol=1e-6)


def test_integers_from_end_to_end_are_scaled_and_large_constants_are_constant():
    np.testing.assert_array_equal(parse_map(npy(np.array([[-(2**63), 2**63 - 1]]))), [[0, 1]])
    for constant in (1e9 + 1, 2**53 + 1, 0.1):
        assert np.ptp(parse_map(npy(np.full((2, 2), constant)))) == 0


@pytest.mark.parametrize("largest", [8e37, -8e37, 1e-38])
def test_no_range_that_is_accepted_overflows_in_a_protocol(largest):
    cells = np.zeros((5, 5))
    cells[1, 1], cells[3, 3] = largest, -largest
    file = io.BytesIO()
    np.save(file, cells)
    heats = HeatMaps([{"external": parse_map(file.getvalue())}])
    for protocol in PROTOCOLS.values():
        heat = heats.heat({"external": 1.0}, protocol)
        assert (heat.min(), heat.max()) == (0, 1)


# --- missing maps -----------------------------------------------------------------------------------------------


def npy(value, **more) -> bytes:
    file = io.BytesIO()
    np.save(file, value, **more)
    return file.getvalue()


def claiming(shape: tuple[int, ...], kind: str = "<f4", payload: int = 64) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(payload)


def zipped() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.ones((2, 2)))
    return file.getvalue()


BAD = {
    "nan": (npy(np.array([[0, np.nan]])), "has a NaN or infinite value"),
    "infinite": (npy(np.array([[0, -np.inf]], np.float16)), "has a NaN or infinite value"),
    "beyond float32": (npy(np.array([[0, 1e39]])), "has values too large for float32"),
    "beyond its margin": (npy(np.array([[0, 2e38]])), "has values too large for float32"),
    "vector": (npy(np.arange(4.0)), "has shape [4]; valid: [h, w]"),
    "batch": (npy(np.ones((1, 4, 4))), "has shape [1, 4, 4]; valid: [h, w]"),
    "empty": (npy(np.ones((0, 4))), "has shape [0, 4]; valid: [h, w]"),
    "many cells": (claiming((1 << 12, (1 << 13) + 1), "|b1", 1 << 26), "has 33558528 values; at most 33554432"),
    "complex": (npy(np.ones((2, 2), np.complex64)), "has type complex64; valid: integers, floats or bool"),
    "texts": (npy(np.array([["a", "b"]])), "has type <U1"),
    "objects": (npy(np.array([[None, 1]]), allow_pickle=True), "is not a readable .npy array (Object arrays cannot"),
    "cut off": (npy(np.ones((9, 9)))[:-1], "is not a readable .npy array"),
    "too short for its shape": (claiming((1 << 20, 1 << 20)), "is not a readable .npy array"),
    "overflowing shape": (claiming((1 << 62, 1 << 62)), "is not a readable .npy array"),
    "deeply nested": (npy(np.ones((2, 2)))[:10] + b"(" * 4000, "is not a readable .npy array"),
    "archive": (zipped(), "is not a readable .npy array"),
    "text": (b"0.1 0.2\n", "is not a readable .npy array"),
    "nothing": (b"", "is not a readable .npy array"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_unusable_map_is_a_missing_clip_by_name(maps, store, kind):
    data, reason = BAD[kind]
    whole, first = external(maps, store, protocols=("avloc",))[0], Store(store).ids[0]
    (maps / f"{first}.npy").write_bytes(data)
    (report,) = external(maps, store, protocols=("avloc",))
    assert list(report.missing) == [first]
    assert f"{first}.npy {reason}" in report.missing[first]
    others = {name: score for name, score in rows(whole, "external").items() if name != first}
    assert rows(report, "external") == others
    assert report.model_hash != whole.model_hash


def test_what_is_no_regular_file_or_too_large_is_a_missing_clip(maps, store):
    folder, fifo, large, absent, *_ = Store(store).ids
    for name in (folder, fifo, large, absent):
        (maps / f"{name}.npy").unlink()
    (maps / f"{folder}.npy").mkdir()
    os.mkfifo(maps / f"{fifo}.npy")
    with (maps / f"{large}.npy").open("wb") as file:
        file.truncate(1 << 40)
    (report,) = external(maps, store, protocols=("avloc",))
    assert report.missing == {
        folder: f"{folder}.npy is not a regular file",
        fifo: f"{fifo}.npy is not a regular file",
        large: f"{large}.npy is larger than 256 MiB",
        absent: f"{absent}.npy does not exist",
    }


def test_no_file_outside_the_folder_is_read(tmp_path, monkeypatch):
    folder, value = tmp_path / "maps", np.eye(3)
    (tmp_path / "maps-of-others").mkdir()
    save(folder, {"inside": value})
    save(folder / "sub", {"below": value})
    save(tmp_path, {"secret": value, "maps-of-others/x": value})
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    (folder / "out").symlink_to(tmp_path)
    (folder / "alias.npy").symlink_to(folder / "inside.npy")
    (folder / "circle.npy").symlink_to(folder / "circle.npy")
    outside = ["../secret", str(tmp_path / "secret"), "sub/../../secret", "link", "out/secret", "../maps-of-others/x"]
    odd = {"nul\0": "is not a file name", "x" * 300: "cannot be read (File name too long)", "\ud800": "is not a file"}
    absent = ["", ".", "..", "absent", "sub", "circle", "inside.npy", "Inside/", "\n", "\udcff"]
    clips = [ClipCells(id=name) for name in ("inside", "sub/below", "alias", *outside, *odd, *absent)]
    opened = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path.resolve()), real(path))[1])
    done, _ = with_external_maps(folder, clips, silent)
    reasons = {clip.id: clip.reason for clip in done}
    assert [name for name, reason in reasons.items() if not reason] == ["inside", "sub/below", "alias"]
    assert {name: reasons[name] for name in outside} == {name: f"{name}.npy is outside the folder" for name in outside}
    assert all(words in reasons[name] for name, words in odd.items())
    assert all(re.search(r"does not exist|cannot be read \(Too many", reasons[name]) for name in absent)
    assert {path.name for path in opened} == {"inside.npy", "below.npy"}


@given(st.one_of(st.binary(max_size=300), st.tuples(st.integers(0, 199), st.integers(0, 255))))
def test_no_contents_of_a_file_are_anything_but_a_map_or_an_input_error(change):
    data = bytearray(npy(np.arange(9.0).reshape(3, 3)))
    if isinstance(change, tuple):
        data[change[0]] = change[1]
    else:
        data = change
    try:
        cells = parse_map(bytes(data))
    except InputError:
        return
    assert (cells.ndim, cells.dtype, np.isfinite(cells).all()) == (2, np.float32, True)


def test_a_map_that_changes_while_it_is_scored_is_refused(maps, store):
    name = Store(store).ids[0]
    (clip,), _ = with_external_maps(maps, [ClipCells(id=name)], silent)
    assert list(clip.maps) == ["external"]
    assert clip.maps["external"].shape == (4, 4)
    np.save(maps / f"{name}.npy", np.eye(4))
    with pytest.raises(Refused, match="changed while it was scored: it has other contents now"):
        clip.maps["external"]
    (maps / f"{name}.npy").unlink()
    with pytest.raises(Refused, match="changed while it was scored: it cannot be read"):
        clip.maps["external"]


def test_files_that_no_clip_needs_change_nothing_and_are_named_if_maps_are_missing(maps, store):
    before = external(maps, store)[0]
    np.save(maps / "other-spelling.npy", np.eye(2))
    (maps / "notes.txt").write_text("mine")
    assert to_json(external(maps, store)[0].as_json()) == to_json(before.as_json())
    (maps / f"{Store(store).ids[0]}.npy").unlink()
    events = []
    evaluate(EvalOptions(maps_dir=maps, store=store), events.append)
    (notice,) = [event.text for event in events if isinstance(event, Notice)]
    assert notice == f"{maps}: 1 .npy not named after a clip of the test set, such as other-spelling.npy"


def test_a_damaged_mask_is_a_missing_clip_without_a_model_too(tmp_path, all_scenes):
    good = encode_png(np.eye(64, dtype=np.bool_))
    clips = [to_clip(s, boxes=np.zeros((0, 4)), mask=good) for s in all_scenes[:3]]
    clips[1] = replace(clips[1], mask=good[:40])
    masked = write(tmp_path / "masks", clips, box_rule="mask")
    folder = save(tmp_path / "maps", {clip.id: np.eye(5) for clip in clips})
    for options in (EvalOptions(maps_dir=folder, store=masked), EvalOptions(maps=("baselines",), store=masked)):
        (report,) = evaluate(options).reports
        assert list(report.missing) == [clips[1].id]
        assert "mask cannot be decoded" in report.missing[clips[1].id]
        assert report.n_scored == 2
    (report,) = evaluate(EvalOptions(maps_dir=folder, store=masked)).reports
    assert 0 < report.maps["external"].miou < 1


# --- the command ------------------------------------------------------------------------------------------------

_WATCHED = """
import sys
opened = []
sys.addaudithook(lambda event, of: opened.append(str(of[0])) if event == "open" else None)
from avloc.cli import main
sys.argv = ["avloc", *sys.argv[1:]]
try:
    main()
finally:
    print("\\n".join(opened), file=sys.stderr)
"""


def test_vggss_needs_neither_a_store_nor_weights(tmp_path):
    ids = published_list("vggss_test_4692")[:40]
    folder = save(tmp_path / "mine", {name: np.random.default_rng(0).random((7, 9)) for name in ids})
    command = [sys.executable, "-c", _WATCHED, "eval", "--testset", "vggss-4692", "--maps-dir", str(folder), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--max-missing", "4652"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["model"], report["n_scored"], report["n_expected"]) == ("mine", 40, 4692)
    opened = done.stderr.splitlines()
    assert str(folder / f"{ids[0]}.npy") in opened
    assert [path for path in opened if path.endswith((".safetensors", ".pth", ".pt", ".h5"))] == []


def test_the_table_names_the_folder_the_hash_and_what_is_not_run(here, maps, store):
    done = here("eval", "--store", store, "--maps-dir", maps)
    assert (done.code, done.err) == (0, "")
    names = sorted(path.name for path in maps.iterdir())
    lines = "".join(f"{sha256(maps / name)}  {name}\n" for name in names)
    expected = hashlib.sha256(lines.encode()).hexdigest()
    head, _, row, ignored, *rest = done.out.splitlines()
    assert head == f"store: maps (sha256 {expected[:12]})"
    assert row.startswith("external ")
    assert ignored.split() == ["sound", "ignored", "not", "run", "needs", "a", "model"]
    assert [line for line in rest if line.startswith("centre disc")]
    assert f"scored {COUNT} of {COUNT} expected clips, 0 missing" in done.out
    report = json.loads(here("eval", "--store", store, "--maps-dir", maps, "--json").out)
    assert (report["model_hash"], report["model_card"], report["cost"]) == (expected, {}, [])
    assert report["not_run"] == {"sound ignored": "needs a model"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_clip_that_the_page_names_is_in_vggss():
    (name,) = re.findall(r"as in `(\S+)\.npy`", pages.text("evaluate"))
    assert name in published_list("vggss_test")


def test_the_example_of_the_page_writes_maps_that_are_scored(here, tmp_path, monkeypatch, all_scenes):
    monkeypatch.chdir(tmp_path)
    clips = [to_clip(all_scenes[0]), to_clip(all_scenes[1], id="part/two")]
    made = write(tmp_path / "data" / "mine", clips)
    given = []

    def my_model(picture: bytes, sound: np.ndarray) -> np.ndarray:
        given.append((decode_picture(picture).shape, sound.dtype, len(sound)))
        return np.eye(7)

    exec(pages.block(pages.text("evaluate"), "write the maps of a model"), {"my_model": my_model})
    assert given == [((SIDE, SIDE, 3), np.int16, Store(made).spec.samples)] * 2
    done = here("eval", "--testset", "mine", "--maps-dir", "maps")
    assert (done.code, "scored 2 of 2 expected clips, 0 missing" in done.out) == (0, True)


def test_missing_maps_give_the_exit_codes_of_missing_clips(here, maps, store):
    first, *others = sorted(maps.iterdir())
    first.unlink()
    done = here("eval", "--store", store, "--maps-dir", maps)
    assert (done.code, f"missing {first.stem}: {first.name} does not exist" in done.out) == (5, True)
    assert here("eval", "--store", store, "--maps-dir", maps, "--max-missing", 1).code == 0
    for path in others:
        path.unlink()
    done = here("eval", "--store", store, "--maps-dir", maps)
    assert (done.code, f"none of {COUNT} clips could be scored; the first: {first.stem}" in done.err) == (3, True)


def test_silent_pairs_are_not_run_and_no_pair_is_missing(tmp_path):
    folder = save(tmp_path / "maps", {published_list("vggss_test")[0]: np.eye(3)})
    (report,) = external(folder, None, testset="vggss-ext", protocols=("avloc",))
    assert (report.n_expected, report.n_scored, report.missing_pairs, report.extended) == (5158, 1, {}, {})
    assert report.not_run == {"sound ignored": "needs a model", "silent pairs": "needs a model"}


def test_several_sources_and_the_report_have_the_maps(here, tmp_path, all_scenes):
    shared = to_clip(all_scenes[0]).picture
    clips = [to_clip(scene, id=f"duet_{i}", picture=shared) for i, scene in enumerate(all_scenes[:2])]
    clips.append(to_clip(all_scenes[2], id="broken", picture=b"\xff\xd8 not a picture"))
    duets = write(tmp_path / "duets", clips)
    folder = save(tmp_path / "maps", {clip.id: np.arange(6.0).reshape(2, 3) for clip in clips})
    done = here("eval", "--store", duets, "--maps-dir", folder, "--report", tmp_path / "report")
    assert (done.code, done.err) == (0, "")
    assert "external: IIoU@0.5" in done.out
    table = (tmp_path / "report" / "clips.csv").read_text().splitlines()
    assert len([line for line in table if ",external," in line]) == 3
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count('["external",{') == 2, "heat of the two pictures that can be decoded"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "RUN does not apply to --maps-dir"),
        (["--model", "x.pth"], "--model does not apply to --maps-dir"),
        (["--maps", "av"], "--maps does not apply to --maps-dir"),
        (["--paper-table", "2"], "--paper-table does not apply to --maps-dir"),
        (["--testset", "ave"], "--maps-dir does not apply to --testset ave"),
        (["--maps-dir", ""], "--maps-dir is empty; valid: a folder"),
        (["--maps-dir", "absent"], "--maps-dir absent is not a folder"),
        (["--maps-dir", "store/store.json"], "--maps-dir store/store.json is not a folder"),
        (["--protocol", "abacus"], "--protocol abacus is unknown"),
    ],
)
def test_invalid_arguments_are_usage_errors(here, monkeypatch, maps, store, arguments, words):
    monkeypatch.chdir(store.parent)
    done = here("eval", "--store", "store", "--maps-dir", maps, *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_the_library_refuses_a_model_beside_maps(maps, store, responsive):
    options = EvalOptions(maps_dir=maps, store=store)
    for more in ({"paths": [responsive]}, {"paths": [], "against": responsive}):
        with pytest.raises(UsageError, match="--maps-dir takes no model"):
            evaluate_runs(options, **more)
    with pytest.raises(UsageError, match="--maps-dir takes no model"):
        evaluate_runs(replace(options, negatives=1), [])
