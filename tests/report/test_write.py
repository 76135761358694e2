"""Files of a report: exact numbers, hostile names, non-finite scores."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html.parser
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc import protocols
from avloc.errors import UsageError
from avloc.json_text import finite, to_json
from avloc.metrics import ExtendedScores, NegativeScores, SourceScores
from avloc.protocols import PROTOCOLS, Protocol
from avloc.report import ReportPicture, write_report
from avloc.report.page import SCRIPTS, escape_json, outcome
from avloc.report.protocol_text import BOX_RULES, LABELS, VALUES, describe_protocol
from avloc.report.tables import DASH, multi_model_tables, overview, percent, report_tables
from avloc.report.write import COLUMNS
from tests.report_makers import ABOUT, KINDS, NAN, make_clips, make_map, make_picture, make_report, make_score

FILES = {"summary.json", "clips.jsonl", "clips.csv", "index.html"}
HOSTILE = (
    "<img src=x onerror=window.hit=1>",
    "</script><script>window.hit=1</script>",
    "<!--<script>",
    "\"'`&quot;&lt;",
    "line\u2028and\u2029paragraph\nnew\rline\ttab\0nul",
    "lone \udcff surrogate \ud800",
    "__proto__",
    "$data ${script} $$",
    "=1+1",
    "a,b;c",
)


def write(folder: Path, reports=None, pictures=(), about=ABOUT) -> Path:
    write_report(folder, about, [make_report()] if reports is None else reports, pictures)
    return folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "clips.jsonl").read_bytes().splitlines()]


def cells(folder: Path) -> list[dict[str, str]]:
    with (folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Page(html.parser.HTMLParser):
    """The elements of a page, with the text of those that hold data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes) -> None:
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")

    def handle_data(self, data) -> None:
        if self.texts:
            self.texts[-1] += data

    def data(self, name: str = "data"):
        places = [n for n, (_, attributes) in enumerate(self.elements) if attributes.get("id") == name]
        assert len(places) == 1
        return json.loads(self.texts[places[0]])


# --- files


def test_the_folder_holds_four_files_and_nothing_else(tmp_path) -> None:
    write(tmp_path / "deep" / "out", pictures=[make_picture("clip-000")])
    assert {path.name for path in (tmp_path / "deep" / "out").glob("[!.]*")} == FILES


def test_twice_the_same_bytes_over_an_older_report(tmp_path) -> None:
    reports = [make_report(), make_report("lvs")]
    first = write(tmp_path / "a", reports, [make_picture("clip-001")])
    second = write(tmp_path / "b", [make_report("sspl")])
    write(second, [make_report(), make_report("lvs")], [make_picture("clip-001")])
    assert {name: (first / name).read_bytes() for name in FILES} == {
        name: (second / name).read_bytes() for name in FILES
    }


def test_the_summary_is_the_reports_without_their_clips(tmp_path) -> None:
    report = make_report()
    summary = json.loads((write(tmp_path, [report]) / "summary.json").read_text())
    assert summary["about"] == ABOUT
    assert summary["reports"] == [finite({name: value for name, value in report.items() if name != "clips"})]
    assert list(summary["reports"][0]) == [name for name in report if name != "clips"]


def test_every_clip_of_every_report_has_a_line_with_all_digits(tmp_path) -> None:
    reports = [make_report(), make_report("lvs", model="run-2", clips=make_clips(5, seed=1))]
    found = lines(write(tmp_path, reports))
    assert [(row["testset"], row["model"], row["protocol"], row["id"]) for row in found] == [
        (report["testset"], report["model"], report["protocol"]["name"], clip["id"])
        for report in reports
        for clip in report["clips"]
    ]
    for row, clip in zip(found, (clip for report in reports for clip in report["clips"]), strict=True):
        assert {name: row[name] for name in ("id", "label", "flags", "area", "size")} == {
            name: clip[name] for name in ("id", "label", "flags", "area", "size")
        }
        for kind, score in clip["scores"].items():
            expected = "found" if score["ciou"] >= 0.5 else "peak inside" if score["hit"] else "elsewhere"
            assert row["scores"][kind] == {**finite(score), "outcome": expected}


def test_the_csv_has_the_same_values_flat(tmp_path) -> None:
    clips = [{**make_clips(1)[0], "flags": ["silent", "still"]}, *make_clips(6, seed=3)[1:]]
    write(tmp_path, [make_report(clips=clips)])
    found = cells(tmp_path)
    assert tuple(found[0]) == COLUMNS
    flat = [(row, kind, score) for row in lines(tmp_path) for kind, score in row["scores"].items()]
    assert len(found) == len(flat) == 6 * len(KINDS)
    for cell, (row, kind, score) in zip(found, flat, strict=True):
        assert [cell[name] for name in ("testset", "model", "protocol", "id", "label", "size", "map", "outcome")] == [
            *(row[name] for name in ("testset", "model", "protocol", "id", "label", "size")),
            *(kind, score["outcome"]),
        ]
        assert (float(cell["area"]), float(cell["ciou"]), float(cell["area_ciou"])) == (
            *(row["area"], score["ciou"], score["area_ciou"]),
        )
        assert (cell["hit"], cell["iou"], cell["flags"]) == (str(int(score["hit"])), "", " ".join(row["flags"]))


@pytest.mark.parametrize(
    ("score", "hit", "expected"),
    [(0.5, False, "found"), (0.8, True, "found"), (0.49, True, "peak inside"), (0.49, False, "elsewhere")],
)
def test_a_clip_has_one_of_three_outcomes(score, hit, expected) -> None:
    assert outcome({"ciou": score, "hit": hit}) == expected


def test_nan_is_null_and_an_empty_cell(tmp_path) -> None:
    clips = make_clips(2)
    clips[0]["scores"]["av"] |= {"ciou": NAN, "area_ciou": NAN, "hit": False}
    infinite = {"reached": math.inf, "deep": [{"lost": -math.inf}]}
    write(tmp_path, [make_report(clips=clips, model_card=infinite)], about={**ABOUT, "odd": NAN})
    for name in FILES - {"clips.csv"}:
        assert not {"NaN", "Infinity"} & set((tmp_path / name).read_text().replace('"', " ").replace(",", " ").split())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["about"]["odd"] is None
    assert summary["reports"][0]["model_card"] == {"reached": None, "deep": [{"lost": None}]}
    assert lines(tmp_path)[0]["scores"]["av"]["ciou"] is None
    assert (cells(tmp_path)[0]["ciou"], cells(tmp_path)[0]["area_ciou"]) == ("", "")
    assert Page(tmp_path / "index.html").data()["reports"][0]["clips"][0][5][0][:2] == [None, None]


def test_a_report_without_clips_or_maps_is_written_too(tmp_path) -> None:
    nothing = make_report(clips=[], maps={}, baselines={}, sweep={}, missing={}, model="", model_hash="", model_card={})
    write(tmp_path, [nothing])
    assert lines(tmp_path) == []
    assert Page(tmp_path / "index.html").data()["reports"][0]["tables"] == []


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="the folder cannot be created"):
        write(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


# --- hostile names


def hostile_report(name: str) -> dict:
    clips = [
        {**clip, "id": f"{name}{place}", "label": name, "flags": [name]} for place, clip in enumerate(make_clips(3))
    ]
    for clip in clips:
        clip["scores"] = {name: make_score(np.random.default_rng(0)), **clip["scores"]}
    names = {"testset": name, "model": name, "data_hash": name, "model_hash": name, "box_rule": name}
    missing = {name: name, f"{name}2": name}
    more = {"not_run": {name: name}, "model_card": {name: [name]}, "priors": {name: {name: name}}}
    tables = {"cost": [{"name": name, name: 5}], "extended": {name: {name: 0.5}}, "baselines": {name: make_map([0.5])}}
    return make_report(clips=clips, missing=missing, **names, **more, **tables)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_strangers_come_back_whole_and_open_no_element(tmp_path, name) -> None:
    heats = {name: {name: np.zeros((2, 2), np.uint8)}}
    picture = make_picture(f"{name}0", heats=heats)
    hostile, plain = tmp_path / "hostile", tmp_path / "plain"
    write(hostile, [hostile_report(name)], [picture], {name: name})
    write(plain, [hostile_report("harmless")], [make_picture("harmless0")], {"harmless": "harmless"})
    ours, theirs = Page(hostile / "index.html"), Page(plain / "index.html")
    drop_policy = [(tag, set(attributes)) for tag, attributes in ours.elements]
    assert drop_policy == [(tag, set(attributes)) for tag, attributes in theirs.elements]
    data = ours.data()
    assert data["reports"][0]["missing"] == [[name, name], [f"{name}2", name]]
    assert [clip[0] for clip in data["reports"][0]["clips"]] == [f"{name}{place}" for place in range(3)]
    assert data["about"] == [[name, name]]
    assert data["pictures"] == [[f"{name}0", 96, 64]]
    assert ours.data("picture-0")["heats"][0][0] == name
    assert [row["id"] for row in lines(hostile)] == [f"{name}{place}" for place in range(3)]
    assert json.loads((hostile / "summary.json").read_text())["reports"][0]["missing"] == {name: name, f"{name}2": name}
    written = name.encode("utf-8", "backslashreplace").decode()
    assert {row["label"] for row in cells(hostile)} == {written}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=8,
)


@given(json_values)
def test_what_goes_into_the_page_is_inert_and_the_same_data(value) -> None:
    text = escape_json(value)
    assert text.isascii()
    assert not set("<>&\n\r") & set(text)
    assert json.loads(text) == json.loads(to_json(value)) == value


def test_the_page_has_no_address_and_no_way_to_run_markup(tmp_path) -> None:
    page = Page(write(tmp_path, pictures=[make_picture("clip-000")]) / "index.html")
    for tag, attributes in page.elements:
        assert not attributes.get("src"), tag
        assert attributes.get("href", "#")[0] == "#" or attributes["href"] == "data:,"
        assert not [name for name in attributes if name.startswith("on")]
    folder = Path(protocols.__file__).parent / "report"
    script = "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "</script",
        "<!--",
    ):
        assert word not in script
    assert {path.name for path in folder.glob("*.js")} == set(SCRIPTS)


# --- pictures


def test_a_picture_arrives_whole(tmp_path) -> None:
    heat = np.arange(6, dtype=np.uint16).reshape(2, 3) * 13_000
    boxes = np.array([[0.1, 0.2, 0.5, 0.6], [-3, 0.5, 2, 0.75], [0.4, 0.4, 0.4, 0.9], [NAN, 0, 1, 1], [0.9, 0, 0.1, 1]])
    picture = make_picture("clip-000", boxes=boxes, heats={"run-1": {"av": heat, "detr": heat.astype(np.uint8)}})
    stored = Page(write(tmp_path, pictures=[picture]) / "index.html").data("picture-0")
    kind, _, data = stored["frame"].partition(",")
    assert (kind, base64.b64decode(data)) == ("data:image/jpeg;base64", picture.jpeg)
    assert stored["boxes"] == [[0.1, 0.2, 0.5, 0.6], [0, 0.5, 1, 0.75]]
    ((model, maps),) = stored["heats"]
    assert (model, [name for name, _ in maps]) == ("run-1", ["av", "detr"])
    assert [(of["width"], of["height"], of["bytes"]) for _, of in maps] == [(3, 2, 2), (3, 2, 1)]
    assert np.frombuffer(base64.b64decode(maps[0][1]["levels"]), "<u2").tolist() == heat.ravel().tolist()


@pytest.mark.parametrize("heat", [np.zeros((4, 4), np.float32), np.zeros(4, np.uint8), np.zeros((4, 4), np.int16)])
def test_a_heat_map_of_another_type_is_refused(heat) -> None:
    picture: ReportPicture = make_picture("clip-000", heats={"run-1": {"av": heat}})
    with pytest.raises(ValueError, match="uint8 or uint16"):
        picture.as_json()


# --- words and tables


def test_every_field_of_a_protocol_and_every_choice_has_words() -> None:
    assert {field.name for field in dataclasses.fields(Protocol)} == set(LABELS)
    choices = {
        "resize": protocols.RESIZES,
        "flat": protocols.FLATS,
        "threshold": protocols.THRESHOLDS,
        "comparison": protocols.COMPARISONS,
        "success": protocols.COMPARISONS,
        "boxes": protocols.BOXES,
        "clips": protocols.LISTS,
        "fusion": protocols.FUSIONS,
        "no_query": protocols.FLATS,
        "precision": ("fp32", "bf16"),
    }
    assert {name: tuple(words) for name, words in VALUES.items() if name != "resize_elsewhere"} == choices
    assert set(BOX_RULES) == {"union", "consensus"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_describes_all_its_fields(name) -> None:
    protocol = PROTOCOLS[name]
    words = dict(describe_protocol(protocol.as_json()))
    assert len(words) == len(dataclasses.fields(Protocol))
    assert words[LABELS["name"]] == name
    assert words[LABELS["side"]] == "a square of 224 x 224 pixels"
    assert words[LABELS["threshold"]] == VALUES["threshold"][protocol.threshold]
    assert words[LABELS["fused"]] == f"{protocol.fused['av']:g} av + {protocol.fused['object']:g} object"


def test_what_has_no_words_is_shown_as_it_is() -> None:
    assert describe_protocol({"name": "x", "resize": "nearest", "depth": 3}) == [
        ("Name", "x"),
        (LABELS["resize"], "nearest"),
        ("depth", "3"),
    ]


def table(report: dict, title: str):
    (found,) = [entry for entry in report_tables(report) if entry.title.startswith(title)]
    assert {len(row) for row in found.rows} == {len(found.columns)}
    return found


def test_scores_are_in_percent_with_their_interval() -> None:
    entry = make_map([0.2, 0.6, 0.7]) | {
        "interval": {"ciou_50": [0.1234, 0.98765], "auc": [NAN, NAN]},
        "pointing": 0.125,
    }
    shown = table(make_report(maps={"av": entry}), "Maps")
    row = dict(zip(shown.columns, shown.rows[0], strict=True))
    assert row["map"] == "av"
    assert row["clips"] == "3"
    assert row["cIoU@0.5"] == ("66.67", "12.3 to 98.8")
    assert row["AUC"] == f"{100 * entry['overall']['auc']:.2f}"
    assert row["mean cIoU"] == "50.00"
    assert row["pointing"] == "12.50"
    assert "mIoU" not in row
    masked = table(make_report(maps={"av": entry | {"miou": 0.5}}), "Maps")
    assert dict(zip(masked.columns, masked.rows[0], strict=True))["mIoU"] == "50.00"


def test_a_size_without_clips_is_a_dash() -> None:
    shown = table(make_report(maps={"av": make_map([0.9])}, baselines={}), "By size")
    assert shown.rows == [["av", "0", DASH, DASH, "1", "100.00", "92.50"]]


def test_groups_and_comparisons_have_tables_of_their_own():
    protocol = {"name": "avloc"}
    means = {name: {"mean": 0.5, "std": 0.125} for name in ("ciou_50", "auc", "mean_ciou")}
    run = {"run": "seed-10", "maps": {"av": {"ciou_50": 0.375, "auc": 0.25, "mean_ciou": 0.75}}}
    block = {"maps": {"av": means}, "runs": [run]}
    runs = {"schema": "avloc.runs/1", "testset": "mine", "protocol": protocol}
    difference = {"difference": -0.25, "low": -0.5, "high": 0.125, "p": float("nan")}
    pair = {"schema": "avloc.compare/1", "a": "one", "b": "other", "n": 7, "protocol": protocol}
    pair |= {"a_selection": "test-selected", "b_selection": "last epoch"}
    pair["maps"] = {"av": dict.fromkeys(("ciou_50", "auc", "mean_ciou"), difference)}
    first, second = multi_model_tables([make_report()], [{**runs, "blocks": {"test-selected": block}}, pair])
    assert first.rows[0][:4] == ["test-selected", "mean of 1", "av", "50.00 ± 12.50"]
    assert first.rows[1] == ["test-selected", "seed-10", "av", "37.50", "25.00", "75.00"]
    assert second.rows[0][:5] == [
        "one (test-selected) - other (last epoch)",
        "avloc",
        "av",
        "7",
        ("-25.00", "-50.0 to 12.5, p –"),
    ]
    assert multi_model_tables([make_report()], []) == []


def test_the_overview_has_a_row_for_each_report_and_a_dash_for_maps_it_lacks() -> None:
    second = make_report("lvs", model="run-2", clips=make_clips(2, kinds=("av",)))
    shown = overview([make_report(), second])
    assert [row[: shown.headings] for row in shown.rows] == [
        ["run-1", DASH, "made-up", "avloc"],
        ["run-2", DASH, "made-up", "lvs"],
    ]
    assert shown.columns[5:] == [f"{kind}: {score}" for kind in KINDS for score in ("cIoU@0.5", "AUC")]
    assert shown.rows[1][7:] == [DASH] * 6
    assert DASH not in shown.rows[0][2:]


def test_every_field_of_the_other_scores_is_in_a_table() -> None:
    extended = ExtendedScores(**{field.name: 0.25 for field in dataclasses.fields(ExtendedScores)})
    kinds = {"silence": 0.5, "noise": NAN}
    negative = NegativeScores(
        **{field.name: 0.25 for field in dataclasses.fields(NegativeScores)}
        | {"threshold_rule": "max", "threshold": 0.61, "n": 7, "pia": kinds, "auc_n": kinds, "overlap": kinds}
    )
    sources = SourceScores(n_pictures=4, iiou_50=0.5, iauc=NAN, area_iiou_50=0.25, area_iauc=0.125)
    cost = [{"name": "AVC", "parameters": 24_300_111, "multiply_adds": 7_130_000_000, "frames": 554, "note": ""}]
    report = make_report(
        extended={"av": dataclasses.asdict(extended)},
        negatives={"max": dataclasses.asdict(negative)},
        sources={"av": dataclasses.asdict(sources)},
        cost=cost,
    )
    assert table(report, "Sounding").rows == [["av", *["25.00"] * 8]]
    wrong = {row[0]: row[1] for row in table(report, "Wrong sounds").rows}
    assert (wrong["threshold"], wrong["clips"], wrong["pIA, silence"], wrong["pIA, noise"]) == (
        "0.6100",
        "7",
        "50.00",
        DASH,
    )
    assert len(wrong) == len(dataclasses.fields(NegativeScores)) - 1 - 3 + 3 * len(kinds)
    assert table(report, "Several").rows == [["av", "4", "50.00", DASH, "25.00", "12.50"]]
    narrow = "\u202f"
    assert table(report, "Cost").rows == [
        [
            "AVC",
            ("24.30 M", f"24{narrow}300{narrow}111"),
            ("7.13 G", f"7{narrow}130{narrow}000{narrow}000"),
            "554",
            DASH,
        ]
    ]


@given(st.floats(0, 1))
def test_percent_is_a_hundred_times_the_share(share) -> None:
    assert abs(float(percent(share)) - 100 * share) <= 0.005 + 1e-9
    assert percent(None) == percent(NAN) == DASH
