"""How much a folder of shards may hold: what lay unused longest goes first, and never what somebody is using."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEANING = "space.json"  # what a folder of shards holds besides them: what they mean,
DAMAGED = "damaged.list"  # and which entries were found damaged
_KEPT_FREE = 2**30  # bytes of the disk that the cache leaves to saved states; of a small disk one twentieth


@dataclass(frozen=True)
class Shard:
    """Two files of one name: `.bin` with entries one behind the other, `.jsonl` with a line about each."""

    payload: Path

    @property
    def index(self) -> Path:
        return self.payload.with_suffix(".jsonl")

    @property
    def size(self) -> int:
        """Bytes on disk; 0 when it has just been dropped."""
        return sum(_stat(path)[0] for path in (self.payload, self.index))

    @property
    def last_use(self) -> int:
        """When its index was last touched, in nanoseconds."""
        return _stat(self.index)[1] or _stat(self.payload)[1]

    def touch(self) -> None:
        """Mark as used now."""
        with suppress(OSError):
            os.utime(self.index)


class CacheRoom:
    """A cache folder with one folder of shards for each meaning, and the bytes they may take together."""

    def __init__(self, root: Path, bound_bytes: int) -> None:
        self.root, self.bound_bytes = Path(root), bound_bytes

    def shards(self) -> Iterator[Shard]:
        """All shards of all folders."""
        for path in self.root.glob("*/*.bin"):
            yield Shard(path)

    def used(self) -> int:
        """Bytes that all shards take."""
        return sum(shard.size for shard in self.shards())

    def problem(self, wanted: int) -> str | None:
        """Drop the shards unused longest until `wanted` more bytes fit; says why when they cannot, and drops nothing.

        Nothing is dropped that a process reads or writes.
        """
        over = self.used() + wanted - self.bound_bytes
        self.root.mkdir(parents=True, exist_ok=True)
        usage = shutil.disk_usage(self.root)
        over_disk = wanted + min(_KEPT_FREE, usage.total // 20) - usage.free
        if wanted > self.bound_bytes or not self._drop_oldest(max(over, over_disk)):
            if over >= over_disk:
                return (
                    f"{wanted / 1e9:.3g} GB more would pass its bound of {self.bound_bytes / 1e9:.3g} GB "
                    "(feature_cache_gb)"
                )
            return f"{wanted / 1e9:.3g} GB are wanted, and the disk of {self.root} has {usage.free / 1e9:.3g} GB free"
        return None

    def _drop_oldest(self, wanted: int) -> bool:
        if wanted <= 0:
            return True
        held: list[tuple[Shard, list[int]]] = []
        freed = 0
        try:
            for shard in sorted(self.shards(), key=lambda one: (one.last_use, one.payload)):
                size, handles = shard.size, take(shard)
                if handles is not None:
                    held.append((shard, handles))
                    freed += size
                if freed >= wanted:
                    for one, _ in held:
                        _unlink(one)
                    return True
            return False
        finally:
            for _, handles in held:
                close(handles)


def drop(shard: Shard) -> bool:
    """Delete a shard unless somebody uses it."""
    handles = take(shard)
    if handles is None:
        return False
    try:
        _unlink(shard)
    finally:
        close(handles)
    return True


def take(shard: Shard) -> list[int] | None:
    """Both files of a shard, locked against every other use; None when it is in use or gone."""
    handles: list[int] = []
    for path in (shard.index, shard.payload):
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        except OSError:
            close(handles)
            return None
        handles.append(handle)
        if not (lock(handle, is_shared=False) and is_still(handle, path)):
            close(handles)
            return None
    return handles or None


def lock(handle: int, *, is_shared: bool) -> bool:
    """Take an open file for this process at once, alone or with other readers; False when another has it.

    The system lets go of it when the process ends, however it ends. On Windows nothing is locked: there a mapped file
    cannot be deleted, and nobody takes over another's shard.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_still(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name; it may have been dropped before it was locked."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def close(handles: list[int]) -> None:
    """Close files, and with it let go of their locks."""
    for handle in handles:
        os.close(handle)


def _unlink(shard: Shard) -> None:
    folder = shard.payload.parent
    with suppress(OSError):  # Windows: still mapped somewhere
        shard.index.unlink(missing_ok=True)
        shard.payload.unlink(missing_ok=True)
    if not any(folder.glob("*.bin")) and not any(folder.glob("*.jsonl")):
        with suppress(OSError):  # somebody has just begun a shard there
            for name in (MEANING, DAMAGED):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
