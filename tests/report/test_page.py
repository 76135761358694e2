"""The page of a report in a real browser: Debian's chromium and chromium-driver, steered by selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from avloc.report import write_report
from tests.media_makers import disc
from tests.report_makers import ABOUT, KINDS, LABELS, encoded, make_clips, make_picture, make_report

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[dev]'")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.browser import PROGRAMS, Browser

ABSENT = [name for name, path in PROGRAMS.items() if path is None]
pytestmark = pytest.mark.skipif(
    bool(ABSENT), reason=f"no {' and no '.join(ABSENT)} here: apt-get install chromium chromium-driver"
)

N = 120
PICTURED = ("clip-000", "clip-001", "clip-002", "clip-005")
CRAFTED = "<img src=x onerror=window.hit=1>\"'</script><script>window.hit=1</script>\u2028\udcff"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture(scope="module")
def clips() -> list[dict]:
    return make_clips(N, seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clips) -> Path:
    """Two models under two protocols; the page alone, without the files it was written with."""
    reports = [
        make_report("avloc", clips=clips),
        make_report("sspl", clips=make_clips(3)),
        make_report("avloc", model="run-2", clips=make_clips(N, seed=8)),
    ]
    written = tmp_path_factory.mktemp("written")
    write_report(written, ABOUT, reports, [make_picture(name, models=("run-1", "run-2")) for name in PICTURED])
    alone = tmp_path_factory.mktemp("alone")
    shutil.copy(written / "index.html", alone)
    return alone


@pytest.fixture
def page(chromium, folder) -> Iterator[Browser]:
    chromium.open(folder)
    yield chromium
    assert chromium.messages() == []


def open_page(chromium: Browser, folder: Path, reports, pictures=(), about=ABOUT) -> Browser:
    write_report(folder, about, reports, pictures)
    chromium.open(folder)
    return chromium


# --- loading


def test_the_page_loads_without_network(page) -> None:
    page.painted()
    requests = page.requests()
    assert len(requests) > 1  # the pictures are there
    assert {url.partition(":")[0] for url in requests} == {"file", "data"}
    assert [url for url in requests if url.startswith("file:")] == [page.driver.current_url]


def test_the_page_forbids_itself_the_network_and_foreign_scripts(chromium, folder) -> None:
    chromium.open(folder)
    script = """
        const done = arguments[0], blocked = [];
        document.addEventListener("securitypolicyviolation", (event) => {
          if (blocked.push(event.effectiveDirective) === 3) done(blocked.sort());
        });
        new Image().src = "https://example.org/pixel.png";
        fetch("https://example.org/").catch(() => {});
        const script = document.createElement("script");
        script.textContent = "window.hit = 1";
        document.body.append(script);
    """
    assert chromium.driver.execute_async_script(script) == ["connect-src", "img-src", "script-src-elem"]
    assert chromium.run("return window.hit") is None


def test_names_from_strangers_are_text(chromium, tmp_path) -> None:
    rows = make_clips(3, kinds=("av",))
    clips = [
        {**clip, "id": f"{CRAFTED}{place}", "label": CRAFTED, "flags": [CRAFTED]} for place, clip in enumerate(rows)
    ]
    names = {"testset": CRAFTED, "model": CRAFTED, "model_hash": CRAFTED, "missing": {CRAFTED: CRAFTED}}
    reports = [
        make_report(name, clips=clips, **names, not_run={CRAFTED: CRAFTED}, model_card={CRAFTED: CRAFTED})
        for name in ("avloc", "lvs")
    ]
    heats = {CRAFTED: {"av": np.zeros((4, 4), np.uint8)}}
    page = open_page(chromium, tmp_path, reports, [make_picture(f"{CRAFTED}0", heats=heats)], {CRAFTED: CRAFTED})
    page.painted()
    assert page.run("return window.hit") is None
    assert page.run("return [document.images.length, document.scripts.length]") == [0, 3]  # data, picture, script
    for selector in (
        "#title",
        "#missing-list summary",
        "#missing-list li",
        "#not-run li",
        "#card-list dt",
        "#about-list dd",
    ):
        assert CRAFTED in page.texts(selector)[0]
    assert page.shown() == [f"{CRAFTED}0"]
    assert page.texts("#filter-label option")[1] == CRAFTED
    assert page.texts(".clip header span")[1::2] == [CRAFTED, CRAFTED]
    assert page.messages() == []


def test_every_control_has_an_accessible_name(page) -> None:
    controls = page.driver.find_elements(By.CSS_SELECTOR, "select, input, button")
    assert len(controls) == 15
    assert [control.get_attribute("id") for control in controls if not control.accessible_name.strip()] == []
    page.painted()
    names = page.run("return [...document.querySelectorAll('.clip canvas')].map((c) => c.getAttribute('aria-label'))")
    assert len(names) == len(PICTURED) * (1 + len(KINDS))
    assert all(
        name.startswith(("Frame and truth of clip-", *(f"{kind} map of clip-" for kind in KINDS))) for name in names
    )


# --- order and filters


def expected_order(clips, kind: str, direction: str) -> list[str]:
    if direction == "id":
        return sorted(clip["id"] for clip in clips)
    sign = -1 if direction == "down" else 1
    return [clip["id"] for clip in sorted(clips, key=lambda clip: (sign * clip["scores"][kind]["ciou"], clip["id"]))]


@pytest.mark.parametrize("direction", ["down", "up", "id"])
@pytest.mark.parametrize("kind", KINDS)
def test_clips_are_sorted_by_the_chosen_map(page, clips, kind, direction) -> None:
    page.tick("with-pictures", on=False)
    page.choose("sort-map", kind)
    page.choose("sort-direction", direction)
    order = expected_order(clips, kind, direction)
    assert page.shown() == order[:50]
    page.find("next").click()
    assert page.shown() == order[50:100]
    page.find("next").click()
    assert page.shown() == order[100:]
    assert not page.find("next").is_enabled()
    assert page.find("count").text == f"101 to {N} of {N} clips ({N} scored)"
    page.find("previous").click()
    assert page.shown() == order[50:100]


def test_equal_scores_stand_by_id_and_clips_without_a_score_come_last(chromium, tmp_path) -> None:
    clips = make_clips(6)
    for clip in clips[:4]:
        clip["scores"]["av"]["ciou"] = 0.5
    del clips[5]["scores"]["av"], clips[4]["scores"]["av"]
    page = open_page(chromium, tmp_path, [make_report(clips=clips[::-1], maps={})])
    for direction in ("down", "up"):
        page.choose("sort-direction", direction)
        assert page.shown() == [f"clip-{place:03}" for place in range(6)]


def outcome_of(score) -> int:
    return 0 if score["ciou"] >= 0.5 else 1 if score["hit"] else 2


@pytest.mark.parametrize("label", ["every", f"= {LABELS[1]}"])
@pytest.mark.parametrize("size", ["every", "huge"])
def test_filters_leave_what_they_should(page, clips, label, size) -> None:
    page.choose("sort-map", "fused")
    page.choose("sort-direction", "id")
    page.choose("filter-label", label)
    page.choose("filter-size", size)
    for outcome, text, pictured in product(("every", "0", "1", "2"), ("", "P-00", "no such clip"), (False, True)):
        page.choose("filter-outcome", outcome)
        page.search(text)
        page.tick("with-pictures", on=pictured)
        left = [
            clip["id"]
            for clip in clips
            if label in ("every", f"= {clip['label']}")
            and size in ("every", clip["size"])
            and outcome in ("every", str(outcome_of(clip["scores"]["fused"])))
            and text.lower() in clip["id"]
            and (not pictured or clip["id"] in PICTURED)
        ]
        assert page.shown() == left[:50]
        assert page.find("count").text.partition("of ")[2 if left else 0].startswith(f"{len(left)} clips")


def test_outcomes_are_counted_in_their_filter(page, clips) -> None:
    page.tick("with-pictures", on=False)
    page.choose("sort-map", "object")
    outcomes = [outcome_of(clip["scores"]["object"]) for clip in clips]
    texts = [option.text for option in Select(page.find("filter-outcome")).options]
    assert texts == [
        f"every outcome ({N})",
        *(f"{name} ({outcomes.count(place)})" for place, name in enumerate(("found", "peak inside", "elsewhere"))),
    ]


# --- choice of model and protocol


def test_another_model_and_protocol_change_all_there_is(page, clips) -> None:
    def first_score() -> str:
        return page.run("return document.querySelector('#tables td:nth-of-type(2)').firstChild.textContent")

    shown = [
        f"{100 * np.mean([clip['scores']['av']['ciou'] >= 0.5 for clip in some]):.2f}"
        for some in (clips, make_clips(3), make_clips(N, seed=8))
    ]
    assert len(set(shown)) == 3
    assert first_score() == shown[0]
    assert "the median of the map" in page.find("rule-list").text
    page.choose("shown-protocol", "1")
    assert first_score() == shown[1]
    assert "0.5, half of the range" in page.find("rule-list").text
    assert page.find("threshold-value").text == "half"
    assert page.find("count").text.endswith("(3 scored)")
    Select(page.find("shown-model")).select_by_index(1)
    assert first_score() == shown[2]
    assert [option.text for option in Select(page.find("shown-protocol")).options] == ["avloc"]
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#overview tbody tr")) == 3


def test_one_report_offers_no_choice(chromium, tmp_path) -> None:
    page = open_page(chromium, tmp_path, [make_report()])
    assert not page.find("choice").is_displayed()
    assert not page.find("overview").text
    assert [item.text for item in page.driver.find_elements(By.CSS_SELECTOR, "#missing-list li")] == [
        "gone-1",
        "gone-2",
    ]
    assert page.find("not-run").text == "fused-detr was not run: weights absent"


def test_a_report_without_scores_states_it(chromium, tmp_path) -> None:
    nothing = make_report(clips=[], maps={}, baselines={}, sweep={}, missing={}, model="")
    page = open_page(chromium, tmp_path, [nothing])
    assert page.find("curves-plot").text == "No clip was scored."
    assert page.find("missing-list").text == "None: every expected clip was scored."
    assert page.find("count").text == "0 clips (0 scored)"
    assert page.messages() == []


def test_the_curves_pass_through_their_points(page, clips) -> None:
    drawn = "[...document.querySelectorAll('.curves polyline')]"
    lines = page.run(f"return {drawn}.map((line) => [line.textContent, line.getAttribute('points')])")
    assert [name for name, _ in lines] == [*KINDS, "centre disc", "ceiling"]
    points = np.array([[float(value) for value in point.split(",")] for point in lines[0][1].split()])
    cious = np.array([clip["scores"]["av"]["ciou"] for clip in clips])
    share = np.array([np.mean(cious >= 0.05 * step) for step in range(21)])
    left, right, bottom, top = page.run("return [acrossPlot(0), acrossPlot(1), upPlot(0), upPlot(1)]")
    np.testing.assert_allclose((points[:, 0] - left) / (right - left), np.linspace(0, 1, 21), atol=2e-4)
    np.testing.assert_allclose((points[:, 1] - bottom) / (top - bottom), share, atol=4e-4)


# --- pictures


def test_only_what_is_near_the_window_is_painted(chromium, tmp_path) -> None:
    clips = make_clips(60)
    page = open_page(chromium, tmp_path, [make_report(clips=clips)], [make_picture(clip["id"]) for clip in clips])
    page.find("clips").location_once_scrolled_into_view  # noqa: B018 (scrolls)
    page.painted(0)
    assert 0 < page.run("return gallery.seen.size") < 25
    assert not page.run("return document.querySelectorAll('.clip')[49].querySelector('figure').dataset.painted")
    page.painted(49)
    page.find("next").click()
    assert len(page.painted(9)) == 1 + len(KINDS)


def test_the_slider_redraws_the_maps_and_its_button_goes_back(page) -> None:
    own = page.painted()
    assert len(set(own)) == 1 + len(KINDS)
    painted = [own]
    for value in (0.1, 0.55, 0.9):
        page.slide(value)
        assert page.find("threshold-value").text == f"{value:.2f}"
        painted.append(page.painted(state=str(value)))
    assert {pictures[0] for pictures in painted} == {own[0]}  # the frame stays
    for place in range(1, 1 + len(KINDS)):
        assert len({pictures[place] for pictures in painted}) == 4
    page.find("threshold-rule").click()
    assert page.painted() == own
    assert page.find("threshold-value").text == "median"
    assert not page.find("threshold-rule").is_enabled()


def test_the_slider_obeys_the_keyboard(page) -> None:
    page.painted()
    page.find("threshold").send_keys(Keys.ARROW_RIGHT)
    page.painted(state="0.51")
    page.find("threshold").send_keys(Keys.HOME)
    page.painted(state="0")


def test_mask_and_truth_can_be_shown_and_hidden(page) -> None:
    with_mask = page.painted()
    page.find("with-mask").click()
    without = page.painted()
    page.find("with-truth").click()
    with_truth = page.painted()
    for place in range(1, 1 + len(KINDS)):
        assert len({with_mask[place], without[place], with_truth[place]}) == 3
    assert with_mask[0] == without[0] == with_truth[0]


def green(page: Browser, figure: int) -> np.ndarray:
    """[rows, columns] where a canvas of the first clip has the colour of the truth."""
    script = """
        const canvas = document.querySelectorAll(".clip canvas")[arguments[0]];
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [canvas.width, canvas.height, [...data]];
    """
    width, height, data = page.run(script, figure)
    red, greens, blue = np.moveaxis(np.array(data).reshape(height, width, 4)[..., :3], 2, 0)
    return (greens > 200) & (red < 150) & (blue < 190)


@pytest.mark.parametrize("kind", ["boxes", "mask"])
def test_the_truth_stands_where_it_is(chromium, tmp_path, kind) -> None:
    mask = np.zeros((64, 96, 3), np.uint8)
    mask[16:48, 24:72] = 1  # barely not black is inside too
    box = np.array([[0.25, 0.25, 0.75, 0.75]])
    truth = {"boxes": box} if kind == "boxes" else {"boxes": box[:0], "mask_png": encoded(mask, "PNG")}
    page = open_page(chromium, tmp_path, [make_report(clips=make_clips(1))], [make_picture("clip-000", **truth)])
    page.painted()
    rows, columns = np.nonzero(green(page, 0))
    height, width = green(page, 0).shape
    found = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
    np.testing.assert_allclose(found, box[0], atol=2 / height)
    assert not green(page, 1).any()


def test_a_missing_or_broken_picture_is_labelled(chromium, tmp_path) -> None:
    whole = encoded(disc((96, 64), (0.5, 0.5)))
    pictures = [
        make_picture("clip-000", jpeg=b"no picture at all"),
        make_picture("clip-001", heats={"other": {}}, jpeg=whole),
    ]
    page = open_page(chromium, tmp_path, [make_report(clips=make_clips(3))], pictures)
    page.tick("with-pictures", on=False)
    page.choose("sort-direction", "id")
    page.wait("document.querySelectorAll('figure[data-painted]').length === 10")
    texts = [
        [node.text for node in clip.find_elements(By.CSS_SELECTOR, ".absent")]
        for clip in page.driver.find_elements(By.CLASS_NAME, "clip")
    ]
    assert texts == [["the picture cannot be shown"] * 5, ["no map"] * 4, ["no picture in this report"]]
    assert page.messages() == []


def test_the_colours_are_those_of_localize(page) -> None:
    ours = np.array(page.run("return palette"))
    theirs = 255 * mpl.colormaps["inferno"](np.arange(256))[:, :3]
    assert np.abs(ours - theirs).max() < 7


def grown_slowly(heat: np.ndarray, columns: int, rows: int) -> np.ndarray:
    out = np.zeros((rows, columns))
    for y, x in product(range(rows), range(columns)):
        v = min(max((y + 0.5) * heat.shape[0] / rows - 0.5, 0), heat.shape[0] - 1)
        u = min(max((x + 0.5) * heat.shape[1] / columns - 0.5, 0), heat.shape[1] - 1)
        for j, i in product(range(heat.shape[0]), range(heat.shape[1])):
            out[y, x] += max(0, 1 - abs(v - j)) * max(0, 1 - abs(u - i)) * heat[j, i]
    return out


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (6, 9)])
@pytest.mark.parametrize("size", [(13, 8), (3, 20)])
def test_maps_are_grown_like_their_slow_twin(page, shape, size) -> None:
    heat = np.random.default_rng(0).random(shape)
    small = {"width": shape[1], "height": shape[0], "heats": heat.ravel().tolist()}
    grown = np.array(page.run("return [...growHeat(...arguments)]", small, *size)).reshape(size[::-1])
    np.testing.assert_allclose(grown, grown_slowly(heat, *size), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_levels_and_the_rule_of_the_protocol_are_read_right(page, dtype) -> None:
    picture = make_picture("clip-000").heats["run-1"]["av"]
    levels = picture if dtype == np.uint16 else (picture >> 8).astype(np.uint8)
    (_, ((_, stored),)) = make_picture("x", heats={"m": {"av": levels}}).as_json()["heats"][0]
    script = """
        const heat = decodeHeat(arguments[0]);
        const thresholds = [["median", null], ["half", null], ["half", 0.3]];
        return [[...heat.heats], ...thresholds.map(([rule, fixed]) => maskThreshold(heat, rule, fixed))];
    """
    heats, median, half, fixed = page.run(script, stored)
    shares = (levels / np.iinfo(dtype).max).astype(np.float32)
    np.testing.assert_array_equal(np.array(heats, np.float32), shares.ravel())
    assert np.float32(median) == np.sort(shares, axis=None)[shares.size // 2]
    assert (shares >= np.float32(median)).mean() >= 0.5
    assert (half, fixed) == (0.5, 0.3)


# --- looks


@pytest.mark.parametrize("width", [800, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_has_contrast(page, width, scheme) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.painted()
        assert page.run("return document.documentElement.scrollWidth") <= width
        script = """
            const style = getComputedStyle(document.documentElement);
            return arguments[0].map((name) => style.getPropertyValue(`--${name}`).trim());
        """
        names = ("paper", "ink", "quiet", "accent", "good", "middle", "bad")
        paper, *inks = (luminance(colour) for colour in page.run(script, names))
        assert (paper > 0.5) == (scheme == "light")
        assert min((max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) for ink in inks) >= 4.5  # WCAG AA
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, by WCAG 2."""
    levels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
