"""What stops a build: the error, and nothing left behind but work that need not be done again."""

from __future__ import annotations

import json

import pytest

from gastrovl.core.config import parse_config
from gastrovl.core.errors import ConfigError, ImageError, LabelError, OutputError, SourceError
from gastrovl.core.records import read_records
from gastrovl.core.types import Sample, Split
from gastrovl.data.build import BuildConfig, build_dataset


def samples_of(folder):
    return list(read_records(folder / "records.jsonl", Sample))


@pytest.fixture
def refuse(build, tmp_path):
    """`refuse(config, error)`: the message of the build's error, after checking that nothing was left behind.

    `is_kept`: images were looked at, so that work is kept for the next build.
    """

    def run(settings, error, is_kept=False):
        with pytest.raises(error) as caught:
            build(settings)
        left = [path.name for path in (tmp_path / "built").iterdir()] if (tmp_path / "built").exists() else []
        assert left == ([".out.partial"] if is_kept else [])
        return str(caught.value)

    return run


def test_broken_images_of_every_kind_stop_with_one_list(refuse, config, source, bomb):
    images = source / "images"
    cut = images / "antrum/P0_1.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (images / "antrum/P7_empty.png").touch()
    (images / "antrum/P8_text.png").write_text("no pixels")
    bomb(images / "antrum/P9_bomb.png")
    (source / "bbox/P6_gone.txt").write_text("1 1 5 5 polyp\n", encoding="utf-8")
    message = refuse(config(), ImageError, is_kept=True)
    assert "5 images cannot be used" in message
    for text in (
        "P0_1.png: truncated or damaged",
        "P7_empty.png: empty (0 bytes)",
        "P8_text.png: not an image",
        "P9_bomb.png: claims too many pixels",
        "P6_gone: missing, although",
        "P6_gone.txt:1 names it",
    ):
        assert text in message


def test_broken_images_are_skipped_on_request_and_recorded(build, config, source, bomb):
    bomb(source / "images/antrum/P9_bomb.png")
    (source / "images/antrum/P0_1.png").write_bytes(b"")
    folder = build(config(quality={"on_broken_image": "skip"}))
    assert len(samples_of(folder)) == 11
    broken = json.loads((folder / "quality.json").read_text())["broken"]
    assert [row["path"].rsplit("/", 1)[-1] for row in broken] == ["P0_1.png", "P9_bomb.png"]
    assert "left out: 2" in (folder / "README.md").read_text()


def test_a_wrong_box_order_names_the_line_and_the_remedy(refuse, config, source):
    (source / "bbox/P0_0.txt").write_text("60 5 10 45 polyp\n", encoding="utf-8")
    message = refuse(config(), SourceError)
    assert "P0_0.txt:1: box 60 5 10 45 is reversed" in message
    assert "`box_order: xywh`" in message


def test_an_unknown_label_stops_before_any_image_is_decoded(refuse, config, source, draw):
    draw(source / "images/fundus/P9_0.png").write_bytes(b"")
    message = refuse(config(), LabelError)
    assert "own: 'fundus', 1 times" in message
    assert "nearest terms" in message


def test_an_unknown_term_in_the_description_is_named(refuse, config):
    labels = {"antrum": "antrumm", "pylorus": "pylorus", "polyp": "gastric_polyp", "stool": {"exclude": "x"}}
    assert "labels.antrum: term 'antrumm'; nearest terms: antrum" in refuse(config({"labels": labels}), LabelError)


def test_a_source_twice_is_refused(refuse, config):
    settings = config()
    assert "own is listed twice" in refuse(settings.model_copy(update={"sources": settings.sources * 2}), ConfigError)


def test_a_relative_root_without_a_data_root_says_how_to_give_one(config, tmp_path, monkeypatch):
    monkeypatch.delenv("GASTROVL_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"--data-root FOLDER or set GASTROVL_DATA"):
        build_dataset(config(), tmp_path / "out")


def test_the_data_root_may_come_from_the_environment(config, tmp_path, monkeypatch, source):
    monkeypatch.setenv("GASTROVL_DATA", str(source.parent))
    assert len(samples_of(build_dataset(config(), tmp_path / "out"))) == 12


def test_a_source_of_excluded_labels_only_is_refused(refuse, config, source):
    for folder in ("antrum", "pylorus"):
        for path in (source / "images" / folder).iterdir():
            path.unlink()
    for path in (source / "bbox").iterdir():
        path.unlink()
    assert "no image is left" in refuse(config(), SourceError)


def test_an_official_split_that_parts_look_alikes_stops_or_drops(refuse, build, config, source):
    for split, patients in (("train", (0, 1, 2, 3)), ("test", (4, 5))):
        names = [f"P{n // 2}_{n}" for n in range(12) if n // 2 in patients]
        (source / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")
    copy = source / "images/antrum/P0_1.png"
    copy.write_bytes((source / "images/antrum/P4_9.png").read_bytes())
    official = {"official_split": {"lists": {"train": "train.txt", "test": "test.txt"}}}
    assert "the official split parts 1 groups" in refuse(config(official), SourceError, is_kept=True)
    folder = build(config(official, splits={"on_parted_group": "drop"}))
    dropped = json.loads((folder / "quality.json").read_text())["dropped_by_official_split"]
    assert dropped == ["own/antrum/P0_1", "own/pylorus/P0_0"]  # all of patient 0, whose other frame is in the test set
    assert sum(sample.split is Split.TEST for sample in samples_of(folder)) == 4


def test_an_output_that_holds_something_else_is_left_alone(build, config, tmp_path):
    (tmp_path / "built/out").mkdir(parents=True)
    (tmp_path / "built/out/thesis.tex").write_text("precious")
    for is_replaced in (False, True):
        with pytest.raises(OutputError):
            build(config(), is_replaced=is_replaced)
    assert (tmp_path / "built/out/thesis.tex").read_text() == "precious"


def test_a_dataset_is_replaced_only_on_request(build, config):
    build(config())
    with pytest.raises(OutputError, match="--overwrite"):
        build(config())
    build(config(seed=8), is_replaced=True)


def test_a_drawn_set_is_built_without_any_files(tmp_path):
    content = {"sources": [{"synthetic": {"images": 18, "seed": 3}}], "quality": {"copies": None}, "figures": False}
    folder = build_dataset(parse_config(content, BuildConfig, where="test"), tmp_path / "out")
    samples = samples_of(folder)
    assert len(samples) == 18
    assert len({sample.group for sample in samples}) == 3  # an examination is one frame at each of six sites
    assert not (folder / ".drawn").exists()


def test_a_choice_is_a_description_with_root_or_a_drawn_set():
    for wrong in ({}, {"description": "edd2020"}, {"description": "edd2020", "root": "x", "synthetic": {"images": 3}}):
        with pytest.raises(ConfigError, match=r"sources\.0"):
            parse_config({"sources": [wrong]}, BuildConfig, where="test")
