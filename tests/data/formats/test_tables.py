"""Excel workbooks as tables; CSV and JSON are tested through the readers that use them."""

from __future__ import annotations

import datetime
import sys
import zipfile

import openpyxl
import pytest

from gastrovl.core.errors import MissingExtraError, SourceError
from gastrovl.data.formats.tables import read_table

SHEET = "xl/worksheets/sheet1.xml"


@pytest.fixture
def workbook(tmp_path):
    """`workbook(rows)` writes t.xlsx with a sheet "labels", and a sheet "notes" after it."""

    def write(*rows):
        book = openpyxl.Workbook()
        book.active.title = "labels"
        for row in rows:
            book.active.append(row)
        book.create_sheet("notes").append(["nothing"])
        book.save(tmp_path / "t.xlsx")
        return tmp_path / "t.xlsx"

    return write


def with_member(path, name, content):
    """The workbook with one of its files replaced."""
    with zipfile.ZipFile(path) as packed:
        parts = {member: packed.read(member) for member in packed.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member, old in parts.items():
            packed.writestr(member, content if member == name else old)
    return path


def test_cells_are_texts_whatever_their_type(workbook):
    path = workbook(["image", "n", "share", "day"], [" a ", 3.0, 0.5, datetime.datetime(2024, 5, 31)], [None], ["b"])
    rows = list(read_table(path, ["image", None]))
    assert rows[0].cells == {"image": "a", "n": "3", "share": "0.5", "day": "2024-05-31"}
    assert rows[0].where == f"{path} [labels] row 2"
    assert [row.cells["image"] for row in rows] == ["a", "b"]


def test_another_sheet_is_named_or_refused(workbook):
    path = workbook(["image"])
    assert list(read_table(path, ["nothing"], sheet="notes")) == []
    with pytest.raises(SourceError, match="found sheets labels, notes, expected also 'Labels'"):
        list(read_table(path, [], sheet="Labels"))


def test_a_file_that_is_no_workbook_is_refused(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"image,label\n")
    with pytest.raises(SourceError, match=r"t\.xlsx: not an \.xlsx workbook"):
        list(read_table(tmp_path / "t.xlsx", []))


@pytest.mark.parametrize("member", [SHEET, "xl/workbook.xml", "[Content_Types].xml"])
def test_entities_in_a_workbook_are_refused(workbook, member):
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(9))
    path = with_member(workbook(["image"], ["a"]), member, f"<!DOCTYPE x [{lol}]><x>&l8;</x>".encode())
    with pytest.raises(SourceError, match=r"t\.xlsx: not a workbook that can be read"):
        list(read_table(path, ["image"]))


def test_a_workbook_that_unfolds_too_far_is_refused_unread(workbook):
    path = with_member(workbook(["image"]), SHEET, b" " * 500_000_001)
    with pytest.raises(SourceError, match=r"unfolds to 500,\d+,\d+ bytes"):
        list(read_table(path, ["image"]))


def sheet_of(rows, dimension):
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return (
        f'<worksheet xmlns="{space}"><dimension ref="{dimension}"/><sheetData>{rows}</sheetData></worksheet>'.encode()
    )


def cell(place, text):
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def test_a_sheet_that_claims_the_largest_size_is_as_large_as_its_cells(workbook):
    rows = f'<row r="1">{cell("A1", "image")}</row><row r="1000">{cell("A1000", "a")}</row>'
    path = with_member(workbook(["image"]), SHEET, sheet_of(rows, "A1:XFD1048576"))
    assert [(row.where, row.cells) for row in read_table(path, ["image"])] == [
        (f"{path} [labels] row 1000", {"image": "a"})
    ]


def test_rows_that_unfold_to_the_widest_sheet_are_refused(workbook, monkeypatch):
    monkeypatch.setattr("gastrovl.data.formats.tables.MAX_CELLS", 100_000)
    head = cell("A1", "image") + cell("XFD1", "last")
    wide = "".join(f'<row r="{n}">{cell(f"XFD{n}", "x")}</row>' for n in range(2, 20))
    path = with_member(workbook(["image"]), SHEET, sheet_of(f'<row r="1">{head}</row>{wide}', "A1"))
    with pytest.raises(SourceError, match=r"\[labels\] row 7: more than 100,000 cells"):  # 7 x 16,384 cells
        list(read_table(path, ["image"]))


def test_rows_may_be_shorter_than_the_first_one(workbook):
    path = workbook(["image", "label", "group"], ["a"], ["b", "polyp"])
    assert [row.cells.get("label", "") for row in read_table(path, ["image"])] == ["", "polyp"]


def test_without_the_library_the_extra_is_named(workbook, monkeypatch):
    path = workbook(["image"])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"gastrovl\[formats\]"):
        list(read_table(path, ["image"]))
