"""A source folder to the list of its images, with sizes read from the headers only and broken files set aside.

Headers are cheap and safe: a file that claims 50,000 x 50,000 px is refused here, before a single pixel is decoded.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from gastrovl.core.errors import ImageError, SourceError

_WARNINGS = threading.Lock()  # filters of warnings belong to the whole process, and several threads read images
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
PILLOW_LIMIT_PX = 89_478_485  # above it Pillow itself warns of a decompression bomb
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables and a reserved marker among the JPEG markers of frames
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageFile:
    """An image of a source.

    Attributes:
        path: Where it lies.
        name: POSIX path relative to the folder of the source's images, e.g. "polyp/0004a718.jpg".
        size_wh: Width and height in pixels from the header, or None when the header cannot be read or must not be.
    """

    path: Path
    name: str
    size_wh: tuple[int, int] | None

    @property
    def stem(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def key(self) -> str:
        """`name` without its suffix: what the sample's id is made of."""
        folder, slash, file = self.name.rpartition("/")  # pathlib takes ten times as long, and this is asked often
        place = file.rfind(".")
        return f"{folder}{slash}{file[:place] if 0 < place < len(file) - 1 else file}"


@dataclass(frozen=True)
class BrokenImage:
    """An image that cannot be used: the file, why, and what to do about it."""

    path: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.remedy}"


@dataclass
class ImageFolder:
    """All images of a source, found by name or by stem; `broken` grows while annotations are read."""

    root: Path
    images: tuple[ImageFile, ...]
    broken: list[BrokenImage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_name: dict[str, ImageFile] = {}
        self._by_stem: dict[str, list[ImageFile]] = {}
        for image in self.images:
            twin = self._by_name.get(image.key)
            if twin is not None:
                raise SourceError(
                    f"{image.path}: has the same name as {twin.path}, so annotations cannot tell them apart; "
                    "expected one file a name. Remove one, or narrow `images` in the source description"
                )
            self._by_name[image.key] = self._by_name[image.name] = image
            self._by_stem.setdefault(image.stem, []).append(image)

    def __iter__(self) -> Iterator[ImageFile]:
        return iter(self.images)

    def knows(self, name: str) -> bool:
        """Whether an image is called `name`, in the sense of `find`; nothing is noted."""
        return bool(self._named(name))

    def _named(self, name: str) -> list[ImageFile]:
        """Images that `name` may mean: its path or, where one of both has more folders in front, the same end."""
        if name in self._by_name:
            return [self._by_name[name]]
        path = PurePosixPath(name)
        parts = path.with_suffix("").parts if path.suffix.lower() in SUFFIXES else path.parts
        return [
            image
            for image in self._by_stem.get(parts[-1] if parts else "", [])
            if all(a == b for a, b in zip(reversed(parts), reversed(PurePosixPath(image.key).parts), strict=False))
        ]

    def stems(self) -> set[str]:
        """Every file name without folder and suffix."""
        return set(self._by_stem)

    def find(self, name: str, where: str) -> ImageFile | None:
        """The image called `name` (relative path or stem, suffix optional); a missing one is noted as broken.

        Raises:
            SourceError: Several images share the stem.
        """
        found = self._named(name)
        if len(found) > 1:
            raise SourceError(
                f"{where}: image {name!r} may be any of {', '.join(str(image.path) for image in found[:3])}; "
                "expected one. Name it with its folder, or narrow `images` in the source description"
            )
        if not found:
            self.broken.append(
                BrokenImage(
                    f"{self.root / name}",
                    f"missing, although {where} names it",
                    "copy the image there or delete that annotation",
                )
            )
            return None
        return found[0]


def list_images(root: Path, patterns: Iterable[str], *, max_px: int) -> ImageFolder:
    """The images below `root` that match the glob `patterns`, sorted by name, with sizes from their headers.

    Raises:
        SourceError: The folder is absent or holds no image.
    """
    root = Path(root)
    patterns = tuple(patterns)
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder; check `root` in the config, and --data-root or GASTROVL_DATA")
    base = root / _common_folder(patterns)
    try:
        paths = sorted({path for pattern in patterns for path in root.glob(pattern) if path.suffix.lower() in SUFFIXES})
    except (NotImplementedError, ValueError) as error:
        raise SourceError(
            f"images: {', '.join(patterns)} cannot be searched for ({error}); expected globs relative to the source's "
            "root. Correct `images` in the source description"
        ) from error
    if not paths:
        raise SourceError(
            f"{root}: no image matches {', '.join(patterns)}; expected files ending in {', '.join(SUFFIXES)}. "
            "Check `root` in the config and `images` in the source description"
        )
    broken: list[BrokenImage] = []
    images = []
    is_inside = _InsideOf(root)
    for path in paths:
        size_wh = None
        try:
            if not is_inside(path):
                raise ImageError(f"{path}: leads out of {root}; copy the image into the source's folder")
            size_wh = header_size(path, max_px=max_px)
        except ImageError as error:
            broken.append(as_broken(path, error))
        images.append(ImageFile(path, path.relative_to(base).as_posix(), size_wh))
    return ImageFolder(base, tuple(images), broken)


class _InsideOf:
    """Whether a path, links followed, lies below a folder; every folder on the way is asked about once."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.folders: dict[Path, bool] = {}

    def __call__(self, path: Path) -> bool:
        if path.is_symlink():
            return path.resolve().is_relative_to(self.root)
        folder = path.parent
        if folder not in self.folders:
            self.folders[folder] = folder.resolve().is_relative_to(self.root)
        return self.folders[folder]


def header_size(path: Path, *, max_px: int) -> tuple[int, int]:
    """Width and height in pixels as the header states them.

    Raises:
        ImageError: The file is missing, empty, no image, or claims more than `max_px` pixels.
    """
    size_wh = _plain_size(path)
    if size_wh is not None and size_wh[0] * size_wh[1] <= max_px:
        return size_wh
    with open_image(path, max_px=max_px) as image:  # other kinds, and the verdict on what is wrong
        return image.size


def _plain_size(path: Path) -> tuple[int, int] | None:
    """Width and height in the header of a JPEG (ITU-T T.81, B.2.2) or PNG (ISO/IEC 15948, 11.2.2), ten times as fast
    as Pillow reads it; None for anything else and anything odd.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(26)
            if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR":
                return _positive(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
            if head[:2] != b"\xff\xd8":
                return None
            at = 2
            while True:
                stream.seek(at)
                segment = stream.read(9)  # marker, length, precision, height, width
                if len(segment) < 9 or segment[0] != 0xFF:
                    return None
                marker = segment[1]
                if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
                    return _positive(int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big"))
                if marker in (0xD8, 0xD9, 0xDA, 0xFF) or 0xD0 <= marker <= 0xD7:
                    return None
                at += 2 + int.from_bytes(segment[2:4], "big")
    except OSError:
        return None


def _positive(width: int, height: int) -> tuple[int, int] | None:
    return (width, height) if width > 0 and height > 0 else None


def open_image(path: Path, content: bytes | None = None, *, max_px: int = PILLOW_LIMIT_PX) -> Image.Image:
    """An image whose header has been read and found harmless; the pixels are not decoded yet.

    Args:
        content: The file's bytes, where they are in memory already.

    Raises:
        ImageError: The file is missing, empty, no image, or claims more than `max_px` pixels.
    """
    path = Path(path)
    if content is None and not path.is_file():
        raise ImageError(f"{path}: missing; copy the image there or delete its annotation")
    if not (path.stat().st_size if content is None else content):
        raise ImageError(f"{path}: empty (0 bytes); copy it again from the source")
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path if content is None else io.BytesIO(content))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: claims too many pixels ({error}); {_BOMB_REMEDY}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image that Pillow knows; copy it again, or convert it to JPEG or PNG"
        ) from error
    except DECODING_ERRORS as error:
        raise ImageError(f"{path}: broken header ({error}); copy it again from the source") from error
    width, height = image.size
    if width * height > max_px:
        image.close()
        raise ImageError(f"{path}: claims {width}x{height} px, more than the limit of {max_px:,}; {_BOMB_REMEDY}")
    return image


def as_broken(path: Path, error: ImageError) -> BrokenImage:
    """An `ImageError` of this module as a row of the list of broken images."""
    reason, _, remedy = str(error).removeprefix(f"{path}: ").partition("; ")
    return BrokenImage(str(path), reason, remedy)


_BOMB_REMEDY = "if it is genuine, store a smaller copy or raise `quality.max_px` in the config"


def _common_folder(patterns: tuple[str, ...]) -> str:
    """The fixed folders all patterns begin with: "images" for "images/**/*.jpg"."""
    parts = [pattern.split("/")[:-1] for pattern in patterns]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1 or any(character in level[0] for character in "*?["):
            break
        common.append(level[0])
    return "/".join(common)
