"""Files with several audio tracks."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from avloc.media.audio import read_sound
from tests.json_output import json_lines
from tests.timed_video import RATE, film, loud_span


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory) -> Path:
    """The first track is silent, the second is not."""
    folder = tmp_path_factory.mktemp("tracks")
    quiet = film(folder / "quiet.mkv", sound=np.zeros(4 * RATE, np.float32))
    loud = film(folder / "loud.mkv")
    out = folder / "both.mkv"
    with av.open(str(quiet)) as one, av.open(str(loud)) as other, av.open(str(out), "w") as target:
        streams = [*one.streams, other.streams.audio[0]]
        copies = [target.add_stream_from_template(stream) for stream in streams]
        copies[1].disposition = av.stream.Disposition.default
        copies[2].metadata["language"] = "deu"
        packets = []
        for index, (container, stream) in enumerate(((one, streams[0]), (one, streams[1]), (other, streams[2]))):
            container.seek(0)
            packets += [(index, packet) for packet in container.demux(stream) if packet.size]
        for index, packet in sorted(packets, key=lambda pair: float(pair[1].dts * pair[1].time_base)):
            packet.stream = copies[index]
            target.mux(packet)
    return out


def test_other_audio_tracks_are_listed_and_selectable(here, model, two_tracks, tmp_path):
    done = here("localize", two_tracks, "--model", model, "--json")
    assert json_lines(done.out)[0]["silent"] is True
    assert "has 2 sound tracks: 1 (aac, mono) is used, not 2 (deu, aac, mono); --track chooses" in done.err
    done = here("localize", two_tracks, "--model", model, "--json", "--track", "2")
    assert json_lines(done.out)[0]["silent"] is False
    assert "sound tracks" not in done.err
    done = here("localize", two_tracks, "--model", model, "--json", "--track", "3")
    assert "has no sound track 3; it has 2" in done.err
    assert here("localize", two_tracks, "--model", model, "--track", "0").code == 2
    done = here("localize", two_tracks, "--model", model, "--track", "2", "--out", tmp_path / "h.mp4")
    assert done.code == 0, done.err
    assert loud_span(read_sound(tmp_path / "h.mp4", seconds=1, centre_s=2.2))[0] == pytest.approx(2.0, abs=0.05)


def test_prepare_lists_and_selects_tracks(here, two_tracks, tmp_path):
    from avloc.store import Store

    done = here("prepare", two_tracks, "--out", tmp_path / "main", "--workers", "1")
    assert "has 2 sound tracks" in done.err
    assert Store(tmp_path / "main").read("both").flags == ("silent",)
    done = here("prepare", two_tracks, "--out", tmp_path / "second", "--workers", "1", "--track", "2")
    assert "sound tracks" not in done.err
    assert Store(tmp_path / "second").read("both").flags == ()
    done = here("prepare", two_tracks, "--out", tmp_path / "second", "--workers", "1")
    assert done.code == 5
    assert "sound track (2 stored, main requested)" in done.err
