"""A file of embeddings made elsewhere to the pairs of pictures that are near-duplicates by their cosine.

Sub-quadratic: each embedding goes into the buckets of its nearest centres (drawn from the data and improved by a few
rounds of k-means on the sphere), and only those of one bucket are compared, exactly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.errors import SourceError
from gastrovl.data.copies import Copy

_PER_BUCKET = 256  # embeddings of a bucket, on average
_SAMPLE = 64  # embeddings a centre is fitted to, on average
_ROUNDS = 4
_ROWS = 2048


class EmbeddingOptions(Config):
    """Which embeddings count as those of near-duplicates.

    Attributes:
        cosine: Least cosine of two embeddings.
        buckets: In how many buckets each embedding is looked for; more find more and cost more.
        seed: Of the choice of centres.
    """

    cosine: float = Field(default=0.97, gt=0, le=1)
    buckets: int = Field(default=3, ge=1)
    seed: int = 0


class EmbeddingFile(EmbeddingOptions):
    """Embeddings of a dataset's images.

    Attributes:
        file: NAME.npy beside NAME.json, as `gastrovl data embed` writes them; ids are those of the records.
    """

    file: str


class Embeddings(NamedTuple):
    """Ids of pictures, and their embeddings of length 1, (pictures, width) float32."""

    ids: list[str]
    vectors: NDArray[np.float32]


def read_embeddings(path: Path) -> Embeddings:
    """Read `NAME.npy`, (pictures, width) of any float type, with the ids in `NAME.json`, a list in the same order.

    Raises:
        SourceError: A file is missing or no such array or list, they differ in number, or an embedding is 0 or not
            finite.
    """
    names = path.with_suffix(".json")
    for needed in (path, names):
        if not needed.is_file():
            raise SourceError(f"{needed}: no such file; embeddings are NAME.npy with a list of ids in NAME.json")
    try:
        vectors = np.load(path, allow_pickle=False)
        ids = json.loads(names.read_text(encoding="utf-8"))
    except (ValueError, EOFError) as error:
        raise SourceError(f"{path}: not an array of numbers with ids in {names.name} ({error})") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        found = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise SourceError(f"{path}: found {found}, expected floats, (pictures, width); save one row a picture")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids) or len(set(ids)) != len(ids):
        raise SourceError(f"{names}: expected a list of ids (text), each once")
    if len(ids) != len(vectors):
        raise SourceError(f"{names}: {len(ids)} ids for {len(vectors)} embeddings in {path.name}; expected as many")
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    if bad := np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))).tolist():
        raise SourceError(
            f"{path}: the embedding of {ids[bad[0]]!r} is 0 or not finite ({len(bad)} such); make it again"
        )
    return Embeddings(ids, (vectors / lengths[:, None]).astype(np.float32))


def copies_by_embedding(ids: Sequence[str], choice: EmbeddingFile) -> list[Copy]:
    """Near-duplicates among these images, by their places in `ids`.

    Raises:
        SourceError: The file cannot be read, or holds no embedding of some of the images.
    """
    path = Path(choice.file)
    known = read_embeddings(path)
    place = {name: row for row, name in enumerate(known.ids)}
    missing = [name for name in ids if name not in place]
    if missing:
        raise SourceError(
            f"{path}: holds no embedding of {len(missing):,} of {len(ids):,} images, e.g. {missing[0]!r}; expected one "
            "of each. Make it again with `gastrovl data embed`, or leave out `quality.embeddings`"
        )
    return find_by_embedding(known.vectors[[place[name] for name in ids]], choice)


def find_by_embedding(vectors: NDArray[np.float32], options: EmbeddingOptions) -> list[Copy]:
    """Pairs of rows with a cosine of `options.cosine` or more, sorted; `likeness` is the cosine.

    All that share a bucket are found, and every cosine is exact. Up to 256 rows share one bucket: nothing is missed.

    Args:
        vectors: Of length 1, (pictures, width).
        options: The threshold, and how far to look.
    """
    best: dict[tuple[int, int], float] = {}
    for bucket in _buckets(vectors, options):
        for start in range(0, len(bucket), _ROWS):  # bounds the memory of one product
            rows = bucket[start : start + _ROWS]
            cosines = vectors[rows] @ vectors[bucket].T
            for a, b in np.argwhere(cosines >= options.cosine):
                i, j = int(rows[a]), int(bucket[b])
                if i < j:
                    best[i, j] = round(min(1.0, float(cosines[a, b])), 4)
    return [Copy(i, j, likeness, "embedding") for (i, j), likeness in sorted(best.items())]


def _buckets(vectors: NDArray[np.float32], options: EmbeddingOptions) -> list[NDArray[np.int64]]:
    """Rows of each bucket, ascending."""
    count = -(-len(vectors) // _PER_BUCKET)
    if count <= 1:
        return [np.arange(len(vectors))]
    rng = np.random.default_rng(options.seed)
    sample = vectors[rng.choice(len(vectors), min(len(vectors), _SAMPLE * count), replace=False)]
    centres = sample[:count].copy()
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, centres, 1)[:, 0]
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    nearest = _nearest(vectors, centres, min(options.buckets, count))
    row, bucket = np.repeat(np.arange(len(vectors)), nearest.shape[1]), nearest.ravel()
    order = np.argsort(bucket, kind="stable")
    return np.split(row[order], np.searchsorted(bucket[order], np.arange(1, count)))


def _nearest(vectors: NDArray[np.float32], centres: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The `count` nearest centres of each row, (rows, count)."""
    nearest = np.empty((len(vectors), count), dtype=np.int64)
    for start in range(0, len(vectors), _ROWS):
        cosines = vectors[start : start + _ROWS] @ centres.T
        nearest[start : start + _ROWS] = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    return nearest
