"""The card of an export tells of the export's files, whatever the dataset's own card says of its folder."""

from __future__ import annotations

import pytest
from huggingface_hub import DatasetCard

from gastrovl.data.exporters import export_dataset

OWN = "# Dataset card\n\nOf six frames.\n\n## Dataset structure\n\n- `records.jsonl`\n\n## Licensing\n\nAll.\n"


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_the_section_on_files_is_that_of_the_export(tmp_path, whole_dataset, name):
    (whole_dataset / "README.md").write_text(OWN, encoding="utf-8")
    card = DatasetCard.load(export_dataset(whole_dataset, name, tmp_path / "out") / "README.md")
    assert [line for line in card.text.splitlines() if line.startswith("#")] == [
        "# Dataset card",
        "## Dataset structure",
        "## Licensing",
    ]
    assert "- `records.jsonl`" not in card.text
    assert card.text.index("Of six frames.") < card.text.index("Other files that this card names")


def test_rows_of_every_split_are_stated(tmp_path, whole_dataset):
    card = DatasetCard.load(export_dataset(whole_dataset, "parquet", tmp_path / "out") / "README.md")
    rows = {
        info["config_name"]: {one["name"]: one["num_examples"] for one in info["splits"]}
        for info in card.data.to_dict()["dataset_info"]
    }
    assert rows == {
        "conversations": {
            "train": 8,
            "validation": 2,
            "test": 2,
            "test_dialogues": 1,
            "validation_reworded": 1,
        },
        "images": {"train": 4, "validation": 1, "test": 1},
    }


def test_a_dataset_without_a_card_gets_what_its_records_tell(tmp_path, whole_dataset):
    (whole_dataset / "README.md").unlink()
    card = DatasetCard.load(export_dataset(whole_dataset, "webdataset", tmp_path / "out") / "README.md")
    assert card.data.license_name == "cc-by-4.0-and-cc0"
    assert card.text.lstrip().startswith("# Dataset card\n\n## Dataset structure\n")
