"""Files of others, built and exported again: not a letter and not a pixel of their dialogues is lost."""

from __future__ import annotations

import json

import pytest
import yaml

from gastrovl.core.config import parse_config
from gastrovl.data.build import BuildConfig, build_dataset
from gastrovl.data.exporters import export_dataset

# More pixels than bins (999), fewer, and sides that swap when somebody takes height for width.
SIZES_WH = {
    "Set/Train/polyp/a.png": (1920, 1080),
    "Set/Train/ulcer/b.png": (217, 333),
    "Set/Test/none/c.png": (333, 217),
}
LARGE, TALL, WIDE = SIZES_WH
TALK = {
    LARGE: [
        ["Categorize the object.", "polyp"],
        ["Where is the polyp?", "{<1237><3><1919><1079>}"],
        ["Where is the  Polyp?", "{<1237><3><1919><1079>} {<1><2><3><1080>}"],
        ["What is in {<1237><3><1919><1079>}?", "polyp"],
        ["Is {<7><11><1003><777>} near {<1237><3><1919><1079>}?", "Yes, near {<100><101><1234><999>}."],
        ["What?", "polyp", "And where?", "{<1237><3><1919><1079>}", "How large is {<7><11><1003><777>}?", "Small."],
        ["Tell me \u201call\u201d.", "A  large\tpolyp,\nabout 5\u00a0mm \\n \U0001f600 \u00e9 e\u0301. "],
    ],
    TALL: [
        ["Categorize the object.", "ulcer"],
        ["Categorize the object.", "polyp"],  # two classes of one image are two records with one id
        ["Where is the ulcer?", "{<1><2><3><333>}"],
        ["What is in {<0><0><217><333>}?", "ulcer"],
    ],
    WIDE: [["Is it clean?", "Quite."], ["What is in {<0><0><333><217>}?", "polyp"]],
}


def turns(texts, mark="<image>\n"):
    said = [mark + texts[0], *texts[1:]]
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]


@pytest.fixture
def again(tmp_path, draw):
    """`again(records)` builds the records and exports them as ColonINST, and builds and exports that: both folders."""
    for seed, (name, size_wh) in enumerate(SIZES_WH.items()):
        draw(tmp_path / "set" / name, seed, size_wh)

    def build(description, root, name):
        settings = {
            "sources": [{"description": str(description), "root": str(root)}],
            "quality": {"copies": None},
            "figures": False,
            "conversations": {"absent_per_image": 0},
        }
        return build_dataset(parse_config(settings, BuildConfig, where="test"), tmp_path / name)

    def run(records, name="first"):
        (tmp_path / "set/train.json").write_text(json.dumps(records), encoding="utf-8")
        content = {
            "name": "own",
            "title": "Own",
            "licence": "CC0",
            "citation": "nobody",
            "images": ["Set/**/*.png"],
            "annotations": [
                {
                    "format": "conversations",
                    "files": {"train": "train.json"},
                    "labels": ["polyp", "ulcer"],
                    "wording": "source",
                }
            ],
            "labels": {"polyp": "polyp_unspecified", "ulcer": "ulcer_unspecified"},
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        first = export_dataset(build(tmp_path / "own.yaml", tmp_path / "set", "built"), "coloninst", tmp_path / name)
        second = build(first / "source.yaml", first, "built again")
        return [first, export_dataset(second, "coloninst", tmp_path / f"{name} again")]

    return run


def said_of(records):
    """(image with the two folders that hold it, dialogue) of every record."""
    return {("/".join(one["image"].split("/")[-3:]), json.dumps(one["conversations"])) for one in records}


@pytest.mark.parametrize("key", ["id", "image", "both"])
def test_no_letter_and_no_pixel_of_a_coloninst_file_is_lost(again, key):
    given = [
        {
            **({"id": name} if key != "image" else {"id": "7"}),
            **({"image": name} if key != "id" else {}),
            "turns": texts,
        }
        for name, dialogues in TALK.items()
        for texts in dialogues
    ]
    records = [{**one, "conversations": turns(one.pop("turns"))} for one in given]
    wanted = said_of([{**one, "image": one["image"] if key != "id" else one["id"]} for one in records])
    for folder in again(records):
        written = json.loads((folder / "train.json").read_text(encoding="utf-8"))
        assert wanted <= said_of(written)
        assert all(one["id"] == one["image"] and (folder / one["image"]).is_file() for one in written)


def test_a_second_export_differs_from_the_first_in_the_folder_of_its_images_alone(again):
    records = [
        {"id": name, "image": name, "conversations": turns(texts)} for name, all_of in TALK.items() for texts in all_of
    ]
    first, second = again(records)
    texts = [(folder / "train.json").read_text(encoding="utf-8") for folder in (first, second)]
    assert texts[0] != texts[1]

    def plain(text, source):
        rows = [json.loads(json.dumps(one).replace(f"{source}/own/", "own/")) for one in json.loads(text)]
        return sorted(json.dumps({**row, "source": "any"}, sort_keys=True) for row in rows)

    assert plain(texts[0], "exported_coloninst") == plain(texts[1], "exported_coloninst")


@pytest.mark.parametrize("mark", ["<image>\n", "<image>"])
def test_where_the_image_marker_stands_is_all_that_is_made_uniform(again, mark):
    records = [{"id": WIDE, "conversations": turns(["Is it clean?", "Quite."], mark)}]
    (wanted,) = said_of([{"image": WIDE, "conversations": turns(["Is it clean?", "Quite."])}])
    assert wanted in said_of(json.loads((again(records)[0] / "train.json").read_text(encoding="utf-8")))
