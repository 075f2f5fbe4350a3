"""Videos and DICOM files to a folder of frames, with a table of where each one came from.

`frames.csv` has a row a frame: image, video (a key for each input file), group (files of one patient share it), seconds
since the file's first frame (empty when the file does not say), and the number of the frame in its file, from 0. DICOM
inputs are called by numbers, because their names and headers identify people; nothing else of a header is written.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from gastrovl.core.errors import ConfigError, SourceError
from gastrovl.core.files import sha256_file, whole_folder
from gastrovl.core.manifest import write_manifest
from gastrovl.data.formats.textlines import require_inside
from gastrovl.data.frames.dicom import dicom_frames, is_dicom, patient_of
from gastrovl.data.frames.frame import Frame
from gastrovl.data.frames.video import SUFFIXES, video_frames

Progress = Callable[[str, int, int], None]  # (step, done, total)
COLUMNS = ("image", "video", "group", "seconds", "frame")


@dataclass(frozen=True)
class Extracted:
    """What an extraction did: numbers of inputs and frames, and the files of a folder that are neither."""

    n_inputs: int
    n_frames: int
    others: tuple[Path, ...]


@dataclass(frozen=True)
class _Input:
    path: Path
    key: str
    group: str
    is_dicom: bool


def extract_frames(
    source: Path,
    output: Path,
    *,
    every_seconds: float | None = 1.0,
    image_format: Literal["png", "jpg"] = "png",
    is_burned_in_allowed: bool = False,
    is_replaced: bool = False,
    progress: Progress | None = None,
) -> Extracted:
    """Write frames of a file, or of all videos and DICOM files below a folder; all of `output` appears or nothing.

    Args:
        every_seconds: Keep the first frame of each stretch of this length; None keeps all. Files without times are
            kept whole.
        image_format: "png" keeps the decoded pixels, "jpg" (quality 95) saves space.
        is_burned_in_allowed: Also take DICOM files whose header says that text is burned into the pixels.

    Raises:
        ConfigError: `every_seconds` is not above 0.
        SourceError: There is no video or DICOM file, one cannot be decoded, or a link leads out of the folder.
        MissingExtraError: A library is not installed.
        OutputError: `output` is not free.
    """
    if every_seconds is not None and not every_seconds > 0:
        raise ConfigError(f"every {every_seconds:g} seconds: expected a number above 0")
    inputs, others = _inputs(Path(source))
    rows: list[tuple[str, str, str, str, int]] = []
    with whole_folder(Path(output), is_replaced=is_replaced) as folder:
        for done, one in enumerate(inputs):
            if progress is not None:
                progress("extracting frames", done, len(inputs))
            frames = dicom_frames(one.path, is_burned_in_allowed) if one.is_dicom else video_frames(one.path)
            for frame in _thinned(frames, every_seconds):
                name = f"frames/{one.key}/{frame.number:06d}.{image_format}"
                _save(frame.picture, folder / name)
                seconds = "" if frame.seconds is None else f"{frame.seconds:.3f}"
                rows.append((name, one.key, one.group, seconds, frame.number))
        with (folder / "frames.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([COLUMNS, *rows])
        write_manifest(
            folder,
            stage="data frames",
            config={"every_seconds": every_seconds, "image_format": image_format},
            seed=None,
            inputs={one.key: sha256_file(one.path) for one in inputs},
        )
    return Extracted(len(inputs), len(rows), tuple(others))


def _inputs(source: Path) -> tuple[list[_Input], list[Path]]:
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder; expected a video, a DICOM file, or a folder of them")
    root = source if source.is_dir() else source.parent
    paths = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    inputs: list[_Input] = []
    others: list[Path] = []
    patients: dict[str, str] = {}
    n_dicom = 0
    for path in paths:
        require_inside(root, path)
        if path.suffix.lower() in SUFFIXES:
            key = path.relative_to(root).with_suffix("").as_posix()
            inputs.append(_Input(path, key, key, is_dicom=False))
        elif is_dicom(path):
            n_dicom += 1
            group = patients.setdefault(patient_of(path), f"patient_{len(patients) + 1:04d}")
            inputs.append(_Input(path, f"dicom_{n_dicom:04d}", group, is_dicom=True))
        else:
            others.append(path)
    keys = [one.key for one in inputs]
    double = sorted({key for key in keys if keys.count(key) > 1})
    if double:
        raise SourceError(f"{root}: several inputs are called {double[0]!r}; expected one a name. Rename one of them")
    if not inputs:
        raise SourceError(
            f"{source}: holds no video ({', '.join(SUFFIXES)}) and no DICOM file; choose another file or folder"
        )
    return inputs, others


def _thinned(frames: Iterator[Frame], every_seconds: float | None) -> Iterator[Frame]:
    """The first frame of each stretch of `every_seconds`, counted from the first frame."""
    last = -1
    for frame in frames:
        if every_seconds is None or frame.seconds is None:
            yield frame
            continue
        stretch = int((frame.seconds + 1e-6) / every_seconds)  # times are stored as rounded fractions
        if stretch > last:
            last = stretch
            yield frame


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        picture.convert("RGB").save(path, quality=95, subsampling=0)
    else:
        picture.save(path)
