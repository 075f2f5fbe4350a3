"""Archives from the network: what they may hold, and what is refused before it is written."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core.errors import DownloadError
from gastrovl.data.unpack import safe_place, unpack


def zipped(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path, *infos, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for info, content in infos:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_leading_folders_are_stripped_and_litter_is_left_out(tmp_path):
    archive = zipped(
        tmp_path / "a.zip",
        ("set/images/1.jpg", b"one"),
        ("set/boxes.json", b"{}"),
        ("__MACOSX/set/._1.jpg", b"x"),
        ("set/.DS_Store", b"x"),
    )
    assert unpack(archive, "zip", tmp_path / "out", strip=1) == 2
    assert files(tmp_path / "out") == {"images/1.jpg": b"one", "boxes.json": b"{}"}


def test_a_compressed_tar_is_unpacked(tmp_path):
    archive = tarred(tmp_path / "a.tar.gz", (tarfile.TarInfo("set/1.jpg"), b"one"))
    unpack(archive, "tar", tmp_path / "out")
    assert files(tmp_path / "out") == {"set/1.jpg": b"one"}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "\\evil", "a/b\\..\\..\\..\\x"]
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    archive = zipped(tmp_path / "slip.zip", (name, b"evil"))
    with pytest.raises(DownloadError, match="refused"):
        unpack(archive, "zip", tmp_path / "deep/out")
    assert files(tmp_path) == {"slip.zip": archive.read_bytes()}


@given(st.text(alphabet="ab./\\:\0~ ", max_size=12), st.integers(0, 2))
def test_no_name_whatever_comes_out_above_the_folder(tmp_path_factory, name, strip):
    folder = tmp_path_factory.getbasetemp() / "folder"
    try:
        place = safe_place(name, folder / "a.zip", strip)
    except DownloadError:
        return
    assert place is None or (folder / place).resolve().is_relative_to(folder.resolve())


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DownloadError, match="'link' is a link or a device"):
        unpack(zipped(tmp_path / "a.zip", (info, "/etc/passwd")), "zip", tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("thing")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(DownloadError, match="'thing' is a link or a device"):
        unpack(tarred(tmp_path / "a.tar.gz", (info, b"")), "tar", tmp_path / "out")


def test_a_bomb_is_stopped_while_it_unfolds(tmp_path, monkeypatch):
    monkeypatch.setattr("gastrovl.data.unpack.FREE_BYTES", 2**20)
    archive = zipped(tmp_path / "bomb.zip", ("zeros", bytes(30 * 2**20)))
    with pytest.raises(DownloadError, match="as bombs do"):
        unpack(archive, "zip", tmp_path / "out")
    assert sum(len(content) for content in files(tmp_path / "out").values()) < 10 * 2**20


def test_a_header_that_lies_about_the_size_does_not_help_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("gastrovl.data.unpack.FREE_BYTES", 2**20)
    archive = zipped(tmp_path / "liar.zip", ("zeros", bytes(30 * 2**20)))
    size = (30 * 2**20).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(DownloadError):
        unpack(archive, "zip", tmp_path / "out")


def test_two_members_of_one_name_are_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", ("x/1.jpg", b"1"), ("y/1.JPG", b"2"))
    with pytest.raises(DownloadError, match="stands there twice"):
        unpack(archive, "zip", tmp_path / "out", strip=1)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_cut_archive_is_named_as_such(tmp_path, kind):
    (tmp_path / "a").write_bytes(b"\x1f\x8b\x08 not an archive")
    with pytest.raises(DownloadError, match=f"is no whole {kind} archive"):
        unpack(tmp_path / "a", kind, tmp_path / "out")


def test_an_archive_that_is_flatter_than_promised_is_refused(tmp_path):
    with pytest.raises(DownloadError, match="lies in 0 folders, expected 1"):
        unpack(zipped(tmp_path / "a.zip", ("1.jpg", b"1")), "zip", tmp_path / "out", strip=1)


@pytest.mark.parametrize("names", [("set", "set/1.jpg"), ("set/1.jpg", "set")])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path, kind, names):
    if kind == "zip":
        archive = zipped(tmp_path / "a", *((name, b"x") for name in names))
    else:
        archive = tarred(tmp_path / "a", *((tarfile.TarInfo(name), b"x") for name in names))
    with pytest.raises(DownloadError, match="a file and a folder of one name"):
        unpack(archive, kind, tmp_path / "out")


def test_a_member_without_a_name_is_refused(tmp_path):
    info = zipfile.ZipInfo("x")
    info.filename = ""
    with pytest.raises(DownloadError, match="member '' is no relative path"):
        unpack(zipped(tmp_path / "a.zip", (info, b"x")), "zip", tmp_path / "out")
