"""Files and folders are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gastrovl.core.errors import OutputError
from gastrovl.core.files import atomic_path, sha256_file, whole_folder, write_text

OUR_MANIFEST = json.dumps({"stage": "data build", "version": "0.1.0", "created": "2026-01-01", "config": {}})


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fill(folder: Path, *, is_replaced: bool = False) -> None:
    with whole_folder(folder, is_replaced=is_replaced) as temporary:
        (temporary / "part.txt").write_text("1")


def _fail_halfway(path: Path) -> None:
    path.write_text("half of the n")
    raise RuntimeError("halfway")


def test_a_text_file_is_written_with_its_folders(tmp_path):
    write_text(tmp_path / "a" / "b" / "note.txt", "Zürich\n")
    assert (tmp_path / "a" / "b" / "note.txt").read_text(encoding="utf-8") == "Zürich\n"
    assert _names(tmp_path / "a" / "b") == ["note.txt"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_path(path) as temporary:
        _fail_halfway(temporary)
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["note.txt"]


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "plot.png") as temporary:
        assert temporary.suffix == ".png"  # libraries choose the format by it
        assert temporary.parent == tmp_path


def test_a_folder_is_no_place_for_a_file(tmp_path):
    with pytest.raises(OutputError, match="is a folder; expected the name of a file"):
        write_text(tmp_path, "text")


def test_a_file_is_no_place_for_a_folder_of_files(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"note\.txt cannot be written: .*; choose another output"):
        write_text(tmp_path / "taken" / "note.txt", "text")
    with pytest.raises(OutputError, match="cannot be written"):
        _fill(tmp_path / "taken" / "run")


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "runs" / "first"
    with whole_folder(path) as temporary:
        (temporary / "part.txt").write_text("1")
        assert not path.exists()
    assert _names(path) == ["part.txt"]
    assert _names(tmp_path / "runs") == ["first"]


def test_an_error_leaves_no_folder_behind(tmp_path):
    with pytest.raises(RuntimeError, match="halfway"), whole_folder(tmp_path / "run") as temporary:
        _fail_halfway(temporary / "part.txt")
    assert _names(tmp_path) == []


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "run").mkdir()
    with whole_folder(tmp_path / "run") as temporary:
        (temporary / "part.txt").write_text("1")
    assert _names(tmp_path / "run") == ["part.txt"]
    assert _names(tmp_path) == ["run"]


def test_a_filled_folder_is_not_touched_without_leave(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(OUR_MANIFEST)
    with pytest.raises(OutputError, match="already holds files; choose another -o, or pass --overwrite"):
        _fill(tmp_path / "run")
    assert _names(tmp_path / "run") == ["manifest.json"]


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "years of work"},
        {"manifest.json": '{"name": "a web page"}', "thesis.tex": "years of work"},
        {"manifest.json": "not JSON"},
        {"manifest.json": "[]"},
    ],
)
def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path, files):
    folder = tmp_path / "run"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(OutputError, match=r"was not written by gastrovl .*so it is not replaced"):
        _fill(folder, is_replaced=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == files


def test_a_folder_of_ours_is_replaced_with_leave(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text(OUR_MANIFEST)
    (folder / "stale.txt").write_text("old")
    with whole_folder(folder, is_replaced=True) as temporary:
        (temporary / "fresh.txt").write_text("new")
        assert _names(folder) == ["manifest.json", "stale.txt"]
    assert _names(folder) == ["fresh.txt"]
    assert _names(tmp_path) == ["run"]


def test_an_error_while_replacing_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text(OUR_MANIFEST)
    with pytest.raises(RuntimeError, match="halfway"), whole_folder(folder, is_replaced=True) as temporary:
        _fail_halfway(temporary / "part.txt")
    assert _names(folder) == ["manifest.json"]
    assert _names(tmp_path) == ["run"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "big_disk")
    with whole_folder(tmp_path / "run") as temporary:
        (temporary / "part.txt").write_text("1")
    assert (tmp_path / "run").is_symlink()
    assert _names(tmp_path / "big_disk") == ["part.txt"]


def test_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="is a file; expected a folder that does not exist yet"):
        _fill(tmp_path / "run")


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == expected
