"""Embeddings of a tiny random encoder find copies, and their file reads back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel
from typer.testing import CliRunner

from gastrovl.cli.data import app
from gastrovl.core.errors import ImageError, ModelInputError
from gastrovl.core.records import read_records
from gastrovl.core.types import Sample
from gastrovl.data.embeddings import EmbeddingOptions, find_by_embedding, read_embeddings
from gastrovl.inference.embed import embed_images, write_embeddings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(image_size=32, patch_size=8, **shape)).save_pretrained(folder)
    SiglipImageProcessorPil().save_pretrained(folder)
    return folder


@pytest.fixture
def paths(tmp_path):
    made = []
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        made.append(tmp_path / f"{seed}.png")
        Image.fromarray(pixels).save(made[-1])
    return made


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch(encoder, paths):
    together = embed_images(paths, encoder, batch_size=3)
    assert together.shape == (3, 32)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.allclose(together, embed_images(paths, encoder, batch_size=2), atol=1e-5)


def test_the_same_picture_twice_is_found_through_a_file(encoder, paths, tmp_path):
    embeddings = embed_images([*paths, paths[1]], encoder)
    write_embeddings(tmp_path / "out.npy", ["a", "b", "c", "b again"], embeddings)
    read = read_embeddings(tmp_path / "out.npy")
    found = find_by_embedding(read.vectors, EmbeddingOptions(cosine=0.99999))
    assert [(read.ids[copy.i], read.ids[copy.j]) for copy in found] == [("b", "b again")]


def test_no_images_and_broken_images_are_refused(encoder, tmp_path):
    with pytest.raises(ModelInputError, match="no images to embed"):
        embed_images([], encoder)
    with pytest.raises(ImageError, match="no such image"):
        embed_images([tmp_path / "gone.png"], encoder)


def test_ids_and_embeddings_must_be_as_many(tmp_path):
    with pytest.raises(ModelInputError, match="1 ids for 2 embeddings"):
        write_embeddings(tmp_path / "out.npy", ["a"], np.ones((2, 3), dtype=np.float32))


def test_a_dataset_is_embedded_by_the_command_line_and_built_again_with_what_was_found(encoder, tmp_path):
    """All of twelve drawn frames are alike to a random encoder, so that one group is left."""
    config = "sources:\n  - synthetic: {images: 12, seed: 3}\nquality: {copies: null%s}\nfigures: false\n"
    (tmp_path / "first.yaml").write_text(config % "", encoding="utf-8")
    file = tmp_path / "out.npy"
    choice = f", embeddings: {{file: {file}, cosine: 0.5}}"
    (tmp_path / "second.yaml").write_text(config % choice, encoding="utf-8")

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    run("build", tmp_path / "first.yaml", "-o", tmp_path / "first")
    assert "12 images" in run("embed", tmp_path / "first", "--encoder", encoder, "-o", file)
    run("build", tmp_path / "second.yaml", "-o", tmp_path / "second")
    groups = [
        {one.group for one in read_records(tmp_path / name / "records.jsonl", Sample)} for name in ("first", "second")
    ]
    assert [len(own) for own in groups] == [2, 1]
