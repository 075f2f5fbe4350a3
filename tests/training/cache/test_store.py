"""Entries on disk: never half, never damaged, never another's; bounded, shared by processes, robust against kills."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gastrovl.training.cache.store import FeatureCache

SIZE = 1000  # bytes of an entry
COUNT = 40


def key_of(number):
    return number.to_bytes(16, "big")


def row_of(number):
    """What belongs under the `number`-th key."""
    return np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)


def fill(space, numbers):
    space.add([key_of(number) for number in numbers], np.stack([row_of(number) for number in numbers]))


def readable(space, numbers):
    """The numbers whose entry is there; each is what belongs there."""
    found = {number: space.read(key_of(number)) for number in numbers}
    assert all(np.array_equal(data, row_of(number)) for number, data in found.items() if data is not None)
    return [number for number, data in found.items() if data is not None]


@pytest.fixture
def opened(tmp_path):
    """`opened()` is a new look at the same folder, as another run would take it."""

    def open_space(meaning="a", bound=10**9, shard=10**6):
        space = FeatureCache(tmp_path / "cache", bound, shard_bytes=shard).space({"meaning": meaning}, SIZE)
        space.refresh()
        return space

    return open_space


@pytest.fixture
def payloads(tmp_path):
    """`payloads()` lists the shards' files."""
    return lambda: sorted((tmp_path / "cache").glob("*/*.bin"))


def test_entries_come_back_in_another_look_and_not_under_another_meaning(opened):
    first = opened()
    fill(first, range(5))
    first.close()

    assert readable(opened(), range(7)) == [0, 1, 2, 3, 4]
    assert readable(opened("b"), range(7)) == []
    assert len(opened()) == 5


def test_a_reader_learns_of_what_is_added_to_a_shard_it_has_mapped(opened):
    writer, reader = opened(), opened()
    fill(writer, [0])
    assert readable(reader, [0]) == [0]
    fill(writer, [1])

    assert readable(reader, [0, 1]) == [0, 1]


def test_a_space_can_be_sent_to_a_process_that_was_not_forked(opened):
    space = opened()
    fill(space, range(3))
    assert readable(space, [0]) == [0]  # the map is open and stays behind

    sent = copy.deepcopy(space)  # by the state that is sent to a spawned process

    assert readable(sent, range(3)) == [0, 1, 2]


def test_shards_end_at_their_size_and_the_next_run_goes_on_with_the_last(opened, payloads):
    space = opened(shard=3 * SIZE)
    for number in range(4):
        fill(space, [number])
    assert sorted(path.stat().st_size for path in payloads()) == [SIZE, 3 * SIZE]
    space.close()

    after = opened(shard=3 * SIZE)
    fill(after, [4])

    assert sorted(path.stat().st_size for path in payloads()) == [2 * SIZE, 3 * SIZE]
    assert readable(after, range(5)) == [0, 1, 2, 3, 4]


def test_a_changed_byte_is_reported_in_one_line_and_the_entry_made_anew(opened, payloads):
    space = opened()
    fill(space, range(3))
    space.close()
    content = bytearray(payloads()[0].read_bytes())
    content[SIZE + 500] ^= 1
    payloads()[0].write_bytes(content)
    told = []

    reader = opened()
    assert reader.read(key_of(1), told.append) is None
    assert reader.read(key_of(1), told.append) is None

    assert told == [f"feature cache: entry 1 of {payloads()[0]} is damaged; it is made anew"]
    after = opened()
    assert after.damaged == 1
    assert key_of(1) not in after
    fill(after, [1])
    assert readable(opened(), range(3)) == [0, 1, 2]
    assert reader.read(key_of(1), told.append) is not None
    assert len(told) == 1


def test_an_entry_under_the_key_of_another_is_damaged(opened, payloads):
    space = opened()
    fill(space, [0, 1])
    space.close()
    index = payloads()[0].with_suffix(".jsonl")
    lines = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()]
    for line, number in zip(lines, (1, 0), strict=True):
        line["key"] = key_of(number).hex()
    index.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    assert opened().read(key_of(0), lambda _: None) is None


def test_a_shard_full_of_damage_is_reported_in_one_line_and_entries_of_another_size_are_refused(opened, payloads):
    space = opened()
    fill(space, range(4))
    space.close()
    payloads()[0].write_bytes(bytes(4 * SIZE))
    told = []

    reader = opened()
    assert [reader.read(key_of(number), told.append) for number in range(4)] == [None] * 4

    assert len(told) == 1
    assert reader.damaged == 4
    with pytest.raises(ValueError, match=r"entries of shape \(1, 999\); expected 1 of 1000 bytes"):
        reader.add([key_of(0)], np.zeros((1, SIZE - 1), dtype=np.uint8))


@pytest.mark.parametrize("left", [0, SIZE, 2 * SIZE + 10])
def test_a_truncated_shard_keeps_its_whole_entries_and_the_others_are_made_anew(opened, payloads, left):
    space = opened()
    fill(space, range(4))
    space.close()
    os.truncate(payloads()[0], left)
    told = []

    after = FeatureCache(payloads()[0].parents[1], 10**9).space({"meaning": "a"}, SIZE)
    after.refresh(told.append)
    opened().refresh(told.append)  # knows already

    whole = left // SIZE
    assert told == [f"feature cache: {payloads()[0]} has lost {4 - whole} entries; they are made anew"]
    assert readable(after, range(4)) == list(range(whole))
    fill(after, range(whole, 4))
    assert readable(opened(), range(4)) == [0, 1, 2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_large_cache_takes_no_memory(tmp_path):
    size, count = 500_000, 160  # 80 MB
    keys = [key_of(number) for number in range(count)]
    space = FeatureCache(tmp_path / "cache", 10**9).space({}, size)
    for key in keys:
        space.add([key], np.zeros((1, size), dtype=np.uint8))
    before = resident_mb()

    assert all(space.read(key) is not None for key in keys)

    assert resident_mb() - before < 30


def resident_mb():
    """Memory of this process in MB, what it maps of files included."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))


def test_a_shard_that_is_cut_while_it_is_mapped_ends_no_process(opened, payloads):
    space = opened()
    fill(space, range(3))
    assert readable(space, [0]) == [0]

    os.truncate(payloads()[0], SIZE)

    assert space.read(key_of(2), lambda _: None) is None
    assert readable(space, [0]) == [0]


def test_an_index_line_that_makes_no_sense_is_passed_over(opened, payloads):
    space = opened()
    fill(space, range(2))
    space.close()
    index = payloads()[0].with_suffix(".jsonl")
    index.write_bytes(b'{"key": "zz"}\n[]\n' + index.read_bytes())
    told = []

    after = FeatureCache(payloads()[0].parents[1], 10**9).space({"meaning": "a"}, SIZE)
    after.refresh(told.append)

    assert told == [f"feature cache: {payloads()[0]} has lost 2 entries; they are made anew"]
    assert readable(after, range(2)) == [0, 1]
    assert opened().damaged == 2


def test_what_a_killed_writer_left_half_is_cut_off_by_the_next(opened, payloads):
    space = opened()
    fill(space, range(2))
    space.close()
    shard = payloads()[0]
    with shard.open("ab") as stream:
        stream.write(b"half an entry")
    with shard.with_suffix(".jsonl").open("ab") as stream:
        stream.write(b'{"key": "00')

    after = opened()
    assert readable(after, range(3)) == [0, 1]
    fill(after, [2])

    assert payloads() == [shard]
    assert shard.stat().st_size == 3 * SIZE
    assert readable(opened(), range(3)) == [0, 1, 2]


WRITER = f"""
import sys, time
from pathlib import Path
import numpy as np
from gastrovl.training.cache.store import FeatureCache
root, first, step, pause = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
space = FeatureCache(root, 10**9, shard_bytes=10**4).space({{"meaning": "a"}}, {SIZE})
print("ready", flush=True)
sys.stdin.readline()
own = list(range({COUNT}))[first::step]
while own:
    for number in own:
        space.refresh()
        key = number.to_bytes(16, "big")
        if key not in space:
            space.add([key], np.random.default_rng(number).integers(0, 256, (1, {SIZE}), dtype=np.uint8))
            print(number, flush=True)
            time.sleep(pause)
    own = [number for number in range({COUNT}) if number.to_bytes(16, "big") not in space]
"""


def start_writer(root, first=0, step=1, pause=0.0):
    """A process that writes every `step`-th entry, then what is still missing; it waits for a line first."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(first), str(step), str(pause)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_fill_one_cache_at_once_and_a_third_only_ever_reads_whole_entries(opened, tmp_path, payloads):
    both = [start_writer(tmp_path / "cache", first, 2, 0.002) for first in (0, 1)]
    reader = opened()
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in both):
        readable(reader, range(COUNT))
    wrote = [[int(line) for line in process.communicate()[0].split()] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert readable(opened(), range(COUNT)) == list(range(COUNT))
    assert reader.damaged == 0
    assert all(len(numbers) >= COUNT // 4 for numbers in wrote)  # both worked
    assert sum(path.stat().st_size for path in payloads()) == SIZE * sum(len(numbers) for numbers in wrote)


def test_a_fill_that_was_killed_goes_on_where_it_stopped(opened, tmp_path):
    killed = start_writer(tmp_path / "cache", pause=0.01)
    killed.stdin.write("go\n")
    killed.stdin.flush()
    for _ in range(10):
        killed.stdout.readline()
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    there = readable(opened(), range(COUNT))
    assert 10 <= len(there) < COUNT

    after = start_writer(tmp_path / "cache")
    wrote = [int(line) for line in after.communicate("go\n")[0].split()]

    assert wrote == [number for number in range(COUNT) if number not in there]
    assert readable(opened(), range(COUNT)) == list(range(COUNT))


class FullDisk:
    """`os.write` on a disk with so many bytes left."""

    def __init__(self, left):
        self.left, self.write = left, os.write

    def __call__(self, handle, data):
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.write(handle, memoryview(data)[: self.left])
        self.left -= written
        return written


@pytest.mark.parametrize("left", [0, 1, SIZE, 2 * SIZE - 1, 2 * SIZE, 2 * SIZE + 10])
def test_a_full_disk_leaves_whole_entries_only(opened, payloads, monkeypatch, left):
    space = opened()
    fill(space, [0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", FullDisk(left))
        with pytest.raises(OSError, match="No space left"):
            fill(space, [1, 2])

    shard = payloads()[0]
    assert shard.stat().st_size == SIZE
    assert len(shard.with_suffix(".jsonl").read_bytes().splitlines()) == 1
    assert readable(space, range(3)) == [0]
    fill(space, [1, 2])
    assert readable(opened(), range(3)) == [0, 1, 2]


def test_room_is_given_back_to_a_full_disk(opened, payloads, tmp_path):
    space = opened(shard=SIZE)
    fill(space, [0])
    other = opened("b")
    fill(other, [0])

    other.give_back()

    assert len(payloads()) == 1
    assert readable(opened(), [0]) == [0]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def aged(path, seconds):
    """Make a shard look as if it had been used so long ago."""
    when = time.time() - seconds
    os.utime(path.with_suffix(".jsonl"), (when, when))


def test_the_bound_drops_what_lay_unused_longest_and_never_what_is_in_use(opened, payloads):
    shard_of = {}
    for age, name in ((400, "held"), (300, "oldest"), (200, "newer"), (100, "newest")):
        before = set(payloads())
        space = opened(name)
        fill(space, range(10))
        space.close()
        (shard_of[name],) = set(payloads()) - before
        aged(shard_of[name], age)
    holder = opened("held")
    holder.pin([key_of(0)])
    aged(shard_of["held"], 400)
    used = sum(path.stat().st_size for shard in payloads() for path in (shard, shard.with_suffix(".jsonl")))

    room = opened("own", bound=used + 5 * SIZE).room

    assert room.problem(5 * SIZE) is None
    assert len(payloads()) == 4  # they fitted
    assert room.problem(10 * SIZE) is None
    assert set(payloads()) == {shard_of[name] for name in ("held", "newer", "newest")}
    assert not shard_of["oldest"].parent.exists()
    assert readable(holder, range(10)) == list(range(10))


def test_nothing_is_dropped_when_it_would_not_make_room_enough(opened, payloads):
    held, idle = opened("held"), opened("idle")
    for space in (held, idle):
        fill(space, range(10))
    idle.close()
    room = opened("own", bound=25 * SIZE).room

    assert "would pass its bound of 2.5e-05 GB (feature_cache_gb)" in room.problem(20 * SIZE)
    assert "would pass its bound" in room.problem(26 * SIZE)
    assert len(payloads()) == 2
    assert room.problem(10 * SIZE) is None
    assert len(payloads()) == 1


def test_a_shard_that_was_dropped_behind_a_reader_is_missing_and_not_an_error(opened, payloads):
    space, reader = opened(), opened()
    fill(space, [0])
    space.close()
    reader.refresh()
    assert key_of(0) in reader

    assert opened(bound=1).room.problem(2) is not None  # more than the bound is never made room for
    assert payloads() != []
    assert opened(bound=SIZE).room.problem(SIZE) is None
    assert payloads() == []

    assert reader.read(key_of(0)) is None
    reader.pin([key_of(0)])
    fill(reader, [0])
    assert readable(opened(), [0]) == [0]


def test_a_cache_that_is_deleted_under_a_run_is_read_to_its_end(opened, tmp_path):
    space = opened()
    fill(space, range(2))
    space.pin([key_of(0), key_of(1)])

    shutil.rmtree(tmp_path / "cache")

    assert readable(space, range(3)) == [0, 1]
    fill(space, [2])
    assert readable(space, range(3)) == [0, 1, 2]
    assert readable(opened(), range(3)) == [2]


def test_a_space_that_passes_its_bound_while_it_is_written_says_so(opened):
    space = opened(bound=3 * SIZE, shard=SIZE)
    for number in range(2):  # the indexes take room too
        fill(space, [number])
        space.pin([key_of(number)])

    with pytest.raises(OSError, match="would pass its bound"):
        fill(space, [2])
    assert readable(space, range(3)) == [0, 1]
