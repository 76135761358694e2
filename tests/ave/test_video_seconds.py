"""Reading a video second by second."""

from __future__ import annotations

import numpy as np
import pytest

from avloc.ave.video_seconds import read_first_seconds, sound_by_second
from avloc.errors import InputError
from tests.media_makers import make_video, tone

RATE = 16_000


def test_the_first_seconds_are_padded_with_silence_and_not_tiled(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=4.0, sound=tone(2.0, RATE), rate=RATE)
    moment = read_first_seconds(path, seconds=4.0, rate=RATE)
    loudness = np.abs(moment.sound.waveform.reshape(4, RATE)).max(1)
    assert (loudness > 0.1).tolist() == [True, True, False, False]
    assert (moment.sound.start_s, moment.sound.end_s, moment.sound.short) == (0.0, 4.0, False)
    with pytest.raises(InputError, match=r"lasts 4.0 s; events are labelled for 5 s"):
        read_first_seconds(path, seconds=5.0, rate=RATE)


def test_less_than_a_second_of_audio_is_an_error(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=10.0, sound=tone(0.5, RATE), rate=RATE)
    with pytest.raises(InputError, match="less than a second of sound"):
        list(sound_by_second(path, 4, RATE))
