"""Freed memory stays with the process where the C library can do that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gastrovl.data import allocator

FAULTS = """
import resource, sys
from gastrovl.data.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def once():
    kept = [bytes(300_000) for _ in range(8)]
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_blocks_that_are_freed_and_asked_for_again_cost_no_page_faults():
    if not allocator.keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    assert page_faults("kept") < page_faults("as it is") / 10


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory.__wrapped__()
