"""Valid and damaged clips, a store, and a folder with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media_makers import make_video, tone
from tests.synthetic_scenes import write_store

RATE = 22_050


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "store", 3, hints=True)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """One valid clip and one for each kind of defect."""
    folder = tmp_path_factory.mktemp("media") / "media"
    folder.mkdir()
    good = make_video(folder / "good.mp4", seconds=3, fps=5, sound=tone(3, RATE), rate=RATE)
    data = good.read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    make_video(folder / "no-sound.mp4", seconds=3, fps=5)
    with_sound_only = make_video(folder / "no-picture.mkv", seconds=3, fps=5, sound=tone(3, RATE), rate=RATE)
    remove_pictures(with_sound_only)
    return folder


def remove_pictures(path: Path) -> None:
    import av

    whole = path.with_suffix(".whole.mkv")
    path.rename(whole)
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole.unlink()


@pytest.fixture
def at_home(tmp_path, monkeypatch, media, store, model) -> Path:
    """A working folder with good.mp4, store/ and small.safetensors."""
    home = tmp_path / "home"
    home.mkdir()
    for path in (media / "good.mp4", store, model):
        (home / path.name).symlink_to(path)
    monkeypatch.chdir(home)
    return home
