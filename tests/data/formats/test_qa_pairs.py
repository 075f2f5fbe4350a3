"""Questions with answers, from CSV and JSON."""

from __future__ import annotations

import json

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Task
from gastrovl.data.formats.qa_pairs import Options, read
from gastrovl.data.images import list_images


@pytest.fixture
def read_pairs(tmp_path, draw):
    """Annotations of a.png by the table `text` in a file of the given name."""

    def run(text, name="qa.csv", **options):
        draw(tmp_path / "images/a.png")
        (tmp_path / name).write_text(text, encoding="utf-8")
        images = list_images(tmp_path, ["images/*.png"], max_px=10_000)
        return list(read(tmp_path, Options(file=name, **options), images))

    return run


def test_a_row_is_a_dialogue_word_by_word(read_pairs):
    (found,) = read_pairs('image,question,answer,patient\na.png,"Any polyp, here?","No;\nnone.",P7\n', group="patient")
    assert (found.label, found.group) == (None, "P7")
    assert (found.dialogue.task, found.dialogue.turns) == (Task.VQA, (("Any polyp, here?", "No;\nnone."),))


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_objects_are_rows(read_pairs, suffix):
    entry = {"img": "a", "q": "How many?", "a": 2}
    text = json.dumps([entry]) if suffix == "json" else json.dumps(entry)
    (found,) = read_pairs(text, f"qa.{suffix}", image="img", question="q", answer="a")
    assert found.dialogue.turns == (("How many?", "2"),)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("image,question,answer\na,What?,\n", "qa.csv", r"qa\.csv:2: column 'answer' is empty"),
        ("image,question\na,What?\n", "qa.csv", "expected also answer"),
        ("image,question,answer,answer\na,b,c,d\n", "qa.csv", "column 'answer' is there twice"),
        ("image,question,answer\na,What, then?,Yes\n", "qa.csv", r"qa\.csv:2: found 4 cells"),
        ("", "qa.csv", "found columns none"),
        ('[{"image": "a", "question": "What?"}]', "qa.json", "expected an object with image, question, answer"),
        ('{"a": 1}', "qa.json", "expected a list of objects"),
        ('[{"image": "a", "question": "What?", "answer": ["x"]}]', "qa.json", "answer: found .*expected one value"),
    ],
)
def test_a_wrong_table_is_named(read_pairs, text, name, message):
    with pytest.raises(SourceError, match=message):
        read_pairs(text, name)
