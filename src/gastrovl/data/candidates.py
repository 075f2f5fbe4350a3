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

from gastrovl.data.fingerprint import CODE_BITS, LAYOUT, MIRRORS, NARROWER, PLACES, SQUARE_SIDE

NEIGHBOURS = 12
GUESSES = 3  # placements tried for one pair
LONE_BITS = 5  # bits in which two places may differ if no other place of their pictures looks alike
PER_PICTURE = 2 * PLACES
_ROWS = 16_384  # fingerprints read at once
_PAIRS = 1 << 20  # pairs of codes compared at once
_HASH = np.uint64(0x9E3779B97F4A7C15)  # odd; multiplies keys so that all their bits reach the upper ones
_TABLES = 4  # a key leaves out every fourth of the lowest bits, in each table another one


class Guesses(NamedTuple):
    """Pairs of pictures that may be copies, and how they might lie on each other, the likeliest first.

    Attributes:
        pairs: (i, j) with i < j, sorted, (pairs, 2).
        mirror: Index into `MIRRORS` that turns j into i, or -1 for no further guess, (pairs, GUESSES).
        placement: Scale x, shift x, scale y, shift y from i to j (`gastrovl.data.alignment.align`), (pairs, GUESSES, 4).
    """

    pairs: NDArray[np.int64]
    mirror: NDArray[np.int64]
    placement: NDArray[np.float32]

    def of(self, block: slice) -> Guesses:
        """Those of some pairs."""
        return Guesses(self.pairs[block], self.mirror[block], self.placement[block])


class Matches(NamedTuple):
    """Pairs of codes that agree: numbers of the codes a < b, the mirror that makes them agree, the bits they differ in.

    Code number n is code n % (2 PLACES) of picture n // (2 PLACES); the wide codes of a picture come first.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    mirror: NDArray[np.int64]
    bits: NDArray[np.int64]


def candidate_pairs(
    prints: NDArray[np.uint8],
    max_bits: int,
    mirrored: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Guesses:
    """Pairs of pictures with two places that look alike in both, or one that looks much alike.

    Args:
        prints: Fingerprints, (pictures, FINGERPRINT_BYTES); may be a memory map.
        max_bits: Codes that differ in more bits are not alike.
        mirrored: Codes of mirrored pictures are alike too.
        progress: Called with (tables done, tables).
    """
    matches = code_matches(prints, max_bits, mirrored, progress)
    picture_a, picture_b = matches.a // PER_PICTURE, matches.b // PER_PICTURE
    order = np.lexsort((matches.b, matches.a, matches.bits, picture_b, picture_a))
    i, j, mirror, bits = picture_a[order], picture_b[order], matches.mirror[order], matches.bits[order]
    code_i, code_j = matches.a[order] % PER_PICTURE, matches.b[order] % PER_PICTURE
    new = np.ones(len(i), dtype=np.bool_)
    new[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
    starts = np.flatnonzero(new)
    pair = np.cumsum(new) - 1
    other_place = (code_i % PLACES != (code_i % PLACES)[starts][pair]) & (mirror == mirror[starts][pair])
    likely = (np.bincount(pair, weights=other_place, minlength=len(starts)) > 0) | (bits[starts] <= LONE_BITS)
    rank = np.arange(len(i)) - starts[pair]
    kept = likely[pair] & (rank < GUESSES)
    row = (np.cumsum(likely) - 1)[pair[kept]]
    count = int(np.count_nonzero(likely))
    mirrors = np.full((count, GUESSES), -1, dtype=np.int64)
    placements = np.zeros((count, GUESSES, 4), dtype=np.float32)
    mirrors[row, rank[kept]] = mirror[kept]
    placements[row, rank[kept]] = _placement(prints, i[kept], j[kept], mirror[kept], code_i[kept], code_j[kept])
    return Guesses(np.stack((i[starts], j[starts]), axis=1)[likely], mirrors, placements)


def code_matches(
    prints: NDArray[np.uint8],
    max_bits: int,
    mirrored: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """Pairs of codes of different pictures that agree on a key and differ in at most `max_bits` bits, each once."""
    codes = _codes(prints).ravel()
    found: list[NDArray[np.int64]] = []
    for table in range(_TABLES):
        packed, shift = _sorted_keys(codes, key_mask(len(codes), table), mirrored)
        for a, b in _neighbours(packed, shift):
            found.append(_agreeing(codes, a, b, max_bits, mirrored))
        del packed
        if progress:
            progress(table + 1, _TABLES)
    rows = np.concatenate(found) if found else np.zeros((0, 4), dtype=np.int64)
    del found
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    rows = rows[order]
    first = np.ones(len(rows), dtype=np.bool_)
    first[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
    return Matches(*rows[first].T)


def _placement(
    prints: NDArray[np.uint8],
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    mirror: NDArray[np.int64],
    code_i: NDArray[np.int64],
    code_j: NDArray[np.int64],
) -> NDArray[np.float32]:
    """How j lies on i if one place of each is the same, (n, 4)."""
    wide_i, wide_j = code_i < PLACES, code_j < PLACES
    scale = np.where(wide_i == wide_j, 1.0, np.where(wide_i, 1 / NARROWER, NARROWER))
    turned = np.stack((1 - 2 * (mirror % 2), 1 - 2 * (mirror // 2)), axis=1)
    shift = turned * _places(prints, j, code_j) - scale[:, None] * _places(prints, i, code_i)
    return np.stack((scale, shift[:, 0], scale, shift[:, 1]), axis=1).astype(np.float32)


def _places(prints: NDArray[np.uint8], picture: NDArray[np.int64], code: NDArray[np.int64]) -> NDArray[np.float64]:
    """(x, y) of codes, -1 to 1 across the content, (n, 2)."""
    at = LAYOUT.places.start + 2 * (code % PLACES)
    where = np.stack((prints[picture, at], prints[picture, at + 1]), axis=1).astype(np.float64)
    centred: NDArray[np.float64] = (where + 0.5) * (2 / SQUARE_SIDE) - 1
    centred[code % PLACES == PLACES - 1] = 0  # the code of the whole
    return centred


def key_mask(codes: int, table: int) -> np.uint64:
    """The bits of a code that are the key of a table: so many that a code meets few others by chance."""
    bits = int(np.clip(np.ceil(np.log2(max(codes, 2))) + 1, 14, 27))
    lowest = -(-bits * _TABLES // (_TABLES - 1))
    return np.uint64(sum(1 << (CODE_BITS - 1 - bit) for bit in range(lowest) if bit % _TABLES != table))


def _codes(prints: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Codes as numbers, (pictures, 2 * PLACES): wide ones, then narrow ones."""
    width = CODE_BITS // 8
    codes = np.empty((len(prints), PER_PICTURE), dtype=np.uint64)
    for start in range(0, len(prints), _ROWS):
        block = np.asarray(prints[start : start + _ROWS, LAYOUT.wide.start : LAYOUT.narrow.stop])
        wide = np.zeros((len(block), PER_PICTURE, 8), dtype=np.uint8)
        wide[..., 8 - width :] = block.reshape(len(block), PER_PICTURE, width)
        codes[start : start + len(block)] = wide.view(">u8")[..., 0]
    return codes


def _sorted_keys(codes: NDArray[np.uint64], mask: np.uint64, mirrored: bool) -> tuple[NDArray[np.uint64], np.uint64]:
    """Hash of the key in the upper bits, number of the code in the lower `shift`; sorted."""
    shift = np.uint64(max(1, int(len(codes) - 1).bit_length()))
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
    """Rows (a, b, mirror, bits) of the pairs that differ in few bits and lie in two pictures."""
    apart = a // PER_PICTURE != b // PER_PICTURE
    a, b = a[apart], b[apart]  # a < b, as numbers ascend in a bucket
    difference = codes[a] ^ codes[b]
    mirror = np.zeros(len(a), dtype=np.int64)
    bits = _count(difference)
    for number, mask in enumerate(MIRRORS[1:] if mirrored else (), start=1):
        other = _count(difference ^ np.uint64(mask))
        better = other < bits
        bits[better], mirror[better] = other[better], number
    near = bits <= max_bits
    return np.stack((a[near], b[near], mirror[near], bits[near]), axis=1)


def _count(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bits that are set in each 64-bit word."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(words).astype(np.int64)
    return _BITS_OF[words.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.int64)


_BITS_OF = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)
