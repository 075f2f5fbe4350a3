"""A whole build on a hand-made source: what it writes, that it repeats itself, and that it leaves nothing half-made."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import SourceError
from gastrovl.core.manifest import read_manifest
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Caption, Conversation, Sample, Split, Task, Verdict


def samples_of(folder):
    return list(read_records(folder / "records.jsonl", Sample))


def conversations_of(folder):
    return [item for split in Split for item in read_records(folder / f"{split.value}.jsonl", Conversation)]


def test_a_build_writes_all_of_its_files(build, config):
    folder = build(config(figures=True))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "audit.html",
        "audit.json",
        "figures",
        "harmonised.json",
        "images",
        "manifest.json",
        "quality.json",
        "quality.jsonl",
        "records.jsonl",
        "statistics.json",
        "statistics.md",
        "test.jsonl",
        "test_reworded.jsonl",
        "train.jsonl",
        "val.jsonl",
        "val_reworded.jsonl",
    ]


def test_folder_label_and_boxes_are_merged_into_one_sample(build, config):
    samples = {sample.id: sample for sample in samples_of(build(config()))}
    assert len(samples) == 12
    sample = samples["own/antrum/P0_1"]
    assert [(f.term, f.site, [box.xyxy for box in f.boxes]) for f in sample.findings] == [
        ("antrum", None, []),
        ("gastric_polyp", "antrum", [(0.1, 0.1, 0.6, 0.9)]),
    ]
    assert (sample.image.size_wh, sample.licence) == ((100, 50), "CC BY 4.0")


def test_no_patient_stands_in_two_splits(build, config):
    samples = samples_of(build(config()))
    by_patient = {}
    for sample in samples:
        by_patient.setdefault(sample.id.split("/")[-1].split("_")[0], set()).add(sample.split)
    assert len(by_patient) == 6
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert {sample.split for sample in samples} == set(Split)


def test_every_conversation_is_about_a_stored_image_and_keeps_its_split(build, config):
    folder = build(config())
    samples = {sample.id: sample for sample in samples_of(folder)}
    conversations = conversations_of(folder)
    assert {item.task for item in conversations} == {Task.CLS, Task.REC, Task.REG, Task.CAP}
    for item in conversations:
        sample = samples[item.sample_id]
        assert (item.split, item.group, item.image) == (sample.split, sample.group, sample.image)
        with Image.open(folder / item.image.path) as picture:
            assert picture.size == item.image.size_wh


def test_the_same_config_gives_the_same_bytes(build, config):
    first, second = build(config(), "first"), build(config(), "second")
    for name in (
        "records.jsonl",
        "train.jsonl",
        "val.jsonl",
        "test.jsonl",
        "statistics.json",
        "quality.json",
        "README.md",
        "audit.json",
    ):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_another_seed_words_and_divides_otherwise(build, config):
    first, second = build(config(), "first"), build(config(seed=8), "second")
    assert (first / "train.jsonl").read_bytes() != (second / "train.jsonl").read_bytes()


def test_look_alikes_of_different_patients_join_their_groups(build, config, source):
    original = source / "images/pylorus/P0_0.png"
    with Image.open(original) as picture:
        picture.resize((50, 25)).save(source / "images/antrum/P1_copy.jpg")
    folder = build(config(quality={"min_side_px": 16}))
    groups = {sample.id: sample.group for sample in samples_of(folder)}
    assert groups["own/pylorus/P0_0"] == groups["own/antrum/P1_copy"] == groups["own/pylorus/P1_2"]
    (pair,) = json.loads((folder / "quality.json").read_text())["copies"]
    assert {pair["a"], pair["b"]} == {"own/pylorus/P0_0", "own/antrum/P1_copy"}
    assert pair["labels_differ"]


def test_byte_equal_files_share_a_group_even_when_copies_are_not_looked_for(build, config, source):
    (source / "images/antrum/P5_copy.png").write_bytes((source / "images/pylorus/P0_0.png").read_bytes())
    folder = build(config(quality={"copies": None}))
    groups = {sample.id: sample.group for sample in samples_of(folder)}
    assert groups["own/pylorus/P0_0"] == groups["own/antrum/P5_copy"]
    assert json.loads((folder / "quality.json").read_text())["exact_duplicates"] == [
        ["own/antrum/P5_copy", "own/pylorus/P0_0"]
    ]


def test_images_that_their_embeddings_tie_join_their_groups(build, config, tmp_path):
    ids = [sample.id for sample in samples_of(build(config()))]
    vectors = np.eye(len(ids), dtype=np.float32)
    vectors[ids.index("own/antrum/P3_7")] = vectors[ids.index("own/pylorus/P0_0")]
    np.save(tmp_path / "made.npy", vectors)
    (tmp_path / "made.json").write_text(json.dumps(ids), encoding="utf-8")
    embeddings = {"file": str(tmp_path / "made.npy")}
    folder = build(config(quality={"embeddings": embeddings}), "tied")
    groups = {sample.id: sample.group for sample in samples_of(folder)}
    assert groups["own/pylorus/P0_0"] == groups["own/antrum/P3_7"]
    (pair,) = json.loads((folder / "quality.json").read_text())["copies"]
    assert (pair["a"], pair["b"], pair["how"]) == ("own/antrum/P3_7", "own/pylorus/P0_0", "embedding")
    assert "embeddings" in read_manifest(folder).inputs


def test_an_image_without_an_embedding_stops_the_build(build, config, tmp_path):
    np.save(tmp_path / "made.npy", np.ones((1, 4), dtype=np.float32))
    (tmp_path / "made.json").write_text('["own/antrum/P0_1"]', encoding="utf-8")
    with pytest.raises(
        SourceError, match=r"no embedding of 11 of 12 images, e\.g\. .*Make it again with `gastrovl data embed`"
    ):
        build(config(quality={"embeddings": {"file": str(tmp_path / "made.npy")}}))


def test_captions_by_a_model_come_first_in_training_and_are_counted_in_the_card(build, config, tmp_path):
    samples = [sample for sample in samples_of(build(config())) if sample.split is Split.TRAIN]
    texts = ["A gastric polyp is seen.", "No gastric polyp is seen.", None]  # true, false to its record, rejected
    captions = [
        Caption(
            sample_id=sample.id,
            image_sha256=sample.image.sha256,
            text=text,
            verdict=Verdict.ACCEPTED if text else Verdict.REJECTED,
            attempts=1,
            model="none",
            template="note",
            template_sha256="0" * 64,
            request_sha256="0" * 64,
        )
        for sample, text in zip(samples, texts, strict=False)
    ]
    write_records(tmp_path / "captions.jsonl", captions)
    folder = build(config(conversations={"captions": str(tmp_path / "captions.jsonl")}), "captioned")
    said = {item.sample_id: item.answer for item in conversations_of(folder) if item.task is Task.CAP}
    assert said[samples[0].id] == "A gastric polyp is seen."
    assert said[samples[1].id] not in texts
    uses = json.loads((folder / "statistics.json").read_text())["captions"]["uses"]
    assert (uses["used"], uses["no longer true to its record"], uses["rejected when it was written"]) == (1, 1, 1)
    assert "## Captions by a model" in (folder / "README.md").read_text()
    assert "captions" in read_manifest(folder).inputs


def test_large_images_are_stored_smaller_and_boxes_stay(build, config):
    folder = build(config(images={"max_side_px": 40}))
    sample = samples_of(folder)[0]
    assert sample.image.size_wh == (100, 50)
    with Image.open(folder / sample.image.path) as picture:
        assert picture.size == (40, 20)


@pytest.mark.parametrize(("mode", "links"), [("link", 2), ("copy", 1)])
def test_images_are_linked_or_copied(build, config, source, mode, links):
    folder = build(config(images={"mode": mode}))
    assert (source / "images/antrum/P0_1.png").stat().st_nlink == links
    assert (folder / "images/own/antrum/P0_1.png").is_file()


def test_excluded_images_stay_out_and_are_reported(build, config):
    folder = build(config())
    assert not (folder / "images/own/stool").exists()
    quality = json.loads((folder / "quality.json").read_text())
    assert quality["excluded"]["own"] == ["stool/S0_0.png", "stool/S0_1.png"]
    rows = json.loads((folder / "harmonised.json").read_text())["labels"]
    assert [row["reason"] for row in rows if row["label"] == "stool"] == ["lower GI tract"]


def test_the_card_names_licence_exclusions_splits_and_research_use(build, config):
    card = (build(config()) / "README.md").read_text()
    for text in (
        "CC BY 4.0",
        "| own | stool | lower GI tract | 2 |",
        "| own | polyp | gastric_polyp |",
        "research only",
    ):
        assert text in card


def test_the_manifest_holds_config_seed_licences_and_input_hashes(build, config):
    manifest = read_manifest(build(config()))
    assert (manifest.stage, manifest.seed, manifest.licences) == ("data build", 7, {"own": "CC BY 4.0"})
    assert set(manifest.inputs) == {"own (description)", "own (images and findings)"}
    assert manifest.config["splits"]["train"] == 0.8


def test_tasks_that_a_label_does_not_serve_are_not_asked(build, config):
    labels = {"antrum": "antrum", "pylorus": "pylorus", "stool": {"exclude": "lower GI tract"}}
    labels["polyp"] = {"term": "polyp_unspecified", "tasks": ["REC"]}
    assert {item.task for item in conversations_of(build(config({"labels": labels})))} == {Task.REC}


def test_only_exhaustive_labels_are_asked_for_in_vain(build, config, source):
    for path in (source / "bbox").glob("P0_*.txt"):
        path.unlink()
    settings = {"conversations": {"absent_per_image": 2}}
    absent = [c for c in conversations_of(build(config(**settings))) if c.task is Task.REC and not c.target.boxes]
    assert {c.sample_id for c in absent} == {"own/pylorus/P0_0", "own/antrum/P0_1"}
    assert {c.target.terms for c in absent} == {("gastric_polyp",)}
    silent = build(config({"exhaustive": False}, **settings), "silent")
    assert [c for c in conversations_of(silent) if c.task is Task.REC and not c.target.boxes] == []


def test_a_label_that_the_source_never_boxes_is_not_asked_for_in_vain(build, config):
    folder = build(config({"exhaustive": True}, conversations={"absent_per_image": 2}))
    asked = {term for item in conversations_of(folder) if item.task is Task.REC for term in item.target.terms}
    assert asked == {"gastric_polyp"}


def test_limit_takes_images_spread_over_the_source(build, config):
    settings = config()
    limited = settings.model_copy(update={"sources": (settings.sources[0].model_copy(update={"limit": 4}),)})
    folder = build(limited)
    assert [sample.id for sample in samples_of(folder)] == [
        "own/antrum/P0_1",
        "own/antrum/P3_7",
        "own/pylorus/P0_0",
        "own/pylorus/P3_6",
    ]
    assert "Left out by `limit`: `own` 8." in (folder / "README.md").read_text()


def test_progress_counts_every_step_to_its_end(build, config):
    heard = []
    build(config(quality={"copies": None}), progress=lambda step, done, total: heard.append((step, done, total)))
    assert [row for row in heard if row[1] == row[2]] == [
        ("looking at images", 12, 12),
        ("writing conversations", 12, 12),
    ]
