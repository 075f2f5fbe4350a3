"""Rating sheets: nobody can tell whose reply a row is, spreadsheets do no harm, what comes back is read strictly."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter

import pytest
from PIL import Image

from gastrovl.core.errors import OutputError, RecordError
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Rating
from gastrovl.evaluation.judging.returned import import_sheets
from gastrovl.evaluation.judging.sheets import SheetOptions, blinded, export_sheets, safe_cell

MODELS = ("acme/EndoNet-7B", "zweitmodell")


@pytest.fixture
def exported(captions, replies, tmp_path):
    """`exported(raters=2, ...)` exports ten captions of two models; returns the folder."""
    asked = captions(10)
    files = [replies(asked, name, lambda _, truth, name=name: f"{truth} So says {name}.") for name in MODELS]

    def export(**named):
        options = SheetOptions(**({"raters": 2, "questions": 6, "repeated": 0.25} | named))
        export_sheets(files, asked, tmp_path / "rating", options=options)
        return tmp_path / "rating"

    return export


def rows_of(folder, rater="rater-1"):
    text = (folder / "for-raters" / f"{rater}.csv").read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def key_of(folder):
    return json.loads((folder / "key.json").read_text("utf-8"))


def fill(folder, rater, level, *, separator=",", encoding="utf-8-sig", write=str, change=None):
    """Fill a sheet as a spreadsheet would write it: `level(row)` gives the levels, `write` how a number looks."""
    rows = rows_of(folder, rater)
    for row in rows:
        for name, value in level(row).items():
            row[name] = write(value)
    if change:
        rows = change(rows)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), delimiter=separator, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    path = folder / f"filled-{rater}.csv"
    path.write_bytes(stream.getvalue().encode(encoding))
    return path


def levels(_row, correct=3, complete=4, harmful=0):
    return {"correct (0-4)": correct, "complete (0-4)": complete, "harmful (0-2)": harmful}


def test_no_name_of_a_model_stands_anywhere_in_what_raters_get(exported):
    folder = exported(with_images=True)
    found = []
    for path in (folder / "for-raters").rglob("*"):
        content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        for name in (*MODELS, "EndoNet", "acme", "drawn/", "predictions"):
            if name.lower().encode() in content.lower():
                found.append((path.name, name))
    assert found == []
    assert {one["model"] for codes in key_of(folder)["sheets"].values() for one in codes.values()} == set(MODELS)
    assert "Keep this file from the raters" in key_of(folder)["warning"]


def test_a_name_inside_a_reply_is_blinded_whole_and_in_parts():
    assert blinded("I am ENDONET-7b of acme, no acmeist", MODELS) == "I am [model] of [model], no acmeist"
    assert blinded("an ulcer of 7 B", ("B",)) == "an ulcer of 7 B"  # too short to be told from a word


def test_every_rater_gets_the_same_replies_in_another_order_and_some_twice(exported):
    folder = exported()
    seen, orders = [], []
    for rater in ("rater-1", "rater-2"):
        codes = key_of(folder)["sheets"][rater]
        shown = [codes[row["row"]] for row in rows_of(folder, rater)]
        first = [(one["conversation_id"], one["model"]) for one in shown if not one["is_repeat"]]
        again = [(one["conversation_id"], one["model"]) for one in shown if one["is_repeat"]]
        assert (len(first), len(again)) == (12, 3)
        assert set(again) < set(first)
        places = [(one["conversation_id"], one["model"]) for one in shown]
        assert all(places.index(pair) < 6 <= len(places) - 1 - places[::-1].index(pair) for pair in again)
        seen.append(set(first))
        orders.append(first)
    assert seen[0] == seen[1]
    assert orders[0] != orders[1]
    assert not set(key_of(folder)["sheets"]["rater-1"]) & set(key_of(folder)["sheets"]["rater-2"])


def test_models_do_not_alternate_in_a_pattern(exported):
    codes = key_of(exported(questions=10, repeated=0))["sheets"]["rater-1"]
    order = [one["model"] for one in codes.values()]
    assert len(set(zip(order[::2], order[1::2], strict=True))) > 2


def test_the_same_seed_gives_the_same_sheets(exported, tmp_path):
    first = {path.name: path.read_bytes() for path in (exported() / "for-raters").iterdir()}
    (tmp_path / "rating").rename(tmp_path / "before")
    assert {path.name: path.read_bytes() for path in (exported() / "for-raters").iterdir()} == first
    (tmp_path / "rating").rename(tmp_path / "again")
    assert (exported(seed=8) / "for-raters" / "rater-1.csv").read_bytes() != first["rater-1.csv"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1", "'+1"),
        ("- a polyp", "'- a polyp"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        (" =1", "' =1"),
        ("\n\n=1", "'\n\n=1"),
        ("a = b", "a = b"),
        ("nul\x00and bell\x07", "nul and bell "),
    ],
)
def test_no_cell_is_worked_out_by_a_spreadsheet(text, shown):
    assert safe_cell(text) == shown


def test_a_cell_is_never_longer_than_a_spreadsheet_holds():
    assert len(safe_cell("=" * 1_000_000)) < 32_767


def test_a_sheet_opens_as_utf_8_and_holds_any_text(captions, replies, tmp_path):
    asked = captions(1)
    nasty = 'Läsion "klein"; 5,5 mm,\r\nzweite Zeile 胃 😀 =1+1'
    folder = tmp_path / "rating"
    export_sheets([replies(asked, "m9x", lambda *_: nasty)], asked, folder, options=SheetOptions(raters=1, repeated=0))
    assert (folder / "for-raters" / "rater-1.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert rows_of(folder)[0]["reply"] == nasty


def test_images_are_small_copies_without_metadata_under_names_that_say_nothing(exported):
    folder = exported(with_images=True, most_side_px=64)
    names = {row["image"] for row in rows_of(folder)}
    assert names == {f"images/{number:04}.jpg" for number in range(1, 7)}
    for name in names:
        with Image.open(folder / "for-raters" / name) as image:
            assert max(image.size) <= 64
            assert not image.getexif()


def test_a_name_in_the_comment_of_an_image_file_stays_behind(captions, replies, tmp_path):
    asked = captions(1)
    named = asked.parent / "images" / "0.jpg"
    with Image.open(asked.parent / "images" / "0.png") as image:
        image.save(named, "JPEG", comment=b"a patient's name")
    asked.write_text(asked.read_text("utf-8").replace("images/0.png", "images/0.jpg"), "utf-8")
    folder = tmp_path / "rating"
    options = SheetOptions(raters=1, with_images=True)
    export_sheets([replies(asked, "m9x", lambda _, truth: truth)], asked, folder, options=options)
    assert b"a patient's name" in named.read_bytes()
    assert b"a patient's name" not in (folder / "for-raters" / "images" / "0001.jpg").read_bytes()


def test_instructions_give_every_level_and_where_the_scale_is_from(exported):
    text = (exported() / "for-raters" / "instructions.md").read_text("utf-8")
    for words in ("not a medical device", "3 (mostly right)", "2 (severe)", "Singhal et al.", "caption/1"):
        assert words in text


def test_an_export_is_not_overwritten(exported):
    exported()
    with pytest.raises(OutputError, match="--overwrite"):
        exported()


def judged_by_reply(row):
    """Levels that depend on the reply alone, so that the same reply gets the same ones."""
    number = int(row["reply"].split("picture ")[1].partition(".")[0])
    return levels(row, correct=number % 5, complete=(number * 3) % 5, harmful=number % 3)


@pytest.mark.parametrize(
    ("separator", "encoding", "write"),
    [
        (",", "utf-8-sig", str),
        (";", "utf-8-sig", lambda value: f"{value},0"),
        (";", "cp1252", lambda value: f" {value} "),
        ("\t", "utf-16", lambda value: f"{value}.0"),
        (",", "utf-8", lambda value: f"'{value}"),
    ],
    ids=["as it was", "decimal commas", "old Excel", "Unicode text", "text cells"],
)
def test_a_filled_sheet_comes_back_as_it_was_meant(exported, tmp_path, separator, encoding, write):
    folder = exported()

    def comment(rows):
        rows[0]["comment"] = "Größe fraglich"
        return rows

    form = {"separator": separator, "encoding": encoding, "write": write, "change": comment}
    paths = [fill(folder, rater, judged_by_reply, **form) for rater in ("rater-1", "rater-2")]
    found = import_sheets(folder, paths)
    assert (found.unrated, found.partly) == (0, 0)
    assert Counter((one.rater, one.is_repeat) for one in found.ratings) == {
        ("rater-1", False): 12,
        ("rater-1", True): 3,
        ("rater-2", False): 12,
        ("rater-2", True): 3,
    }
    for one in found.ratings:
        number = int(one.conversation_id.split("/")[1].partition("#")[0])
        assert one.scores == {"correct": number % 5, "complete": (number * 3) % 5, "harmful": number % 3}
    assert [one.comment for one in found.ratings if one.comment] == ["Größe fraglich"] * 2
    assert {one.model for one in found.ratings} == set(MODELS)
    write_records(tmp_path / "ratings.jsonl", found.ratings)
    assert tuple(read_records(tmp_path / "ratings.jsonl", Rating)) == found.ratings


def test_sorted_sheets_names_of_levels_and_a_separator_line_are_understood(exported):
    folder = exported(raters=1)
    path = fill(
        folder, "rater-1", lambda row: levels(row, "mostly right", "All", "possible"), separator=";",
        change=lambda rows: sorted(rows, key=lambda row: row["row"]),
    )  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + path.read_bytes()[3:])
    assert {str(one.scores) for one in import_sheets(folder, [path]).ratings} == {
        "{'correct': 3, 'complete': 4, 'harmful': 1}"
    }


def broken(field, value):
    def change(rows):
        rows[4][field] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken("correct (0-4)", "5"), r"row 6 \(R\w{7}\), column correct: '5' is no level; allowed .* 0 to 4"),
        (
            broken("harmful (0-2)", "3"),
            r"column harmful: '3' is no level; allowed .* 0 to 2, or none, possible, severe",
        ),
        (broken("correct (0-4)", "3,5"), "'3,5' is no level"),
        (broken("correct (0-4)", "-1"), "'-1' is no level"),
        (broken("correct (0-4)", "good"), "'good' is no level"),
        (broken("correct (0-4)", "²"), "is no level"),
        (broken("complete (0-4)", " "), r"column complete: is empty; allowed .* 0 to 4 \(pass --partial"),
        (broken("row", "R0000000"), "row 6, column row: 'R0000000' is no row of this export"),
        (lambda rows: [*rows, rows[0]], r"row 17 \(R\w{7}\), column row: stands there twice"),
        (lambda rows: rows[1:], r"row R\w{7} is missing; put it back, or pass --partial"),
        (lambda rows: [{k: v for k, v in row.items() if k != "complete (0-4)"} for row in rows], "column 'complete'"),
        (lambda rows: [row | {"Correct again": 1} for row in rows], "column 'correct' stands there twice"),
    ],
)
def test_what_is_wrong_in_a_sheet_is_named_with_row_and_column(exported, change, message):
    folder = exported(raters=1)
    with pytest.raises(RecordError, match=message):
        import_sheets(folder, [fill(folder, "rater-1", levels, change=change)])


def test_many_faults_are_one_message_with_the_first_ones(exported):
    folder = exported(raters=1)
    with pytest.raises(RecordError, match="and 10 more like these"):
        import_sheets(folder, [fill(folder, "rater-1", lambda row: levels(row, correct=9))])


def test_a_sheet_with_gaps_is_taken_when_asked_and_counted(exported):
    folder = exported(raters=1)

    def gaps(rows):
        rows[0]["correct (0-4)"] = ""
        for name in ("correct (0-4)", "complete (0-4)", "harmful (0-2)"):
            rows[1][name] = ""
        return rows[:-2]

    found = import_sheets(folder, [fill(folder, "rater-1", levels, change=gaps)], is_partial=True)
    assert (len(found.ratings), found.unrated, found.partly) == (12, 3, 1)
    assert [sorted(one.scores) for one in found.ratings if len(one.scores) < 3] == [["complete", "harmful"]]
    with pytest.raises(RecordError, match="column correct: '7'"):  # a wrong value stays wrong
        import_sheets(folder, [fill(folder, "rater-1", levels, change=broken("correct (0-4)", "7"))], is_partial=True)


def test_sheets_of_two_raters_do_not_mix(exported):
    folder = exported()
    first, second = (fill(folder, rater, levels) for rater in ("rater-1", "rater-2"))
    with pytest.raises(RecordError, match=r"as .*filled-rater-1\.csv is; give one sheet a rater"):
        import_sheets(folder, [first, first])
    both = folder / "both.csv"
    both.write_bytes(first.read_bytes() + second.read_bytes().split(b"\r\n", 1)[1])
    with pytest.raises(RecordError, match="holds rows of rater-1, rater-2"):
        import_sheets(folder, [both])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 a workbook", "is a workbook and no CSV"),
        (b"", "is empty"),
        (b"hello\r\nworld\r\n", "column 'row' is missing"),
        (b'row,correct\r\n"R', "not whole CSV"),
        (b"\x00\xff\xfe\x80" * 10, "column 'row' is missing"),
    ],
)
def test_what_is_no_sheet_is_refused(exported, tmp_path, content, message):
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        import_sheets(exported(), [path])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "gastrovl/rating-key/1"}', "{" * 10_000])
def test_a_broken_key_is_refused(exported, content):
    folder = exported(raters=1)
    path = fill(folder, "rater-1", levels)
    (folder / "key.json").write_text(content, "utf-8")
    with pytest.raises(RecordError, match="not a key of rating sheets"):
        import_sheets(folder, [path])


def test_no_bytes_do_anything_but_fail(exported):
    folder = exported(raters=1)
    path = fill(folder, "rater-1", levels)
    good = path.read_bytes()
    generator = random.Random(7)
    outcomes = Counter()
    for _ in range(300):
        content = bytearray(good)
        for _ in range(generator.choice((1, 3, 40))):
            place = generator.randrange(len(content))
            content[place : place + generator.choice((0, 1, 5))] = generator.randbytes(generator.choice((0, 1, 4)))
        path.write_bytes(content[: generator.choice((len(content), generator.randrange(len(content))))])
        try:
            found = import_sheets(folder, [path])
        except RecordError:
            outcomes["refused"] += 1
        else:  # bytes of a question or comment were hit, which nobody reads
            assert all(set(one.scores) == {"correct", "complete", "harmful"} for one in found.ratings)
            outcomes["read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > 10
