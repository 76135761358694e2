"""Decode a video to RGB and encode it again: `python -m tests.bench.copy_run SOURCE OUT`.

One frame after the other, as a script with PyAV does it; the decoder and the encoder have threads of their own. The
sound is copied.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av

from avloc.media.video_writer import CODEC_OPTIONS, video_codec


def copy(source: Path, out: Path) -> None:
    """Write the frames of `source` to an MP4 with the codec settings of `avloc localize`."""
    with av.open(str(source)) as container, av.open(str(out), "w", format="mp4") as written:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.thread_type = "AUTO"
        codec = video_codec()
        encoder = written.add_stream(codec, rate=video.average_rate, options=CODEC_OPTIONS[codec])
        encoder.width, encoder.height, encoder.pix_fmt = video.width, video.height, "yuv420p"
        encoder.codec_context.thread_type = "FRAME"
        sound = written.add_stream_from_template(audio)
        for packet in container.demux(video, audio):
            if packet.stream is audio:
                if packet.dts is not None:
                    packet.stream = sound
                    written.mux(packet)
                continue
            for frame in packet.decode():
                picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
                picture.pts, picture.time_base = frame.pts, frame.time_base
                written.mux(encoder.encode(picture))
        written.mux(encoder.encode(None))


if __name__ == "__main__":
    copy(*map(Path, sys.argv[1:]))
