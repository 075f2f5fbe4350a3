"""Records come back as they were written; a broken line is named by file and line; the schemas are published."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core import records
from gastrovl.core.errors import RecordError
from gastrovl.core.types import (
    Box,
    Conversation,
    Finding,
    ImageRef,
    Prediction,
    Record,
    Sample,
    Split,
    Status,
    Target,
    Task,
    Turn,
)

IMAGE = ImageRef(path="images/drawn/a.jpg", width_px=640, height_px=480, sha256="0123456789abcdef" * 4)
BOX = Box(x0=0.1, y0=0.2, x1=0.3, y1=0.4)
SAMPLE = Sample(
    id="drawn/a",
    image=IMAGE,
    source="drawn",
    group="drawn/video-1",
    split=Split.TRAIN,
    findings=(
        Finding(term="gastric_polyp", site="antrum", boxes=(BOX,), confidence=0.5, origin="Pólyp"),
        Finding(term="gastric_ulcer", status=Status.ABSENT),
    ),
    text="A polyp, seen from near.",
    licence="CC BY 4.0",
)
CONVERSATION = Conversation(
    id="drawn/a#REC-0",
    sample_id="drawn/a",
    task=Task.REC,
    image=IMAGE,
    source="drawn",
    group="drawn/video-1",
    split=Split.TRAIN,
    turns=(
        Turn(role="user", text="Where is the polyp?", alternatives=("Find the polyp.",)),
        Turn(role="assistant", text="[100,200,300,400]"),
    ),
    target=Target(terms=("gastric_polyp",), boxes=(BOX,)),
)
PREDICTION = Prediction(
    conversation_id="drawn/a#REC-0", text="[100,200,\n300", model="nano", seconds=0.25, stop_reason="length"
)
ALL = [SAMPLE, CONVERSATION, PREDICTION]


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_a_record_of_every_kind_comes_back_equal(tmp_path, record):
    path = tmp_path / "records.jsonl"
    assert records.write_records(path, [record, record]) == 2
    assert list(records.read_records(path, type(record))) == [record, record]


@given(text=st.text(), seconds=st.floats(0, 1e9), confidence=st.none() | st.floats(0, 1))
def test_any_reply_survives_its_line(text, seconds, confidence):
    prediction = Prediction(
        conversation_id="c", text=text, confidence=confidence, model="m", seconds=seconds, stop_reason="end"
    )
    line = records.to_line(prediction)
    assert "\n" not in line
    assert records.from_line(line, Prediction, "x:1") == prediction


@given(text=st.text(min_size=1))
def test_any_reply_survives_its_file(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("records") / "predictions.jsonl"
    written = [PREDICTION.model_copy(update={"text": text}), PREDICTION]
    records.write_records(path, written)
    assert list(records.read_records(path, Prediction)) == written


def test_a_line_carries_its_schema_and_only_what_is_not_default():
    content = json.loads(records.to_line(PREDICTION))
    assert content["schema"] == "gastrovl/prediction/1"
    assert "confidence" not in content


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    path = tmp_path / "predictions.jsonl"
    line = records.to_line(PREDICTION)
    path.write_text(f"{line}\n\n  \n{line}\n", encoding="utf-8-sig")
    assert list(records.read_records(path, Prediction)) == [PREDICTION, PREDICTION]


def test_a_half_written_line_names_file_line_and_remedy(tmp_path):
    path = tmp_path / "predictions.jsonl"
    line = records.to_line(PREDICTION)
    path.write_text(f"{line}\n{line[:40]}", encoding="utf-8")
    with pytest.raises(RecordError, match=r"predictions\.jsonl:2: not a whole JSON object.*cut off.*Write it again"):
        list(records.read_records(path, Prediction))


def test_lines_before_a_broken_one_can_still_be_read(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(records.to_line(PREDICTION) + "\n{", encoding="utf-8")
    assert next(records.read_records(path, Prediction)) == PREDICTION


def test_bytes_that_are_no_text_name_file_and_line(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(records.to_line(PREDICTION).encode() + b"\n\xff\xfe\n")
    with pytest.raises(RecordError, match=r"predictions\.jsonl:2: not UTF-8 text"):
        list(records.read_records(path, Prediction))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[1, 2]", "found a JSON list, expected one object a line"),
        ("null", "found a JSON NoneType"),
        ("[" * 100_000, "not a whole JSON object"),
        ('{"seconds": ' + "9" * 5000 + "}", "not a whole JSON object"),
        ("{}", "found schema None, expected 'gastrovl/prediction/1'; this is no file of gastrovl/prediction records"),
        ('{"schema": "gastrovl/sample/1"}', "'gastrovl/sample/1', expected 'gastrovl/prediction/1'; this is no file"),
        ('{"schema": "gastrovl/prediction/2"}', "written by another version of gastrovl; make it again"),
        ('{"schema": ["gastrovl"]}', "this is no file of"),
    ],
)
def test_a_line_of_another_kind_is_refused(line, complaint):
    with pytest.raises(RecordError, match=complaint) as raised:
        records.from_line(line, Prediction, "file.jsonl:7")
    assert str(raised.value).startswith("file.jsonl:7: ")


def _changed(record: Record, **changes: object) -> str:
    return json.dumps({**json.loads(records.to_line(record)), **changes})


@pytest.mark.parametrize(
    ("line", "kind", "complaint"),
    [
        (_changed(PREDICTION, seconds=-1), Prediction, r"seconds: .*greater than or equal to 0 \(found -1\)"),
        (_changed(PREDICTION, reply="x"), Prediction, "reply: Extra inputs are not permitted"),
        (_changed(CONVERSATION, task="SING"), Conversation, "task: .*'SING'"),
        (_changed(CONVERSATION, turns=[]), Conversation, "turns: "),
        (_changed(SAMPLE, split="holdout"), Sample, "split: .*'train', 'val' or 'test'"),
        (_changed(CONVERSATION, target={"boxes": [{"x0": 0.5, "y0": 0, "x1": 0.1, "y1": 1}]}), Conversation,
         r"box \(0\.5, 0\.0, 0\.1, 1\.0\) is reversed or empty"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_was_found(line, kind, complaint):
    with pytest.raises(RecordError, match=complaint) as raised:
        records.from_line(line, kind, "file.jsonl:7")
    assert str(raised.value).startswith("file.jsonl:7: ")


def test_a_missing_file_says_what_was_expected(tmp_path):
    with pytest.raises(RecordError, match=r"gone\.jsonl: no such file; expected a JSONL file of gastrovl/sample/1"):
        list(records.read_records(tmp_path / "gone.jsonl", Sample))


def test_a_generator_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "predictions.jsonl"
    records.write_records(path, [PREDICTION])
    before = path.read_bytes()

    def failing():
        yield PREDICTION
        yield PREDICTION
        raise RuntimeError("the model fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        records.write_records(path, failing())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_kind_that_is_not_written_as_lines_is_refused():
    with pytest.raises(TypeError, match="Box is not written as JSONL"):
        records.schema_name(Box)


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_a_line_has_only_fields_of_its_schema_and_all_required_ones(record):
    schema = records.json_schema(type(record))
    line = json.loads(records.to_line(record))
    assert line.keys() <= schema["properties"].keys()
    assert set(schema["required"]) <= line.keys()
    assert schema["properties"]["schema"]["const"] == line["schema"]
    assert schema["additionalProperties"] is False


def test_the_schema_says_that_box_edges_are_fractions():
    edges = records.json_schema(Sample)["$defs"]["Box"]["properties"]
    assert {name: (edge["minimum"], edge["maximum"]) for name, edge in edges.items()} == dict.fromkeys(
        ("x0", "y0", "x1", "y1"), (0, 1)
    )


@pytest.mark.parametrize("name", sorted(records.KINDS))
def test_the_published_schema_is_up_to_date(repository, name):
    path = repository / "docs" / "reference" / "schemas" / f"{name}.schema.json"
    remedy = f"{path.relative_to(repository)} differs from the code; run `make schemas` and commit the result"
    assert path.is_file(), remedy
    assert json.loads(path.read_text(encoding="utf-8")) == records.json_schema(records.KINDS[name]), remedy


def test_the_module_writes_the_schemas_where_it_is_told(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "gastrovl.core.records", str(tmp_path / "schemas")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert [Path(line).name for line in printed] == [f"{name}.schema.json" for name in records.KINDS]
    assert all(Path(line).is_file() for line in printed)


def test_the_module_without_a_folder_says_how_it_is_used():
    result = subprocess.run([sys.executable, "-m", "gastrovl.core.records"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "usage: python -m gastrovl.core.records FOLDER" in result.stderr
