"""Near-duplicates by embedding: exact inside a bucket, few missed between buckets, files checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gastrovl.core.errors import SourceError
from gastrovl.data.embeddings import EmbeddingOptions, find_by_embedding, read_embeddings


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write(tmp_path, vectors, ids):
    np.save(tmp_path / "made.npy", vectors)
    (tmp_path / "made.json").write_text(json.dumps(ids), encoding="utf-8")
    return tmp_path / "made.npy"


def test_the_cosine_decides():
    vectors = unit(np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))  # cosines 0.8, 0.6 and 0
    assert find_by_embedding(vectors, EmbeddingOptions(cosine=0.79)) == [(0, 1, 0.8, "embedding")]
    assert [(copy.i, copy.j) for copy in find_by_embedding(vectors, EmbeddingOptions(cosine=0.59))] == [(0, 1), (1, 2)]


def test_planted_neighbours_among_thousands_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((3000, 64))
    copies = base[:300] + 0.1 * rng.standard_normal((300, 64))  # cosine about 0.995
    vectors = unit(np.concatenate((base, copies)))
    found = {(copy.i, copy.j) for copy in find_by_embedding(vectors, EmbeddingOptions())}
    planted = {(number, 3000 + number) for number in range(300)}
    assert found <= planted
    assert len(found) >= 297


def test_the_same_embeddings_give_the_same_pairs():
    vectors = unit(np.random.default_rng(1).standard_normal((1000, 3)))
    options = EmbeddingOptions(cosine=0.999)
    assert find_by_embedding(vectors, options) == find_by_embedding(vectors, options)


def test_embeddings_are_read_with_length_one(tmp_path):
    read = read_embeddings(write(tmp_path, np.array([[3.0, 4.0]]), ["a"]))
    assert read.ids == ["a"]
    assert read.vectors.tolist() == [pytest.approx([0.6, 0.8])]


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        (np.ones((2, 3)), ["a"], "1 ids for 2 embeddings"),
        (np.ones((2, 3)), ["a", "a"], "each once"),
        (np.ones((2, 3), dtype=np.int64), ["a", "b"], "expected floats"),
        (np.ones(3), ["a"], "expected floats"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), ["a", "b"], "embedding of 'b' is 0"),
        (np.array([[1.0, np.nan]]), ["a"], "not finite"),
    ],
)
def test_embeddings_that_cannot_be_right_are_refused(tmp_path, vectors, ids, message):
    with pytest.raises(SourceError, match=message):
        read_embeddings(write(tmp_path, vectors, ids))


def test_objects_in_an_array_are_never_unpickled(tmp_path):
    path = write(tmp_path, np.array([{"a": 1}], dtype=object), ["a"])
    with pytest.raises(SourceError, match="not an array of numbers"):
        read_embeddings(path)


def test_a_missing_list_of_ids_is_named(tmp_path):
    np.save(tmp_path / "made.npy", np.ones((1, 2)))
    with pytest.raises(SourceError, match=r"made\.json: no such file"):
        read_embeddings(tmp_path / "made.npy")
