"""Arrays of one size, each under a key, to shards on disk and back: appended, mapped for reading, checked when read."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.files import write_text
from gastrovl.training.cache.room import DAMAGED, MEANING, CacheRoom, Shard, drop, is_still, lock

Report = Callable[[str], None]
Place = tuple[str, int, int]  # shard, number of the entry in it, checksum
SHARD_BYTES = 2**30
_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows would change line ends


class FeatureCache:
    """A cache folder, bounded in bytes, that several processes and runs may use at the same time.

    Attributes:
        is_off: Set when it could not be written to (a full disk): this run does without it from then on.
    """

    def __init__(self, root: Path, bound_bytes: int, *, shard_bytes: int = SHARD_BYTES) -> None:
        self.is_off = False
        self.room = CacheRoom(Path(root), bound_bytes)
        self.shard_bytes = shard_bytes

    def space(self, meaning: dict[str, Any], entry_bytes: int) -> FeatureSpace:
        """The entries that were made in one way; anything else in `meaning` is another space.

        Raises:
            OSError: The folder cannot be made or written to.
        """
        text = json.dumps(meaning, sort_keys=True, indent=1, default=str)
        folder = self.room.root / hashlib.sha256(text.encode()).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MEANING).is_file():
            write_text(folder / MEANING, text + "\n")  # for people; nothing reads it
        return FeatureSpace(folder, entry_bytes, self.room, self.shard_bytes)


class FeatureSpace:
    """Entries of one size in one folder.

    A shard has one writer, which writes an entry before the index line that names it; a reader knows an entry by its
    line alone, so it never sees half of one. What a crash or a bad disk leaves is caught by the checksum: such an entry
    is reported, counted in `damaged` and no longer there. Objects may be sent to other processes.
    """

    def __init__(self, folder: Path, entry_bytes: int, room: CacheRoom, shard_bytes: int) -> None:
        self.folder, self.entry_bytes, self.room, self.shard_bytes = folder, entry_bytes, room, shard_bytes
        self._entries: dict[bytes, Place] = {}
        self._read_to: dict[str, int] = {}  # how far each index has been read
        self._bad: set[tuple[str, int]] = set()
        self._open: dict[str, _Reader] = {}
        self._writer: _Writer | None = None
        self._begun: list[Shard] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}, "_writer": None, "_begun": []}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    @property
    def damaged(self) -> int:
        """How many entries any process has found damaged, up to the last `refresh`."""
        return len(self._bad)

    def refresh(self, report: Report | None = None) -> None:
        """Learn of what was added since, by whichever process."""
        self._read_damaged()
        for index in sorted(self.folder.glob("*.jsonl")):
            self._read_index(index, report or _to_stderr)

    def pin(self, keys: Iterable[bytes]) -> None:
        """Hold the shards of these keys, so that nobody drops them; keys whose shard is gone are forgotten."""
        for name in sorted({self._entries[key][0] for key in keys if key in self._entries}):
            if self._reader(name):
                Shard(self.folder / f"{name}.bin").touch()
            else:
                self._forget(name)

    def read(self, key: bytes, report: Report | None = None) -> NDArray[np.uint8] | None:
        """An entry's bytes, (entry_bytes,), as a copy; None when it is missing or found damaged."""
        for _ in range(2):
            if key not in self._entries:
                self.refresh(report)
            place = self._entries.get(key)
            if place is None:
                return None
            name, number, checksum = place
            reader = self._reader(name)
            if reader is None:
                self._forget(name)
                continue
            data = reader.copy(number, self.entry_bytes)
            if data is not None and _checksum(key, data) == checksum:
                return data
            self._condemn(key, place, report or _to_stderr)
        return None

    def add(self, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        """Append entries, (len(keys), entry_bytes).

        Raises:
            OSError: They cannot be written, or the bound is reached; of an entry that is not whole nothing is left.
            ValueError: They are of another size.
        """
        if rows.shape != (len(keys), self.entry_bytes):
            raise ValueError(f"entries of shape {rows.shape}; expected {len(keys)} of {self.entry_bytes} bytes")
        if self._writer and not self._writer.is_there():
            self.close_writer()
        if self._writer is None:
            self._writer = self._adopt() or self._begin()
        self._writer.write(keys, rows)
        if self._writer.size >= self.shard_bytes:
            self.close_writer()
        self.refresh()

    def close_writer(self) -> None:
        """Leave the shard that is being written to whoever goes on with it."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def give_back(self) -> None:
        """Drop the shards that this object began: a full disk has better uses for the room."""
        self.close_writer()
        for shard in self._begun:
            self._forget(shard.payload.stem)
            drop(shard)
        self._begun = []

    def close(self) -> None:
        """Let go of all shards."""
        self.close_writer()
        for reader in self._open.values():
            reader.close()
        self._open = {}

    def _adopt(self) -> _Writer | None:
        """A shard that has room and no writer, as one that was killed leaves it; what is not whole is cut off."""
        if sys.platform == "win32":
            return None
        for payload in sorted(self.folder.glob("*.bin")):
            if payload.stat().st_size < self.shard_bytes and (
                writer := _Writer.adopt(Shard(payload), self.entry_bytes)
            ):
                return writer
        return None

    def _begin(self) -> _Writer:
        if problem := self.room.problem(self.entry_bytes):
            raise OSError(problem)
        self.folder.mkdir(parents=True, exist_ok=True)
        shard = Shard(self.folder / f"{uuid4().hex}.bin")  # a name is never used again
        self._begun.append(shard)
        return _Writer.begin(shard, self.entry_bytes)

    def _reader(self, name: str) -> _Reader | None:
        if name not in self._open:
            reader = _Reader.open(self.folder / f"{name}.bin")
            if reader is None:
                return None
            self._open[name] = reader
        return self._open[name]

    def _forget(self, name: str) -> None:
        self._entries = {key: place for key, place in self._entries.items() if place[0] != name}
        if reader := self._open.pop(name, None):
            reader.close()

    def _read_damaged(self) -> None:
        try:
            lines = (self.folder / DAMAGED).read_bytes().splitlines()
        except OSError:
            return
        known = len(self._bad)
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):
                found = json.loads(line)
                self._bad.add((str(found["shard"]), int(found["entry"])))
        if len(self._bad) == known:
            return
        gone = [key for key, (name, number, _) in self._entries.items() if (name, number) in self._bad]
        for key in gone:
            del self._entries[key]

    def _read_index(self, index: Path, report: Report) -> None:
        start = self._read_to.get(index.stem, 0)
        try:
            with index.open("rb") as stream:
                stream.seek(start)
                data = stream.read()
            size = index.with_suffix(".bin").stat().st_size  # after the index: an entry is written before its line
        except OSError:
            return  # just dropped, or just begun
        whole = data.rfind(b"\n") + 1
        self._read_to[index.stem] = start + whole
        lost = []
        for line in data[:whole].splitlines(keepends=True):
            found = _parse(line)
            number = found[1] if found else -1 - start  # a line that says nothing is known by where it stands
            start += len(line)
            if (index.stem, number) in self._bad:
                continue
            if found is None or (number + 1) * self.entry_bytes > size:
                lost.append((index.stem, number))
            else:
                self._entries.setdefault(found[0], (index.stem, number, found[2]))
        if lost:
            self._note_damaged(lost)
            report(f"feature cache: {index.with_suffix('.bin')} has lost {len(lost)} entries; they are made anew")

    def _condemn(self, key: bytes, place: Place, report: Report) -> None:
        name, number, _ = place
        del self._entries[key]
        if not any(shard == name for shard, _ in self._bad):  # one line for a shard, however bad it is
            report(f"feature cache: entry {number} of {self.folder / name}.bin is damaged; it is made anew")
        self._note_damaged([(name, number)])

    def _note_damaged(self, found: list[tuple[str, int]]) -> None:
        """Tell every process, now and later; on a full disk each finds out for itself."""
        self._bad.update(found)
        text = "".join(json.dumps({"shard": name, "entry": number}) + "\n" for name, number in found)
        with suppress(OSError):
            handle = os.open(self.folder / DAMAGED, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY, 0o644)
            try:
                _write_all(handle, memoryview(text.encode()))
            finally:
                os.close(handle)


class _Reader:
    """A mapped shard, held against being dropped."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._map: mmap.mmap | None = None

    @classmethod
    def open(cls, path: Path) -> _Reader | None:
        """None when the shard is gone or being dropped."""
        try:
            handle = os.open(path, os.O_RDONLY | _BINARY)
        except FileNotFoundError:
            return None
        if not (lock(handle, is_shared=True) and is_still(handle, path)):
            os.close(handle)
            return None
        return cls(handle)

    def copy(self, number: int, size: int) -> NDArray[np.uint8] | None:
        """Bytes of the `number`-th entry; None when the file ends before."""
        end = (number + 1) * size
        if os.fstat(self._handle).st_size < end:  # reading a map behind the end of its file kills the process
            return None
        if self._map is None or len(self._map) < end:
            self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        found = np.frombuffer(self._map, dtype=np.uint8, count=size, offset=number * size).copy()
        if sys.platform == "linux":  # let go of the pages: what a map has touched counts as the process's memory
            start = number * size // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)
        return found

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        os.close(self._handle)


class _Writer:
    """The one writer of a shard."""

    def __init__(self, shard: Shard, index: int, payload: int, count: int, entry_bytes: int) -> None:
        self._shard, self._index, self._payload = shard, index, payload
        self._count, self._entry_bytes = count, entry_bytes

    @property
    def size(self) -> int:
        return self._count * self._entry_bytes

    @classmethod
    def begin(cls, shard: Shard, entry_bytes: int) -> _Writer:
        index = os.open(shard.index, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o644)
        try:
            lock(index, is_shared=False)
            return cls(shard, index, _open_payload(shard), 0, entry_bytes)
        except OSError:
            os.close(index)
            shard.index.unlink(missing_ok=True)
            raise

    @classmethod
    def adopt(cls, shard: Shard, entry_bytes: int) -> _Writer | None:
        """None when the shard has a writer, or is not what its index says."""
        try:
            index = os.open(shard.index, os.O_RDWR | os.O_APPEND | _BINARY)
        except FileNotFoundError:
            return None
        if lock(index, is_shared=False) and is_still(index, shard.index):
            text = shard.index.read_bytes()
            whole = text.rfind(b"\n") + 1
            found = [_parse(line) for line in text[:whole].splitlines()]
            count = max((entry[1] + 1 for entry in found if entry), default=0)
            payload = _open_payload(shard)
            if None not in found and os.fstat(payload).st_size >= count * entry_bytes:
                os.ftruncate(index, whole)
                os.ftruncate(payload, count * entry_bytes)
                return cls(shard, index, payload, count, entry_bytes)
            os.close(payload)
        os.close(index)
        return None

    def is_there(self) -> bool:
        """Whether the shard is still in its folder; a person may have cleared it."""
        return is_still(self._index, self._shard.index) and is_still(self._payload, self._shard.payload)

    def write(self, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        index_size = os.fstat(self._index).st_size
        lines = [
            json.dumps({"key": key.hex(), "entry": self._count + number, "crc32": _checksum(key, row)}) + "\n"
            for number, (key, row) in enumerate(zip(keys, rows, strict=True))
        ]
        try:
            _write_all(self._payload, np.ascontiguousarray(rows).reshape(-1).data)
            _write_all(self._index, memoryview("".join(lines).encode()))
        except OSError:
            os.ftruncate(self._index, index_size)
            os.ftruncate(self._payload, self.size)
            raise
        self._count += len(keys)

    def close(self) -> None:
        os.close(self._payload)
        os.close(self._index)


def _open_payload(shard: Shard) -> int:
    handle = os.open(shard.payload, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o644)
    lock(handle, is_shared=True)  # a writer holds its shard as a reader does
    return handle


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _checksum(key: bytes, data: NDArray[np.uint8]) -> int:
    """CRC-32 of key and bytes: an entry under another's key is damaged too."""
    return zlib.crc32(np.ascontiguousarray(data).data, zlib.crc32(key))


def _parse(line: bytes) -> tuple[bytes, int, int] | None:
    """Key, number and checksum of an index line; None when it is damaged."""
    try:
        found = json.loads(line)
        entry = bytes.fromhex(found["key"]), int(found["entry"]), int(found["crc32"])
    except (ValueError, TypeError, KeyError):
        return None
    return entry if entry[1] >= 0 else None


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
