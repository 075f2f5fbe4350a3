"""The card: metadata as the Hub's own library reads it, and sections that follow from what was built."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import parse_config
from gastrovl.core.frontmatter import licence_fields, without_front_matter
from gastrovl.core.types import Box, Conversation, Finding, ImageRef, Sample, Split, Target, Task, Turn
from gastrovl.data.card import CardFacts, render_card
from gastrovl.data.citation import bibtex
from gastrovl.data.collect import CollectedSource
from gastrovl.data.config import BuildConfig
from gastrovl.data.frontmatter import front_matter, hub_split, size_category
from gastrovl.data.harmonise import Harmonised, LabelUse
from gastrovl.data.source import SourceDescription
from gastrovl.data.statistics import Tally

TAXONOMY = Taxonomy.load()


def described(name="own", **fields):
    content = {
        "name": name,
        "title": f"Frames of {name}",
        "licence": "CC BY 4.0",
        "citation": "Doe et al., Frames, Journal 7:283 (2020), doi:10.1038/s41597-020-00622-y",
        "images": ["*.png"],
        "annotations": [{"format": "class_folders"}],
        "labels": {},
        **fields,
    }
    return SourceDescription.model_validate(content)


@pytest.fixture
def facts():
    """`facts(source fields={...}, **fields of CardFacts)`: two training images, a REC and a CLS question in train."""

    def make(source=None, **fields):
        description = described(**(source or {}))
        uses = [
            LabelUse("own", "polyp", "gastric_polyp", (), None, 2, 2),
            LabelUse("own", "odd", None, (), "unclear", 1, 1),
        ]
        collected = CollectedSource(description, Path("own.yaml"), Path("own"), Harmonised(uses=uses), n_files=3)
        tally = Tally()
        for n, term in enumerate(("gastric_polyp", "antrum")):
            image = ImageRef(path=f"images/own/{n}.png", width_px=10, height_px=10, sha256="0" * 64)
            findings = (Finding(term=term, boxes=(Box(x0=0, y0=0, x1=0.5, y1=0.5),)),)
            sample = Sample(
                id=f"own/{n}", image=image, source="own", group=f"g{n}", split=Split.TRAIN, findings=findings
            )
            items = [
                Conversation(
                    id=f"{n}#{task}",
                    sample_id=sample.id,
                    task=task,
                    image=image,
                    source="own",
                    group=sample.group,
                    split=Split.TRAIN,
                    turns=(Turn(role="user", text="?"), Turn(role="assistant", text="!")),
                    target=Target(),
                )
                for task in (Task.REC, Task.CLS)
            ]
            tally.add(sample, {"train": items})
        quality = {
            "broken": [],
            "exact_duplicates": [],
            "copies": [],
            "dropped_by_official_split": [],
            "rotated_by_exif": [],
            "faults": {"text": {"images": 3, "action": "mask"}},
            "metadata_removed": 5,
        }
        config = parse_config({"sources": [{"synthetic": {"images": 1}}]}, BuildConfig, where="test")
        counts = tally.result([description], TAXONOMY, ["val_reworded"])
        return CardFacts(config, TAXONOMY.version, [collected], counts, quality, **fields)

    return make


def test_the_hub_s_library_reads_the_metadata(facts):
    data = DatasetCard(render_card(facts())).data.to_dict()
    assert (data["license"], data["language"], data["size_categories"]) == ("cc-by-4.0", ["en"], ["n<1K"])
    assert data["task_categories"] == ["image-classification", "object-detection"]
    # Splits without a conversation have an empty file, which the Hub cannot load.
    assert data["configs"] == [
        {"config_name": "conversations", "data_files": [{"split": "train", "path": "train.jsonl"}]}
    ]


def test_the_metadata_survives_the_hub_s_library(facts):
    card = DatasetCard(render_card(facts()))
    assert DatasetCard(str(card)).data.to_dict() == card.data.to_dict()
    assert card.text.lstrip().startswith("# Dataset card")


def test_the_card_has_the_sections_that_readers_look_for(facts):
    text = render_card(facts(extra_sections=["## Captions\n\nNone was refused."]))
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Dataset description",
        "## Dataset structure",
        "## Dataset creation",
        "## Statistics",
        "## Quality and leaks",
        "## Privacy",
        "## Captions",
        "## Considerations for use",
        "## Licensing",
        "## Citation",
    ]


def test_the_card_says_what_was_counted_and_left_out(facts):
    text = render_card(facts())
    for said in (
        "2 endoscopic images of `own` with 4 conversations",
        "Of the REC questions, 2 ask for something that is not there.",
        "| own | odd | unclear | 1 |",
        "A box covers 25% of its image in the median",
        "- Not in val: antrum, gastric polyp.",
        "the commonest has 1 times the images of the rarest, as uneven as 2.0 equally common ones",
        "suspected in 3 images (painted over)",
        "copies that lost some: 5",
    ):
        assert said in text


def test_figures_are_embedded_or_their_absence_is_stated(facts):
    names = [Path(f"figures/{name}.{kind}") for name in ("taxonomy", "tasks") for kind in ("png", "svg")]
    embedded = render_card(facts(figures=names))
    assert [line for line in embedded.splitlines() if line.startswith("![")] == [
        "![Images by place in the three-level taxonomy.](figures/taxonomy.png)",
        "![Conversations of each task by split.](figures/tasks.png)",
    ]
    assert "matplotlib was not installed" in render_card(facts(figures=()))
    assert "matplotlib" not in render_card(facts())


def test_a_private_source_is_named_under_privacy(facts):
    assert "not to be passed on without their owner's leave: `own`" in render_card(facts({"access": "private"}))
    assert "owner's leave" not in render_card(facts())


@pytest.mark.parametrize(
    ("licences", "fields"),
    [
        (["CC BY 4.0", "CC BY 4.0"], {"license": "cc-by-4.0"}),
        (["Apache-2.0"], {"license": "apache-2.0"}),
        (
            ["CC0", "CC BY-NC-SA 4.0"],
            {"license": "other", "license_name": "cc-by-nc-sa-4.0-and-cc0", "license_link": "README.md"},
        ),
        # A remark may change what a licence allows, so it is not taken for the plain one.
        (
            ["CC BY 4.0 (disputed)"],
            {"license": "other", "license_name": "cc-by-4.0-disputed", "license_link": "README.md"},
        ),
        ([""], {"license": "other", "license_name": "not-stated", "license_link": "README.md"}),
    ],
)
def test_only_one_plain_licence_is_called_by_the_hub_s_name(licences, fields):
    assert licence_fields(licences) == fields


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M")],
)
def test_sizes_have_the_hub_s_names(number, name):
    assert size_category(number) == name


def test_only_the_name_of_the_validation_split_changes():
    assert [hub_split(name) for name in ("train", "val", "val_reworded", "test_val", "value")] == [
        "train",
        "validation",
        "validation_reworded",
        "test_val",
        "value",
    ]


def test_front_matter_is_taken_off_again():
    head = front_matter(sources=["a"], licences=["MIT"], n_images=1, tasks=[Task.CLS], configs=[])
    assert yaml.safe_load(head.strip().strip("-"))["license"] == "mit"
    page = "# Title\n\n---\n\nA rule above.\n"
    assert without_front_matter(head + page) == page
    assert without_front_matter(page) == page


def test_a_citation_gives_what_can_be_told_apart_and_all_of_it_as_a_note():
    entry = bibtex([described(url="https://example.org/a_b", title="Frames & more")]).split("\n\n")[0]
    assert entry.splitlines() == [
        "@misc{own,",
        r"  title = {{Frames \& more}},",
        "  author = {Doe and others},",
        "  year = {2020},",
        "  doi = {10.1038/s41597-020-00622-y},",
        "  url = {https://example.org/a_b},",
        "  note = {Doe et al., Frames, Journal 7:283 (2020), doi:10.1038/s41597-020-00622-y}",
        "}",
    ]


def test_numbers_of_a_preprint_are_no_year():
    entry = bibtex([described(citation="Doe et al., Frames, arXiv:2011.07069")]).split("\n\n")[0]
    assert "  eprint = {2011.07069}," in entry
    assert "year" not in entry


def test_a_citation_without_authors_is_only_a_note():
    entry = bibtex([described(citation="unpublished")]).split("\n\n")[0]
    assert entry.splitlines() == ["@misc{own,", "  title = {{Frames of own}},", "  note = {unpublished}", "}"]
