"""Fingerprints to pairs of pictures that may be copies: places that look alike in both, found by sorting.

The work grows with the number of codes, not with its square. A key is a choice of the lowest bits of a code, in the
mirror image in which it is smallest; codes with the same key stand side by side once the keys are sorted, and a code is
compared with at most `NEIGHBOURS` codes that follow it there. So a crowded key (dark corners look alike in all frames)
stays cheap, and a large group of copies is still linked as a chain. Of the lowest bits each of the four tables leaves
out another quarter (the pigeonhole of multi-index hashing, Norouzi et al., CVPR 2012): two codes that differ in one of
those bits only share the key of one table, unless the key is crowded.

Two pictures are candidates if two of their places are alike and agree on how the pictures lie on each other, or if one
is so much alike that among so many pictures chance would not make it so.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.errors import SourceError
from gastrovl.data.fingerprint import CODE_BITS, LAYOUT, MIRRORS, NARROWER, PLACES, SQUARE_SIDE

NEIGHBOURS = 12
GUESSES = 3  # placements tried for one pair
MAX_PICTURES = 1 << 22
_PER_PICTURE = 2 * PLACES  # 64: 6 bits
_TABLES = 4
_AGREEING_SHIFT = 0.25  # of half a side; two places that put the pictures this near to each other agree
_ROWS = 16_384  # fingerprints read at once
_PAIRS = 1 << 19  # codes compared at once
_PAIR = np.uint64(18)  # bits of a packed match below its two pictures
_HASH = np.uint64(0x9E3779B97F4A7C15)  # odd; multiplies keys so that all their bits reach the upper ones

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]
Progress = Callable[[int, int], None]


class Guesses(NamedTuple):
    """Pairs of pictures that may be copies, and how they might lie on each other, the likeliest first.

    Attributes:
        pairs: (i, j) with i < j, sorted, (pairs, 2).
        mirror: Index into `MIRRORS` that turns j into i, or -1 for no further guess, (pairs, GUESSES).
        placement: Scale x, shift x, scale y, shift y from i to j (see `gastrovl.data.alignment.align`),
            (pairs, GUESSES, 4).
    """

    pairs: Numbers
    mirror: Numbers
    placement: NDArray[np.float32]

    def of(self, block: slice) -> Guesses:
        """Those of some pairs."""
        return Guesses(self.pairs[block], self.mirror[block], self.placement[block])


class Matches(NamedTuple):
    """Alike places: pictures i < j, sorted by them and then by bits; the mirror; the codes; the bits they differ in."""

    i: Numbers
    j: Numbers
    bits: Numbers
    mirror: Numbers
    code_i: Numbers
    code_j: Numbers

    def take(self, kept: NDArray[np.bool_]) -> Matches:
        """Some of the matches."""
        return Matches(*(column[kept] for column in self))


def candidate_pairs(
    prints: NDArray[np.uint8], max_bits: int, mirrored: bool, progress: Progress | None = None
) -> Guesses:
    """Pairs of pictures that may be copies.

    Args:
        prints: Fingerprints, (pictures, FINGERPRINT_BYTES); may be a memory map.
        max_bits: Codes that differ in more bits are not alike, 0 to 15.
        mirrored: Codes of mirrored pictures are alike too.
        progress: Called with (tables done, tables).

    Raises:
        SourceError: More than MAX_PICTURES pictures.
    """
    matches = code_matches(prints, max_bits, mirrored, progress)
    placement = _placement(prints, matches)
    lone = matches.bits <= lone_bits(len(prints))
    kept = lone | _agrees(matches, placement)
    matches, placement = matches.take(kept), placement[kept]
    new = np.ones(len(matches.i), dtype=np.bool_)
    new[1:] = (matches.i[1:] != matches.i[:-1]) | (matches.j[1:] != matches.j[:-1])
    starts = np.flatnonzero(new)
    pair = np.cumsum(new) - 1
    rank = np.arange(len(new)) - starts[pair]
    tried = rank < GUESSES
    mirrors = np.full((len(starts), GUESSES), -1, dtype=np.int64)
    placements = np.zeros((len(starts), GUESSES, 4), dtype=np.float32)
    mirrors[pair[tried], rank[tried]] = matches.mirror[tried]
    placements[pair[tried], rank[tried]] = placement[tried]
    return Guesses(np.stack((matches.i[starts], matches.j[starts]), axis=1), mirrors, placements)


def lone_bits(pictures: int) -> int:
    """Bits in which two places may differ if nothing else speaks for their pictures, -1 (never) to 4.

    On drawn clouds one bit more made chance matches about 3 times as many, so three times as many pictures, of which
    each meets three times as many others, lose one bit.
    """
    return int(np.clip(4 - np.ceil(np.log(max(pictures, 1) / 5_000) / np.log(3)), -1, 4))


def key_mask(codes: int, table: int) -> np.uint64:
    """The bits of a code that are the key of a table: so many that a code meets few others by chance.

    Bits of codes are neither fair nor independent, so four times as many codes need three bits more, not two.
    """
    bits = int(np.clip(np.ceil(1.5 * np.log2(max(codes, 2)) - 10), 14, 30))
    lowest = -(-bits * _TABLES // (_TABLES - 1))
    return np.uint64(sum(1 << (CODE_BITS - 1 - bit) for bit in range(lowest) if bit % _TABLES != table))


def code_matches(prints: NDArray[np.uint8], max_bits: int, mirrored: bool, progress: Progress | None = None) -> Matches:
    """Pairs of places that are alike; where another place agrees with a pair, or it alone would do, see `lone_bits`."""
    if len(prints) > MAX_PICTURES:
        raise SourceError(
            f"{len(prints)} pictures are too many to be compared at once; expected at most {MAX_PICTURES}: "
            "compare collections two at a time"
        )
    codes = _codes(prints)
    max_bits = min(max_bits, lone_bits(len(prints)) + 7)  # of many pictures, fewer matches fit into memory
    found: list[Words] = []
    for table in range(_TABLES):
        packed, shift = _sorted_keys(codes, key_mask(len(codes), table), mirrored)
        found.extend(_alike(codes, a, b, max_bits, mirrored) for a, b in _neighbours(packed, shift))
        del packed
        if progress:
            progress(table + 1, _TABLES)
    del codes
    words = np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)
    del found
    words.sort()
    first = np.ones(len(words), dtype=np.bool_)  # of those that several tables found
    np.not_equal(words[1:], words[:-1], out=first[1:])
    words = words[first]
    kept = np.zeros(len(words), dtype=np.bool_)
    kept[1:] = words[1:] >> _PAIR == words[:-1] >> _PAIR
    kept[:-1] |= kept[1:]
    kept |= (words >> np.uint64(14) & np.uint64(15)).astype(np.int8) <= lone_bits(len(prints))
    return _unpacked(words[kept])


def rows_of(prints: NDArray[np.uint8], rows: slice | Numbers) -> NDArray[np.uint8]:
    """A copy of some fingerprints; of a memory map, no page stays in this process' memory."""
    if isinstance(prints, np.memmap) and isinstance(prints.base, mmap.mmap) and prints.filename:
        fresh = np.memmap(prints.filename, dtype=prints.dtype, mode="r", offset=prints.offset, shape=prints.shape)
        return np.array(fresh[rows])
    return np.array(prints[rows])


def _codes(prints: NDArray[np.uint8]) -> Words:
    """Codes as numbers, (pictures * _PER_PICTURE,): of each picture the wide ones, then the narrow ones."""
    width = CODE_BITS // 8
    codes = np.empty((len(prints), _PER_PICTURE), dtype=np.uint64)
    for start in range(0, len(prints), _ROWS):
        block = rows_of(prints, slice(start, start + _ROWS))[:, LAYOUT.wide.start : LAYOUT.narrow.stop]
        words = np.zeros((len(block), _PER_PICTURE, 8), dtype=np.uint8)
        words[..., 8 - width :] = block.reshape(len(block), _PER_PICTURE, width)
        codes[start : start + len(block)] = words.view(">u8")[..., 0]
    return codes.reshape(-1)


def _sorted_keys(codes: Words, mask: np.uint64, mirrored: bool) -> tuple[Words, np.uint64]:
    """Hash of the key in the upper bits, number of the code in the lower `shift`; sorted."""
    shift = np.uint64(max(1, int(len(codes) - 1).bit_length()))
    packed = np.empty(len(codes), dtype=np.uint64)
    for start in range(0, len(codes), _PAIRS):
        block = codes[start : start + _PAIRS]
        key = block & mask
        for mirror in MIRRORS[1:] if mirrored else ():
            key = np.minimum(key, (block & mask) ^ (np.uint64(mirror) & mask))
        numbers = np.arange(start, start + len(block), dtype=np.uint64)
        packed[start : start + len(block)] = ((key * _HASH) >> shift) << shift | numbers
    packed.sort()
    return packed, shift


def _neighbours(packed: Words, shift: np.uint64) -> Iterator[tuple[Words, Words]]:
    """Numbers a < b of codes that share a key, at most NEIGHBOURS apart in the order of keys."""
    numbers = np.uint64((1 << int(shift)) - 1)
    for start in range(0, len(packed), _PAIRS):
        block = packed[start : start + _PAIRS + NEIGHBOURS]
        at = np.arange(min(_PAIRS, len(block)))
        for step in range(1, NEIGHBOURS + 1):
            at = at[: np.searchsorted(at, len(block) - step)]
            at = at[(block[at] ^ block[at + step]) >> shift == 0]
            if not len(at):
                break
            yield block[at] & numbers, block[at + step] & numbers


def _alike(codes: Words, a: Words, b: Words, max_bits: int, mirrored: bool) -> Words:
    """The pairs of codes that differ in few bits and belong to two pictures, each packed into one word."""
    per = np.uint64(6)
    apart = a >> per != b >> per
    a, b = a[apart], b[apart]
    difference = codes[a] ^ codes[b]
    bits, mirror = _count(difference), np.zeros(len(a), dtype=np.uint8)
    for number, mask in enumerate(MIRRORS[1:] if mirrored else (), start=1):
        other = _count(difference ^ np.uint64(mask))
        better = other < bits
        bits[better], mirror[better] = other[better], number
    near = bits <= max_bits
    a, b, bits, mirror = a[near], b[near], bits[near].astype(np.uint64), mirror[near].astype(np.uint64)
    word = (a >> per) << np.uint64(22) | b >> per  # 44 bits, then 4, 2, 6 and 6
    word = (word << np.uint64(4) | bits) << np.uint64(2) | mirror
    return (word << np.uint64(6) | a & np.uint64(63)) << np.uint64(6) | b & np.uint64(63)


def _field(words: Words, start: int, width: int) -> Numbers:
    return (words >> np.uint64(start) & np.uint64((1 << width) - 1)).astype(np.int64)


def _unpacked(words: Words) -> Matches:
    fields = ((40, 22), (18, 22), (14, 4), (12, 2), (6, 6), (0, 6))
    return Matches(*(_field(words, start, width) for start, width in fields))


def _agrees(matches: Matches, placement: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether one of the next three matches of the same pictures is another place and puts them in the same way."""
    agrees = np.zeros(len(matches.i), dtype=np.bool_)
    for step in (1, 2, 3):
        one, two = slice(None, -step), slice(step, None)
        both = (matches.i[one] == matches.i[two]) & (matches.j[one] == matches.j[two])
        both &= matches.mirror[one] == matches.mirror[two]
        both &= matches.code_i[one] % PLACES != matches.code_i[two] % PLACES
        both &= matches.code_j[one] % PLACES != matches.code_j[two] % PLACES
        both &= (np.abs(placement[one, 1::2] - placement[two, 1::2]) < _AGREEING_SHIFT).all(axis=1)
        agrees[one] |= both
        agrees[two] |= both
    return agrees


def _placement(prints: NDArray[np.uint8], matches: Matches) -> NDArray[np.float32]:
    """How j lies on i if the matching places are the same, (matches, 4)."""
    wide_i, wide_j = matches.code_i < PLACES, matches.code_j < PLACES
    scale = np.where(wide_i == wide_j, 1.0, np.where(wide_i, 1 / NARROWER, NARROWER)).astype(np.float32)
    turned = np.stack((1 - 2 * (matches.mirror % 2), 1 - 2 * (matches.mirror // 2)), axis=1).astype(np.float32)
    at_i, at_j = _places(prints, matches.i, matches.code_i), _places(prints, matches.j, matches.code_j)
    shift = turned * at_j - scale[:, None] * at_i
    return np.stack((scale, shift[:, 0], scale, shift[:, 1]), axis=1)


def _places(prints: NDArray[np.uint8], picture: Numbers, code: Numbers) -> NDArray[np.float32]:
    """(x, y) of codes, -1 to 1 across the content, (n, 2)."""
    places = np.empty((len(picture), 2), dtype=np.float32)
    order = np.argsort(picture, kind="stable")  # so that a memory map is read from front to back
    for start in range(0, len(order), _PAIRS):
        rows = order[start : start + _PAIRS]
        pictures, at = np.unique(picture[rows], return_inverse=True)
        known = np.empty((len(pictures), 2 * PLACES), dtype=np.uint8)
        for first in range(0, len(pictures), _ROWS):
            known[first : first + _ROWS] = rows_of(prints, pictures[first : first + _ROWS])[:, LAYOUT.places]
        column = 2 * (code[rows] % PLACES)
        places[rows, 0], places[rows, 1] = known[at, column], known[at, column + 1]
    centred: NDArray[np.float32] = (places + np.float32(0.5)) * np.float32(2 / SQUARE_SIDE) - np.float32(1)
    centred[code % PLACES == PLACES - 1] = 0  # the code of the whole
    return centred


def _count(words: Words) -> NDArray[np.uint8]:
    """Bits that are set in each 64-bit word."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        counts: NDArray[np.uint8] = np.bitwise_count(words)
        return counts
    halves: NDArray[np.uint8] = _BITS_OF[words.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8)
    return halves


_BITS_OF = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)
