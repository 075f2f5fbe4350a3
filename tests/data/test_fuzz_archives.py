"""Whatever an archive holds, it ends in files below its folder or in our error, and nothing else is read or written.

The normal run draws 100 archives; more are drawn by
    GASTROVL_FUZZ_CASES=2000 python -m pytest tests/data/test_fuzz_archives.py
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gastrovl.core.errors import DownloadError
from gastrovl.data.unpack import unpack

CASES = max(100, int(os.environ.get("GASTROVL_FUZZ_CASES", "200")) // 2)  # half of them ZIP, half TAR
LIMIT = 2**16  # what an archive of a case may unfold to
SLIPS = ["../evil", "a/../../evil", "..\\evil", "a\\..\\..\\evil", "set/../../../evil", "..", "a/.."]
ABSOLUTE = ["/evil", "//evil", "\\evil", "C:\\evil", "C:evil", "\\\\host\\evil"]
TARGETS = ["/etc/passwd", "../secret", "../../secret", "set/1.jpg", "."]
NAMES = st.one_of(
    st.sampled_from(["set/1.jpg", "set/2.jpg", "set/a/3.jpg", "set", "set/1.jpg/4.jpg", "SET/1.JPG", "set/", ""]),
    st.sampled_from(
        ["x" * 300, "a/" * 40 + "b", "a\0b", "\u202egpj.1", "\ud800", "con", "~/evil", ".", "set/__MACOSX/1"]
    ),
    st.sampled_from(SLIPS),
    st.sampled_from(ABSOLUTE),
    st.text(alphabet="ab./\\:\0~ \u00e9", max_size=9),
)
KINDS = st.sampled_from(["file"] * 6 + ["bomb", "symlink", "hard link", "device", "pipe", "folder"])
MEMBERS = st.lists(st.tuples(NAMES, KINDS, st.sampled_from(TARGETS), st.binary(max_size=20)), max_size=4)
PACKINGS = {"zip": ["stored", "deflated", "bz2", "lzma"], "tar": ["", "gz", "bz2", "xz"]}
DAMAGE = st.tuples(
    st.sampled_from(["no"] * 5 + ["cut", "flip", "insert", "junk"]), st.integers(0, 4000), st.binary(max_size=8)
)
ZIP_MODES = {"symlink": stat.S_IFLNK, "hard link": stat.S_IFLNK, "device": stat.S_IFCHR, "pipe": stat.S_IFIFO}
TAR_TYPES = {
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "folder": tarfile.DIRTYPE,
}
Member = tuple[str, str, str, bytes]


def zipped(members: list[Member], packing: str) -> bytes:
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, kind, target, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name.encode("utf-8", "replace").decode()  # as it is: ZipInfo cuts names at a NUL
            info.compress_type = methods[PACKINGS["zip"].index(packing)]
            info.external_attr = (ZIP_MODES.get(kind, stat.S_IFREG) | 0o777) << 16
            archive.writestr(info, bytes(20 * LIMIT) if kind == "bomb" else target if kind in ZIP_MODES else content)
    return stream.getvalue()


def tarred(members: list[Member], packing: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{packing}") as archive:
        for name, kind, target, content in members:
            info = tarfile.TarInfo(name)
            info.type = TAR_TYPES.get(kind, tarfile.REGTYPE)
            info.linkname = target if "link" in kind else ""
            data = bytes(20 * LIMIT) if kind == "bomb" else content if info.isreg() else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def damaged(content: bytes, damage: tuple[str, int, bytes]) -> bytes:
    kind, place, junk = damage
    place %= len(content) + 1
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        return content[:place] + bytes(byte ^ 0x5A for byte in content[place : place + 3]) + content[place + 3 :]
    if kind == "insert":
        return content[:place] + junk + content[place:]
    return junk if kind == "junk" else content


def attacks(members: list[Member]) -> set[str]:
    found = {kind for _, kind, _, _ in members if kind not in ("file", "folder")}
    # A folder of a TAR, and a name that ends like one in a ZIP, writes nothing, whatever it is called.
    names = [name for name, kind, _, _ in members if kind != "folder" and not name.endswith("/")]
    slips = {"slip"} if any(name in SLIPS for name in names) else set()
    return found | slips | ({"absolute"} if any(name in ABSOLUTE for name in names) else set())


def tree(top: Path) -> dict[str, str | bytes]:
    """Everything below a folder: files with their content, the rest with its kind."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else str(path.lstat().st_mode)
        for path in top.rglob("*")
    }


def fuzz(kind: str, watched: Callable[..., Any]) -> tuple[Callable[[], None], Counter[str]]:
    drawn: Counter[str] = Counter()

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(members=MEMBERS, packing=st.sampled_from(PACKINGS[kind]), damage=DAMAGE, strip=st.integers(0, 2))
    def run(members: list[Member], packing: str, damage: tuple[str, int, bytes], strip: int) -> None:
        try:
            content = (zipped if kind == "zip" else tarred)(members, packing)
        except (UnicodeEncodeError, ValueError):
            return  # a name that this kind of archive cannot hold
        made = attacks(members)
        drawn.update(made | {"case"} | ({"damage"} if damage[0] != "no" else set()))
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder).resolve()
            (top / "secret").write_bytes(b"secret")
            archive, out = top / "work/a", top / "work/out"
            archive.parent.mkdir()
            archive.write_bytes(damaged(content, damage))
            before, is_refused, count = tree(top), False, 0
            out.mkdir()
            with watched(top) as opened:
                try:
                    count = unpack(archive, "zip" if kind == "zip" else "tar", out, strip=strip)
                except DownloadError:
                    is_refused = True
            assert is_refused or damage[0] != "no" or not made, f"{made} was unpacked"
            inside = {f"work/out/{name}" for name in tree(out)}
            assert {name: there for name, there in tree(top).items() if name not in inside} == {
                **before,
                "work/out": tree(top)["work/out"],
            }
            assert not any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in out.rglob("*"))
            files = [path for path in out.rglob("*") if path.is_file()]
            assert is_refused or len(files) == count
            assert sum(path.stat().st_size for path in files) <= LIMIT
            assert str(top / "secret") not in [os.path.realpath(path) for path in opened]

    return run, drawn


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # of the module that writes the cases
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_ends_in_files_below_its_folder_or_in_our_error(kind, watched, monkeypatch):
    monkeypatch.setattr("gastrovl.data.unpack.FREE_BYTES", LIMIT)
    monkeypatch.setattr("gastrovl.data.unpack.MAX_RATIO", 0)
    run, drawn = fuzz(kind, watched)
    run()
    expected = {"slip", "absolute", "bomb", "symlink", "hard link", "device", "pipe", "damage"}
    assert not expected - drawn.keys(), f"never drawn: {expected - drawn.keys()}"
