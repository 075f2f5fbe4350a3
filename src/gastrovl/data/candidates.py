"""Fingerprints to pairs of pictures that may be copies: codes that agree on their lowest bits meet by sorting.

The number of comparisons grows with the number of codes, not with its square: a key (the first bits of a code, in the
mirror image in which they are smallest) puts a code into a bucket, and a code meets at most `NEIGHBOURS` of those that
follow it in its bucket. So a crowded bucket (black corners look alike in all frames) stays cheap, and a large group of
copies is still linked as a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gastrovl.data.fingerprint import CODE_BITS, LAYOUT, MIRRORS, PLACES

NEIGHBOURS = 12
_ROWS = 16_384  # fingerprints read at once
_PAIRS = 1 << 20  # pairs of codes compared at once
_HASH = np.uint64(0x9E3779B97F4A7C15)  # odd; multiplies keys so that all their bits reach the upper ones
_TABLES = (0, 12)  # first bit of the key of each table


class Matches(NamedTuple):
    """Pairs of codes that agree, sorted by picture, picture, mirror.

    Attributes:
        i: First picture, (matches,).
        j: Second picture, j > i.
        mirror: Index into `MIRRORS` that turns j into i.
        code_i: Which code of i: place, or PLACES + place for a narrow one.
        code_j: Which code of j.
        bits: In how many of CODE_BITS bits they differ.
    """

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    mirror: NDArray[np.int64]
    code_i: NDArray[np.int64]
    code_j: NDArray[np.int64]
    bits: NDArray[np.int64]


def code_matches(
    prints: NDArray[np.uint8],
    max_bits: int,
    mirrored: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """Pairs of codes of different pictures that agree on a key and differ in at most `max_bits` bits."""
    codes = _codes(prints).ravel()
    found: list[NDArray[np.int64]] = []
    bits_wanted = key_bits(len(codes))
    for number, first_bit in enumerate(_TABLES):
        packed, shift = _sorted_keys(codes, first_bit, bits_wanted, mirrored)
        for a, b in _neighbours(packed, shift):
            found.append(_agreeing(codes, a, b, max_bits, mirrored))
        if progress:
            progress(number + 1, len(_TABLES) + 1)
    rows = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 6), dtype=np.int64)
    return Matches(*rows.T)


def key_bits(codes: int) -> int:
    """Bits of a key, so that a code meets about one other by chance."""
    return int(np.clip(np.ceil(np.log2(max(codes, 2))) + 1, 14, 28))


def _codes(prints: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Codes as numbers, (pictures, 2 * PLACES): wide ones, then narrow ones."""
    width = CODE_BITS // 8
    codes = np.empty((len(prints), 2 * PLACES), dtype=np.uint64)
    for start in range(0, len(prints), _ROWS):
        block = np.asarray(prints[start : start + _ROWS, LAYOUT.wide.start : LAYOUT.narrow.stop])
        wide = np.zeros((len(block), 2 * PLACES, 8), dtype=np.uint8)
        wide[..., 8 - width :] = block.reshape(len(block), 2 * PLACES, width)
        codes[start : start + len(block)] = wide.view(">u8")[..., 0]
    return codes


def _sorted_keys(
    codes: NDArray[np.uint64], first_bit: int, bits: int, mirrored: bool
) -> tuple[NDArray[np.uint64], np.uint64]:
    """Hash of the key in the upper bits, number of the code in the lower `shift`; sorted."""
    shift = np.uint64(max(1, int(len(codes) - 1).bit_length()))
    mask = np.uint64(((1 << bits) - 1) << (CODE_BITS - first_bit - bits))
    packed = np.empty(len(codes), dtype=np.uint64)
    for start in range(0, len(codes), _PAIRS):
        block = codes[start : start + _PAIRS]
        key = block & mask
        if mirrored:
            for mirror in MIRRORS[1:]:
                key = np.minimum(key, (block ^ np.uint64(mirror)) & mask)
        numbers = np.arange(start, start + len(block), dtype=np.uint64)
        packed[start : start + len(block)] = ((key * _HASH) >> shift) << shift | numbers
    packed.sort()
    return packed, shift


def _neighbours(packed: NDArray[np.uint64], shift: np.uint64) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Numbers of codes that share a key, at most NEIGHBOURS apart in their bucket."""
    hashes = packed >> shift
    numbers = np.uint64((1 << int(shift)) - 1)
    at = np.flatnonzero(hashes[1:] == hashes[:-1])
    for step in range(1, NEIGHBOURS + 1):
        if step > 1:
            at = at[at + step < len(packed)]
            at = at[hashes[at] == hashes[at + step]]
        for start in range(0, len(at), _PAIRS):
            block = at[start : start + _PAIRS]
            yield (packed[block] & numbers).astype(np.int64), (packed[block + step] & numbers).astype(np.int64)


def _agreeing(
    codes: NDArray[np.uint64], a: NDArray[np.int64], b: NDArray[np.int64], max_bits: int, mirrored: bool
) -> NDArray[np.int64]:
    """Rows (i, j, mirror, code_i, code_j, bits) of the pairs that differ in few bits and lie in two pictures."""
    per = 2 * PLACES
    apart = a // per != b // per
    a, b = a[apart], b[apart]  # a < b, as numbers ascend in a bucket
    difference = codes[a] ^ codes[b]
    mirror = np.zeros(len(a), dtype=np.int64)
    bits = _count(difference)
    for number, mask in enumerate(MIRRORS[1:] if mirrored else (), start=1):
        other = _count(difference ^ np.uint64(mask))
        better = other < bits
        bits[better], mirror[better] = other[better], number
    near = bits <= max_bits
    a, b = a[near], b[near]
    return np.stack((a // per, b // per, mirror[near], a % per, b % per, bits[near]), axis=1)


def _count(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bits that are set in each 64-bit word."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(words).astype(np.int64)
    return _BITS_OF[words.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.int64)


_BITS_OF = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)
