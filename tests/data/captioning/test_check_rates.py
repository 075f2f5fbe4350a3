"""The benchmark of the caption check, at a small size: it still runs, and the rates in the docs have not sunk."""

from __future__ import annotations

import re
import subprocess
import sys


def test_true_captions_pass_and_false_statements_are_found(repository):
    script = repository / "benchmarks" / "caption_check.py"
    done = subprocess.run([sys.executable, str(script), "--records", "40"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rejected = [int(number) for number in re.findall(r"\| (\d+) \(\d+\.\d\d%\) \|", done.stdout)]
    found = [float(share) for share in re.findall(r"\((\d+\.\d)%\) \|$", done.stdout, re.MULTILINE)]
    assert rejected == [0, 0, 0]
    assert len(found) == 16
    assert min(found) >= 95
    assert "second set: 1 of 18 true texts rejected, 32 of 41 false ones found" in done.stdout
