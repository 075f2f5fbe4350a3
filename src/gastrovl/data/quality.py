"""Images to what is known of their pixels: can they be decoded, what do they look like, which ones look alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.errors import ImageError, MissingExtraError
from gastrovl.core.files import sha256_file
from gastrovl.core.parallel import in_order
from gastrovl.data.images import DECODING_ERRORS, PILLOW_LIMIT_PX, BrokenImage, ImageFile, as_broken, open_image
from gastrovl.data.measures import FaultOptions, Measures, measure

HASH_SIDE = 16  # 256 bits: on black-bordered endoscopy frames 64 bits call hundreds of unlike pairs alike
HASH_BITS = HASH_SIDE * HASH_SIDE
CHUNK_BITS = 16
COLOUR_BINS = 32
BLOCK = 100_000  # candidate pairs compared at once


class QualityOptions(Config):
    """Which images are good enough, and which count as alike.

    Attributes:
        on_broken_image: "stop" ends the build with the list of all of them; "skip" leaves them out and records them.
        max_px: Largest width x height that is decoded at all.
        min_side_px: Smallest width or height.
        near_duplicate_bits: Images whose 256-bit perceptual hashes differ in at most this many bits are one group; null
            looks for byte-equal files only.
        faults: What is done about dark, blurred, overexposed, letterboxed and painted-on frames.
    """

    on_broken_image: Literal["stop", "skip"] = "stop"
    max_px: int = Field(default=50_000_000, gt=0, le=PILLOW_LIMIT_PX)
    min_side_px: int = Field(default=32, ge=1)
    near_duplicate_bits: int | None = Field(default=36, ge=0, lt=3 * HASH_BITS // CHUNK_BITS)
    faults: FaultOptions = FaultOptions()


@dataclass(frozen=True)
class Look:
    """What a whole, decodable image looks like.

    Attributes:
        sha256: Of the file's bytes.
        bits: Perceptual hash (DCT, 16x16), bool, (256,); empty when near-duplicates are not looked for.
        colours: Share of pixels in each hue, saturation and brightness bin of the central three quarters, (96,), sum 1.
        rotated: The file asks viewers to rotate it (EXIF); boxes and models use the pixels as stored.
        measures: Brightness, sharpness, bars, and what is painted on the frame.
    """

    sha256: str
    bits: NDArray[np.bool_]
    colours: NDArray[np.float64]
    rotated: bool
    measures: Measures


def look_at(image: ImageFile, options: QualityOptions) -> Look:
    """Decode an image wholly and describe it.

    Raises:
        ImageError: It is missing, empty, truncated, no image, too large or too small.
        MissingExtraError: Near-duplicates are asked for and the hash library is absent.
    """
    path = image.path
    with open_image(path, max_px=options.max_px) as picture:
        if min(picture.size) < options.min_side_px:
            width, height = picture.size
            raise ImageError(
                f"{path}: is only {width}x{height} px; remove it, or lower `quality.min_side_px` in the config "
                f"(now {options.min_side_px})"
            )
        try:
            rotated = picture.getexif().get(0x0112, 1) != 1
            pixels = picture.convert("RGB")
        except DECODING_ERRORS as error:
            raise ImageError(
                f"{path}: truncated or damaged ({error}); copy it again from the source, or set "
                "`quality.on_broken_image: skip`"
            ) from error
    bits = np.zeros(0, dtype=np.bool_) if options.near_duplicate_bits is None else _perceptual_hash(pixels)
    return Look(sha256_file(path), bits, _colours(pixels), rotated, measure(pixels))


def look_at_all(
    images: Iterable[ImageFile], options: QualityOptions, progress: Callable[[], None] | None = None
) -> tuple[dict[Path, Look], list[BrokenImage]]:
    """Looks by path, and the images that could not be used; `progress` is called after each image."""
    looks: dict[Path, Look] = {}
    broken: list[BrokenImage] = []

    def look(image: ImageFile) -> tuple[ImageFile, Look | ImageError]:
        try:
            return image, look_at(image, options)
        except ImageError as error:
            return image, error

    for image, found in in_order(look, images):
        if isinstance(found, Look):
            looks[image.path] = found
        else:
            broken.append(as_broken(image.path, found))
        if progress:
            progress()
    return looks, broken


def stop_at_broken(broken: list[BrokenImage]) -> None:
    """Refuse broken images.

    Raises:
        ImageError: With all of them, if there are any.
    """
    if broken:
        raise ImageError(
            f"{len(broken)} images cannot be used:\n"
            + "\n".join(f"  {row}" for row in broken)
            + "\nExpected whole images; repair them, or leave them out by `quality.on_broken_image: skip` in the config"
        )


def near_duplicates(
    hashes: NDArray[np.bool_], max_bits: int, progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, int, int]]:
    """Pairs (i, j, distance) with i < j whose hashes differ in at most `max_bits` of 256 bits, exact and complete.

    Multi-index hashing (Norouzi et al., CVPR 2012): the hash is cut into 16 chunks of 16 bits; when two hashes differ
    in at most `max_bits`, one chunk differs in at most max_bits // 16, so only images with such a chunk are compared.

    Args:
        hashes: (images, 256).
        max_bits: Below 48, so that a chunk differs in at most 2 bits.
        progress: Called with (chunks done, chunks in all) after each chunk.
    """
    chunks = HASH_BITS // CHUNK_BITS
    weights = 1 << np.arange(CHUNK_BITS)
    words = (hashes.reshape(-1, chunks, CHUNK_BITS) * weights).sum(axis=2)  # (images, chunks)
    flips = [
        sum(1 << bit for bit in bits)
        for n in range(max_bits // chunks + 1)
        for bits in combinations(range(CHUNK_BITS), n)
    ]
    found: dict[tuple[int, int], int] = {}
    for chunk in range(chunks):
        order = np.argsort(words[:, chunk], kind="stable")
        values = words[order, chunk]
        for flip in flips:
            first, second = _equal_pairs(words[:, chunk] ^ flip, values, order)
            first, second = first[first < second], second[first < second]
            for start in range(0, len(first), BLOCK):  # bounds the memory of one comparison
                i, j = first[start : start + BLOCK], second[start : start + BLOCK]
                distance = np.count_nonzero(hashes[i] != hashes[j], axis=1)
                near = distance <= max_bits
                found.update(
                    zip(zip(i[near].tolist(), j[near].tolist(), strict=True), distance[near].tolist(), strict=True)
                )
        if progress:
            progress(chunk + 1, chunks)
    return sorted((i, j, bits) for (i, j), bits in found.items())


def colour_likeness(a: Look, b: Look) -> float:
    """Overlap of two colour histograms in [0, 1]; frames of one video under one light come near 1."""
    return float(np.minimum(a.colours, b.colours).sum())


def _equal_pairs(
    wanted: NDArray[np.int64], values: NDArray[np.int64], order: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All (i, j) with wanted[i] equal to the value of j; `values` is sorted, `order` its images."""
    low = np.searchsorted(values, wanted, side="left")
    counts = np.searchsorted(values, wanted, side="right") - low
    first = np.repeat(np.arange(len(wanted)), counts)
    offsets = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first, order[np.repeat(low, counts) + offsets]


def _perceptual_hash(pixels: Image.Image) -> NDArray[np.bool_]:
    try:
        import imagehash
    except ImportError as error:
        raise MissingExtraError(
            "imagehash is not installed; it finds near-duplicate images. Install it with "
            '`pip install "gastrovl[data]"`, '
            "or set `quality.near_duplicate_bits: null`"
        ) from error
    return np.asarray(imagehash.phash(pixels, hash_size=HASH_SIDE).hash, dtype=np.bool_).reshape(-1)


def _colours(pixels: Image.Image) -> NDArray[np.float64]:
    width, height = pixels.size
    centre = pixels.crop((width // 8, height // 8, width - width // 8, height - height // 8))
    channels = np.asarray(centre.resize((96, 96)).convert("HSV")) // (256 // COLOUR_BINS)
    counts = [np.bincount(channels[..., channel].ravel(), minlength=COLOUR_BINS) for channel in range(3)]
    histogram = np.concatenate(counts).astype(np.float64)
    shares: NDArray[np.float64] = histogram / histogram.sum()
    return shares
