"""A video file to its frames, through PyAV; containers that point to other files or addresses are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from gastrovl.core.errors import MissingExtraError, SourceError
from gastrovl.core.images import MAX_PIXELS
from gastrovl.data.frames.frame import Frame

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")
# Demuxers that read one file only. FFmpeg also knows play lists (HLS, concat, DASH), which open whatever they name.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,h264,hevc"


def video_frames(path: Path) -> Iterator[Frame]:
    """All frames of a video file in the order they are shown, as RGB.

    Raises:
        SourceError: It is no video, is broken, or has frames of more than MAX_PIXELS.
        MissingExtraError: PyAV is not installed.
    """
    with path.open("rb") as stream:
        yield from stream_frames(stream, str(path))


def stream_frames(stream: BinaryIO, where: str) -> Iterator[Frame]:
    """As `video_frames`, of a stream that can be rewound; `where` opens every message."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            f'{where}: reading videos needs the library av; install it with `pip install "gastrovl[video]"`'
        ) from error
    number, start = 0, None
    try:
        with av.open(stream, "r", options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}) as video:
            if not video.streams.video:
                raise SourceError(f"{where}: holds no pictures, only sound or data; choose another file")
            for picture in video.decode(video=0):
                if picture.width * picture.height > MAX_PIXELS:
                    raise SourceError(
                        f"{where}: frames of {picture.width} x {picture.height} px, more than {MAX_PIXELS:,} pixels; "
                        "scale the video down first if it is genuine"
                    )
                start = picture.time if start is None else start
                seconds = None if picture.time is None or start is None else float(picture.time - start)
                yield Frame(number, seconds, Image.fromarray(picture.to_ndarray(format="rgb24")))
                number += 1
    except (av.FFmpegError, ValueError, OSError) as error:  # an empty file is an OSError of its own
        raise SourceError(
            f"{where}: cannot be decoded after {number} frames ({error}); expected a whole video file. Copy it again, "
            "or convert it to MP4"
        ) from error
    if number == 0:
        raise SourceError(f"{where}: holds no frame that can be decoded; copy it again, or convert it to MP4")
