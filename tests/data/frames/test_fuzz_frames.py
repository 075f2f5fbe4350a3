"""Whatever lies in a folder of videos and DICOM files, it ends in frames or in our errors, and nothing outside is read.

The normal run draws 60 cases; more are drawn by
    GASTROVL_FUZZ_CASES=2000 python -m pytest tests/data/frames/test_fuzz_frames.py
"""

from __future__ import annotations

import io
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless, VLEndoscopicImageStorage

from gastrovl.core.errors import GastroVLError
from gastrovl.data.frames import extract_frames

CASES = max(60, int(os.environ.get("GASTROVL_FUZZ_CASES", "200")) // 4)
WIDTH, HEIGHT = 32, 16
PLAY_LISTS = [  # what FFmpeg would follow to other files, with the place of one to fill in
    "ffconcat version 1.0\nfile '{}'\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nconcat:{}|{}\n#EXT-X-ENDLIST\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "[playlist]\nFile1={}\nNumberOfEntries=1\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
]
MAGIC = [b"\0\0\0\x18ftypmp42", b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI LIST", b"\0\0\x01\xba", b"G" + b"\0" * 187]
SUFFIX = st.sampled_from([".mp4", ".mkv", ".avi", ".ts", ".dcm", ""])
TARGETS = ["../secret.mp4", "{top}/secret.mp4", "file:{top}/secret.mp4", "/etc/passwd"]
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Rows": st.sampled_from([0, 1, HEIGHT, WIDTH, 65535]),  # 1 to 65535; WIDTH: swapped axes
        "Columns": st.sampled_from([0, 1, WIDTH, HEIGHT, 65535]),
        "NumberOfFrames": st.sampled_from(["-1", "0", "2", "9", "2147483647"]),
        "SamplesPerPixel": st.sampled_from([0, 1, 3, 4]),
        "BitsAllocated": st.sampled_from([0, 1, 7, 8, 16, 64]),
        "PlanarConfiguration": st.sampled_from([0, 1, 7]),
        "PhotometricInterpretation": st.sampled_from(["RGB", "MONOCHROME1", "PALETTE COLOR", "YBR_FULL_422", "", "x"]),
        "FrameTime": st.sampled_from(["-5", "0", "1e300", "40"]),
        "CineRate": st.sampled_from(["-1", "0", "25"]),
    },
)
DAMAGE = st.tuples(
    st.sampled_from(["no", "no", "cut", "flip", "insert"]), st.integers(0, 20_000), st.binary(min_size=1, max_size=8)
)


@cache
def film(container: str) -> bytes:
    """Three frames of a video."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as video:
        track = video.add_stream("mpeg4", rate=5)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for level in (0, 90, 180):
            picture = np.full((HEIGHT, WIDTH, 3), level, dtype=np.uint8)
            video.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        video.mux(track.encode())
    return stream.getvalue()


def dicom(changes: dict[str, Any], syntax: Any) -> bytes:
    """Two frames of a VL Endoscopic file whose header may say anything."""
    one = pydicom.Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = syntax
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = VLEndoscopicImageStorage
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.99.2"
    one.Rows, one.Columns, one.NumberOfFrames = HEIGHT, WIDTH, 2
    one.SamplesPerPixel, one.PlanarConfiguration, one.PhotometricInterpretation = 3, 0, "RGB"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 8, 8, 7, 0
    for keyword, value in changes.items():
        setattr(one, keyword, value)
    packed = {MPEG4HP41: [film("mp4")], RLELossless: [b"\0" * 64] * 2, JPEGBaseline8Bit: [b"\xff\xd8\xff\xd9"] * 2}
    one.PixelData = encapsulate(packed[syntax]) if syntax in packed else bytes(range(256)) * 12  # 2 x 16 x 32 x 3
    one["PixelData"].VR = "OB"
    stream = io.BytesIO()
    one.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


VIDEOS = st.sampled_from(["mp4", "matroska", "avi", "mpegts"]).map(lambda name: ("video", film(name)))
SYNTAXES = st.sampled_from([ExplicitVRLittleEndian] * 3 + [RLELossless, JPEGBaseline8Bit, MPEG4HP41])
DICOMS = st.builds(dicom, HEADERS, SYNTAXES).map(lambda content: ("dicom", content))
LISTS = st.builds(
    lambda form, target: ("play list", form.replace("{}", target).encode()),
    st.sampled_from(PLAY_LISTS),
    st.sampled_from(TARGETS),
)
GARBAGE = st.one_of(
    st.builds(lambda magic, rest: magic + rest, st.sampled_from(MAGIC), st.binary(max_size=200)),
    st.binary(max_size=200).map(lambda rest: b"\0" * 128 + b"DICM" + rest),
    st.binary(max_size=300),
).map(lambda content: ("garbage", content))


def damaged(content: bytes, damage: tuple[str, int, bytes]) -> bytes:
    kind, place, junk = damage
    place %= len(content) + 1
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        return content[:place] + bytes(byte ^ 0xA5 for byte in content[place : place + 4]) + content[place + 4 :]
    return content[:place] + junk + content[place:] if kind == "insert" else content


def fuzz(watched: Callable[..., Any]) -> tuple[Callable[[], None], Counter[str]]:
    drawn: Counter[str] = Counter()

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        made=st.one_of(VIDEOS, DICOMS, LISTS, GARBAGE),
        suffix=SUFFIX,
        damage=DAMAGE,
        is_linked=st.sampled_from([0] * 7 + [1]),
    )
    def run(made: tuple[str, bytes], suffix: str, damage: tuple[str, int, bytes], is_linked: int) -> None:
        kind, content = made
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder).resolve()
            root = top / "in"
            root.mkdir()
            (top / "secret.mp4").write_bytes(film("mp4"))
            (root / f"IM1{suffix}").write_bytes(damaged(content.replace(b"{top}", os.fsencode(top)), damage))
            if is_linked:
                (root / "link.mp4").symlink_to(top / "secret.mp4")
            is_refused = False
            with watched(top) as opened:
                try:
                    extract_frames(root, top / "out", every_seconds=None)
                except GastroVLError:
                    is_refused = True
            drawn.update([kind, "refused" if is_refused else "taken", damage[0], *["link out"] * is_linked])
            assert str(top / "secret.mp4") not in [os.path.realpath(path) for path in opened]
            assert "/etc/passwd" not in opened
            assert is_refused or not (is_linked or kind == "play list"), "what leads out was taken"
            assert is_refused is not (top / "out").exists()

    return run, drawn


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of headers that break the standard
def test_a_file_ends_in_frames_or_in_our_errors(watched):
    run, drawn = fuzz(watched)
    run()
    expected = {"video", "dicom", "play list", "garbage", "link out", "cut", "flip", "insert", "refused", "taken"}
    assert not expected - drawn.keys(), f"never drawn: {expected - drawn.keys()}"
