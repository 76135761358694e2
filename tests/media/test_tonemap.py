"""HDR video is tone-mapped to match its SDR version, and overlay videos are tagged SDR."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from avloc.media.colour_space import to_rgb
from avloc.media.tonemap import BT709, HLG, PEAK, PQ, REFERENCE_WHITE, light_to_signal, to_sdr, tone_gain
from avloc.media.video_frames import read_frame
from tests.media_makers import disc, hdr_frame, make_hdr_video, tone

BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""ITU-R BT.2087."""


def pq_signal(nits) -> np.ndarray:
    """SMPTE ST 2084: cd/m2 to signal."""
    power = (np.asarray(nits, float) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def pq_light(signal) -> np.ndarray:
    """SMPTE ST 2084: signal to cd/m2."""
    power = np.asarray(signal, float) ** (1 / 78.84375)
    return 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)


def in_pq(sdr: np.ndarray) -> np.ndarray:
    """Encode an SDR picture as PQ, with its white at reference white."""
    return pq_signal(REFERENCE_WHITE * (sdr / 255) ** 2.4 @ BT709_TO_BT2020.T)


# --- comparison with FFmpeg -------------------------------------------------------------------------------------

GREYS = [0.05, 1, 10, 26, 50, 100, 150, 203, 400, 1000]
PQ_NITS = [(grey, grey, grey) for grey in GREYS] + [
    *[(120, 20, 10), (20, 120, 20), (10, 20, 120), (203, 180, 20), (40, 150, 160)],
    *[(90, 60, 45), (800, 100, 50), (60, 700, 100), (50, 80, 900), (600, 500, 400)],
]
HLG_SIGNALS = [(grey, grey, grey) for grey in (0.05, 0.2, 0.38, 0.5, 0.6, 0.7, 0.75, 0.85, 0.95, 1)] + [
    *[(0.6, 0.3, 0.2), (0.3, 0.6, 0.3), (0.2, 0.3, 0.6), (0.75, 0.7, 0.3), (0.4, 0.65, 0.65)],
    *[(0.55, 0.5, 0.45), (0.95, 0.6, 0.5), (0.5, 0.9, 0.6), (0.45, 0.5, 0.95), (0.9, 0.88, 0.8)],
]
# Output of FFmpeg 5.1.9 (Debian 12) for `patches`, written by `make_hdr_video`; the middle pixel of each patch of
#   ffmpeg -i patches.mkv -vf "zscale=transfer=linear:npl=203:agamma=0,format=gbrpf32le,zscale=primaries=bt709,
#   tonemap=mobius:param=0.55:peak=4.926108:desat=0,zscale=transfer=bt709:matrix=gbr:range=full:agamma=0,format=gbrp,
#   format=rgb24" -f rawvideo -
PQ_IN_FFMPEG = [(level, level, level) for level in (8, 28, 73, 108, 142, 190, 218, 231, 246, 255)] + [
    *[(228, 60, 58), (0, 211, 71), (0, 97, 210), (235, 212, 21), (0, 222, 222)],
    *[(199, 150, 134), (255, 38, 55), (0, 253, 73), (0, 88, 255), (252, 220, 200)],
]
HLG_IN_FFMPEG = [(level, level, level) for level in (14, 57, 109, 143, 177, 218, 231, 246, 253, 255)] + [
    *[(197, 73, 56), (0, 180, 80), (0, 88, 164), (235, 194, 51), (0, 203, 197)],
    *[(165, 142, 130), (255, 68, 77), (0, 250, 107), (34, 94, 250), (251, 230, 189)],
]


def patches(signals) -> np.ndarray:
    """A row of 16-pixel squares."""
    return np.asarray(signals, float).repeat(16, axis=0)[None].repeat(16, axis=0)


@pytest.mark.parametrize(
    ("transfer", "signals", "expected"),
    [(PQ, pq_signal(PQ_NITS), PQ_IN_FFMPEG), (HLG, HLG_SIGNALS, HLG_IN_FFMPEG)],
    ids=["pq", "hlg"],
)
def test_patches_match_ffmpeg_within_one_level(tmp_path, transfer, signals, expected):
    shown, _ = read_frame(make_hdr_video(tmp_path / "patches.mkv", patches(signals), transfer))
    np.testing.assert_allclose(shown[8, 8::16].astype(int), expected, atol=1)


def test_greys_are_within_four_levels_of_bt2390():
    light = np.linspace(0, PEAK, 2000)
    top, white = pq_signal(1000), pq_signal(REFERENCE_WHITE) / pq_signal(1000)
    knee = 1.5 * white - 0.5
    signal = pq_signal(light * REFERENCE_WHITE) / top
    t = (signal - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * white
    expected = 255 * (pq_light(np.where(signal < knee, signal, spline) * top) / REFERENCE_WHITE) ** (1 / 2.4)
    shown = light_to_signal(light * tone_gain(light))
    np.testing.assert_allclose(shown.astype(int), expected.round(), atol=4)


# --- properties of the curve------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_greys_stay_grey_and_grow_from_black_to_white(transfer):
    signal = np.arange(1 << 16, dtype=np.uint16)[None, :, None].repeat(3, axis=2)
    shown = to_sdr(signal, transfer=transfer, primaries=9, white=65_535)[0].astype(int)
    assert np.ptp(shown, axis=1).max() <= 1
    assert np.diff(shown[:, 0]).min() >= 0
    assert (shown[0, 0], shown[-1, 0]) == (0, 255)
    assert np.diff(shown[:, 0]).max() <= 1


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_channels_keep_their_order_at_any_brightness(transfer):
    signal = np.random.default_rng(0).integers(0, 1 << 16, (200, 300, 3), dtype=np.uint16)
    shown = to_sdr(signal, transfer=transfer, primaries=BT709, white=65_535)
    in_order = np.take_along_axis(shown.astype(int), signal.argsort(axis=2), axis=2)
    assert np.diff(in_order, axis=2).min() >= 0
    bright = signal.max(axis=2) > 50_000
    assert shown.max(axis=2)[bright].min() > 200


def test_light_above_the_peak_keeps_its_hue():
    nits = np.array([[[2000, 1000, 500], [10_000, 5000, 2500]]])
    signal = np.round(65_535 * pq_signal(nits)).astype(np.uint16)
    beyond, far_beyond = to_sdr(signal, transfer=PQ, primaries=BT709, white=65_535)[0].astype(int)
    assert beyond[0] == far_beyond[0] == 255
    assert np.abs(beyond - far_beyond).max() <= 1


@pytest.mark.parametrize(
    ("primaries", "from_bt709"),
    [
        (1, np.eye(3)),
        (9, BT709_TO_BT2020),
        (12, [[0.8225, 0.1775, 0.0], [0.0332, 0.9668, 0.0], [0.0171, 0.0724, 0.9105]]),
    ],
    ids=["bt709", "bt2020", "p3"],
)
def test_primaries_are_those_of_the_file(primaries, from_bt709):
    light = np.array([[(100, 20, 10), (30, 90, 20), (20, 30, 80), (70, 60, 50)]])
    signal = np.round(65_535 * pq_signal(light @ np.transpose(from_bt709))).astype(np.uint16)
    shown = to_sdr(signal, transfer=PQ, primaries=primaries, white=65_535).astype(int)
    np.testing.assert_allclose(shown, 255 * (light / REFERENCE_WHITE) ** (1 / 2.4), atol=1)


def test_reference_white_is_one_level_in_pq_and_hlg_and_near_white():
    levels = [
        to_rgb(hdr_frame(np.full((16, 16, 3), signal), transfer), VideoReformatter())[8, 8]
        for signal, transfer in ((pq_signal(203), PQ), (0.75, HLG))
    ]
    assert np.abs(np.diff(np.array(levels, int), axis=0)).max() <= 1
    assert np.min(levels) >= 225


# --- frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        {"pix_fmt": "yuv420p10le"},
        {"matrix": 2},
        {"full": True},
        {"full": True, "pix_fmt": "yuv420p10le"},
        {"pix_fmt": "gbrp10le"},
    ],
    ids=str,
)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_result_does_not_depend_on_the_pixel_format(transfer, kind):
    signal = patches(pq_signal(PQ_NITS) if transfer == PQ else HLG_SIGNALS)
    expected = to_rgb(hdr_frame(signal, transfer), VideoReformatter())[8, 8::16].astype(int)
    shown = to_rgb(hdr_frame(signal, transfer, **kind), VideoReformatter())[8, 8::16]
    np.testing.assert_allclose(shown, expected, atol=3)


@pytest.mark.parametrize("transfer", [1, 2, 6, 13, 14, 15])
def test_other_transfers_are_not_tone_mapped(transfer):
    frame = hdr_frame(patches(HLG_SIGNALS), transfer)
    plain = VideoReformatter().reformat(frame, format="rgb24").to_ndarray()
    np.testing.assert_array_equal(to_rgb(frame, VideoReformatter()), plain)


# --- files ------------------------------------------------------------------------------------------------------


def sdr_picture() -> np.ndarray:
    """A disc on grey next to a ramp from black to white."""
    picture = disc((128, 96), (0.5, 0.4), colour=(180, 60, 50))
    picture[80:] = np.linspace(0, 255, 128).round().astype(np.uint8)[None, :, None]
    return picture


CODECS = [
    ("libx264", {"crf": "4"}, "mkv"),
    ("libx265", {"crf": "4", "x265-params": "log-level=none"}, "mp4"),
    ("ffv1", {}, "mkv"),
]


@pytest.mark.parametrize(("codec", "options", "ending"), CODECS)
def test_a_pq_video_looks_like_its_sdr_version(tmp_path, codec, options, ending):
    sdr = sdr_picture()
    source = make_hdr_video(
        tmp_path / f"in.{ending}", in_pq(sdr), PQ, codec=codec, options=options, pix_fmt="yuv420p10le"
    )
    shown = read_frame(source)[0].astype(int)
    inner = (slice(2, 76), slice(2, 126))  # chroma of 4:2:0 bleeds over edges
    assert np.median(np.abs(shown - sdr)[inner]) <= 1
    assert np.abs(shown - sdr)[inner].mean() < 2
    assert np.abs(shown[40, 64] - sdr[40, 64]).max() <= 3
    ramp, original = shown[90, :, 0], sdr[90, :, 0].astype(int)
    dark = original < 190
    np.testing.assert_allclose(ramp[dark], original[dark], atol=3)
    assert (original - ramp).max() <= 26


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_overlay_video_of_hdr_is_tagged_sdr(here, model, tmp_path, transfer):
    signal = in_pq(sdr_picture()) if transfer == PQ else np.full((96, 128, 3), 0.6)
    source = make_hdr_video(
        tmp_path / "in.mkv", signal, transfer, codec="libx264", pix_fmt="yuv420p10le", sound=tone(1, 22_050)
    )
    plain = [part for style in ("opacity=0", "contour=0", "peak=off", "caption=off") for part in ("--style", style)]
    assert here("localize", source, "--model", model, "--out", tmp_path / "out.mp4", *plain).code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
    assert tags == (1, 1, 1, 1)
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
    assert frame.format.name == "yuv420p"
    drawn = read_frame(tmp_path / "out.mp4")[0].astype(int)
    assert np.abs(drawn - read_frame(source)[0]).mean() < 3
