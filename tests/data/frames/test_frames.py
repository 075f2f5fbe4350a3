"""Videos and DICOM files to frames: times, groups, nothing of a patient in any output, typed errors."""

from __future__ import annotations

import csv
import sys
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    VLEndoscopicImageStorage,
)
from typer.testing import CliRunner

from gastrovl.cli.data import app
from gastrovl.core.errors import ConfigError, MissingExtraError, OutputError, SourceError
from gastrovl.data.frames import extract_frames

SIZE_WH = (64, 48)
MP4_LEVEL_41 = UID("1.2.840.10008.1.2.4.102")  # MPEG-4 AVC/H.264 High Profile / Level 4.1
IDENTIFIERS = ("Mueller", "7741", "1.2.826.0.1.99", "19560412", "HOSPITAL", "PRIVATE")


def grey(level):
    return np.full((SIZE_WH[1], SIZE_WH[0], 3), level, dtype=np.uint8)


@pytest.fixture
def film(tmp_path):
    """`film(name, frames, per_second)` writes a video whose frame n has the grey level 10 n."""

    def write(name="exam.mp4", frames=10, per_second=5):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as video:
            stream = video.add_stream("mpeg4", rate=per_second)
            stream.width, stream.height = SIZE_WH
            stream.pix_fmt = "yuv420p"
            for n in range(frames):
                video.mux(stream.encode(av.VideoFrame.from_ndarray(grey(10 * n), format="rgb24")))
            video.mux(stream.encode())
        return path

    return write


@pytest.fixture
def dicom(tmp_path):
    """`dicom(name, frames, **changes)` writes an uncompressed VL Endoscopic file of grey levels 0, 10, 20, ..."""

    def write(name="IM0001.dcm", frames=4, patient="7741", syntax=ExplicitVRLittleEndian, pixels=None, **changes):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = syntax
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = VLEndoscopicImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.99.{len(name)}"
        one.StudyInstanceUID = "1.2.826.0.1.99.1"
        one.PatientName, one.PatientID, one.PatientBirthDate = "Mueller^Hanna", patient, "19560412"
        one.InstitutionName = "HOSPITAL"
        one.add_new(0x00091001, "LO", "PRIVATE")
        one.Rows, one.Columns = SIZE_WH[1], SIZE_WH[0]
        one.SamplesPerPixel, one.PlanarConfiguration, one.PhotometricInterpretation = 3, 0, "RGB"
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit, one.PixelRepresentation = 7, 0
        one.NumberOfFrames = frames
        one.FrameTime = "500"  # ms
        levels = b"".join(grey(10 * n).tobytes() for n in range(frames))
        one.PixelData = levels if pixels is None else pixels
        if pixels is not None:
            one["PixelData"].VR = "OB"
        for keyword, value in changes.items():
            setattr(one, keyword, value)
        one.save_as(path, enforce_file_format=True)
        return path

    return write


def rows_of(folder):
    with (folder / "frames.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def level_of(path):
    with Image.open(path) as picture:
        return float(np.asarray(picture).mean())


def test_one_frame_a_second_is_kept_with_its_time_and_number(film, tmp_path):
    done = extract_frames(film(), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [(row["image"], row["seconds"], row["frame"]) for row in rows] == [
        ("frames/exam/000000.png", "0.000", "0"),
        ("frames/exam/000005.png", "1.000", "5"),
    ]
    assert {(row["video"], row["group"]) for row in rows} == {("exam", "exam")}
    assert (done.n_inputs, done.n_frames, done.others) == (1, 2, ())
    assert level_of(tmp_path / "out" / rows[1]["image"]) == pytest.approx(50, abs=4)  # the codec is lossy


def test_all_frames_are_kept_when_asked(film, tmp_path):
    extract_frames(film(), tmp_path / "out", every_seconds=None, image_format="jpg")
    assert [row["image"] for row in rows_of(tmp_path / "out")] == [f"frames/exam/{n:06d}.jpg" for n in range(10)]


def test_a_folder_is_searched_and_other_files_are_named(film, dicom, tmp_path):
    film("a/x.mp4"), film("b/x.avi"), dicom()
    (tmp_path / "in/notes.txt").write_text("notes", encoding="utf-8")
    done = extract_frames(tmp_path / "in", tmp_path / "out")
    assert {row["video"] for row in rows_of(tmp_path / "out")} == {"a/x", "b/x", "dicom_0001"}
    assert done.others == (tmp_path / "in/notes.txt",)


def test_the_folder_may_be_named_from_where_the_command_runs(film, tmp_path, monkeypatch):
    film("a/x.mp4")
    monkeypatch.chdir(tmp_path)
    extract_frames(Path("in"), Path("out"))
    assert {row["video"] for row in rows_of(Path("out"))} == {"a/x"}


def test_frames_of_a_dicom_file_are_exact_and_timed(dicom, tmp_path):
    extract_frames(dicom(), tmp_path / "out", every_seconds=None)
    rows = rows_of(tmp_path / "out")
    assert [row["seconds"] for row in rows] == ["0.000", "0.500", "1.000", "1.500"]
    assert [level_of(tmp_path / "out" / row["image"]) for row in rows] == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"FrameTime": None, "CineRate": "4"}, ["0.000", "0.250", "0.500", "0.750"]),
        ({"FrameTime": None, "FrameTimeVector": [0, 100, 300, 100]}, ["0.000", "0.100", "0.400", "0.500"]),
        ({"FrameTime": None}, ["", "", "", ""]),
    ],
)
def test_times_come_from_vector_or_rate_or_are_left_empty(dicom, tmp_path, changes, seconds):
    extract_frames(dicom(**changes), tmp_path / "out", every_seconds=None)
    assert [row["seconds"] for row in rows_of(tmp_path / "out")] == seconds


def test_no_identifier_reaches_any_output(dicom, tmp_path):
    dicom("Mueller_7741/first.dcm"), dicom("Mueller_7741/second.dcm")
    extract_frames(tmp_path / "in", tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        said = str(path.relative_to(tmp_path)) + (path.read_bytes().decode("latin-1") if path.is_file() else "")
        assert not [word for word in IDENTIFIERS if word in said], path


def test_files_of_one_patient_share_a_group(dicom, tmp_path):
    dicom("1.dcm"), dicom("2.dcm"), dicom("3", patient="8")
    extract_frames(tmp_path / "in", tmp_path / "out")
    groups = {row["video"]: row["group"] for row in rows_of(tmp_path / "out")}
    assert groups == {"dicom_0001": "patient_0001", "dicom_0002": "patient_0001", "dicom_0003": "patient_0002"}


def test_run_length_compression_is_decoded(dicom, tmp_path):
    path = dicom(frames=1)
    one = pydicom.dcmread(path)
    one.compress(RLELossless)
    one.save_as(path)
    extract_frames(path, tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 1


def test_a_video_within_dicom_is_decoded(dicom, film, tmp_path):
    content = film("v.mp4").read_bytes()
    path = dicom(frames=10, syntax=MP4_LEVEL_41, pixels=encapsulate([content]))
    extract_frames(path, tmp_path / "out")
    assert [row["seconds"] for row in rows_of(tmp_path / "out")] == ["0.000", "1.000"]


@pytest.mark.parametrize(("syntax", "package"), [(JPEGLSLossless, "pyjpegls"), (JPEGLosslessSV1, "python-gdcm")])
def test_a_syntax_that_cannot_be_decoded_is_named_with_its_package(dicom, tmp_path, syntax, package):
    path = dicom(frames=1, syntax=syntax, pixels=encapsulate([b"\xff\xd8\xff\xd9"]))
    with pytest.raises(SourceError, match=rf"{syntax.name.split(',')[0]}.*{syntax}.*install the package {package}"):
        extract_frames(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_burned_in_text_stops_unless_allowed(dicom, tmp_path):
    path = dicom(BurnedInAnnotation="YES")
    with pytest.raises(SourceError, match="text is burned into the pixels"):
        extract_frames(path, tmp_path / "out")
    assert extract_frames(path, tmp_path / "out", is_burned_in_allowed=True).n_frames == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": b"\0" * 50},
        {"NumberOfFrames": 9},
        {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "NumberOfFrames": 2},
        {"Rows": 60000, "Columns": 60000},
        {"PhotometricInterpretation": "PALETTE COLOR", "SamplesPerPixel": 1, "NumberOfFrames": 12},
    ],
)
def test_a_dicom_file_that_contradicts_itself_is_refused(dicom, tmp_path, changes):
    with pytest.raises(SourceError, match=r"IM0001\.dcm: "):
        extract_frames(dicom(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["dicom", "video"])
def test_half_a_file_is_refused(film, dicom, tmp_path, kind):
    path = film() if kind == "video" else dicom()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=path.name):
        extract_frames(path, tmp_path / "out")


def test_a_header_that_claims_two_thousand_million_frames_costs_nothing(dicom, tmp_path):
    path = dicom(NumberOfFrames="2147483647")
    tracemalloc.start()
    with pytest.raises(SourceError, match="cannot be decoded after 0 of 2147483647 frames"):
        extract_frames(path, tmp_path / "out")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 50_000_000  # a list of their times alone would be 64 GB


def test_an_empty_video_is_refused(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match=r"empty\.mp4: cannot be decoded after 0 frames"):
        extract_frames(tmp_path / "empty.mp4", tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile '{}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_play_list_that_points_elsewhere_is_refused(film, tmp_path, content):
    target = film("secret/x.mp4")
    (tmp_path / "list.mp4").write_text(content.format(target), encoding="utf-8")
    with pytest.raises(SourceError, match=r"list\.mp4: cannot be decoded"):
        extract_frames(tmp_path / "list.mp4", tmp_path / "out")


def test_a_link_out_of_the_folder_is_refused(film, tmp_path):
    film("x.mp4").rename(tmp_path / "y.mp4")
    (tmp_path / "in/link.mp4").symlink_to(tmp_path / "y.mp4")
    with pytest.raises(SourceError, match="leads out of"):
        extract_frames(tmp_path / "in", tmp_path / "out")


def test_what_is_no_input_is_refused(film, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").touch()
    with pytest.raises(SourceError, match="holds no video"):
        extract_frames(tmp_path / "in", tmp_path / "out")
    with pytest.raises(SourceError, match="no such file or folder"):
        extract_frames(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ConfigError, match="expected a number above 0"):
        extract_frames(film(), tmp_path / "out", every_seconds=-1)
    film("exam.avi")
    with pytest.raises(SourceError, match="several inputs are called 'exam'"):
        extract_frames(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(("library", "extra"), [("av", "video"), ("pydicom", "formats")])
def test_without_a_library_the_extra_is_named(film, dicom, tmp_path, monkeypatch, library, extra):
    path = film() if library == "av" else dicom()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"gastrovl\[{extra}\]"):
        extract_frames(path, tmp_path / "out")


def test_the_command_says_what_it_wrote(film, tmp_path):
    film()
    (tmp_path / "in/notes.txt").touch()
    command = ["frames", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--every", "0"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "10 of 1 files, listed in frames.csv" in result.output
    assert "left out: 1 files that are no video and no DICOM" in result.output
    assert isinstance(CliRunner().invoke(app, command).exception, OutputError)
