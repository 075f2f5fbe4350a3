"""A file of questions divided among processes: joined, it is the file of one process, whoever died in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gastrovl.core.errors import ConfigError, OutputError, PredictionError, RecordError
from gastrovl.core.records import read_records, to_line, write_records
from gastrovl.core.types import Conversation, Prediction
from gastrovl.inference.batch import predict_file
from gastrovl.inference.runrecord import read_run, run_path
from gastrovl.inference.sharding import Shard, divided, join_shards, part_path, predict_shard

THREE = [Shard(number, 3) for number in (1, 2, 3)]

# A process of its own that answers one part and is killed by the system when it is asked for the n-th time.
DIES = """
import os, signal, sys
from gastrovl.core.types import Prediction
from gastrovl.inference.sharding import Shard, predict_shard

class Mortal:
    name, fingerprint, workers, batch_size, settings, currency = "echo", "weights", 1, None, None, None
    batches = 0

    def answers(self, batch, folder):
        self.batches += 1
        if self.batches == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        for one in batch:
            said = f"größe: {one.turns[0].text}"
            yield Prediction(conversation_id=one.id, text=said, model="echo", seconds=0.25, stop_reason="end")

predict_shard(Mortal(), sys.argv[1], sys.argv[2], Shard.parse(sys.argv[3]), batch_size=2)
"""


class Echo:
    """Says the question back; dies at the n-th batch if told so."""

    name, workers, batch_size, currency = "echo", 1, None, "EUR"

    def __init__(self, dies_at=None, fingerprint="weights", fails=()):
        self.settings = {"kind": "echo"}
        self.fingerprint, self.dies_at, self.fails, self.asked = fingerprint, dies_at, fails, []
        self.batches = 0

    def answers(self, batch, _folder):
        self.batches += 1
        if self.batches == self.dies_at:
            raise KeyboardInterrupt
        for one in batch:
            self.asked.append(one.id)
            said = f"größe: {one.turns[0].text}"
            ended = "failed" if one.id in self.fails else "end"
            yield Prediction(conversation_id=one.id, text=said, model="echo", seconds=0.25, stop_reason=ended)


@pytest.fixture
def conversations(tiny_data):
    return tiny_data(images=5)


@pytest.fixture
def whole(conversations, tmp_path):
    """The file of an undivided run."""
    predict_file(Echo(), conversations, tmp_path / "whole" / "out.jsonl", batch_size=2)
    return tmp_path / "whole" / "out.jsonl"


def questions(counts):
    """Conversations about images of these names, so many about each."""
    some = Conversation.model_validate(PATTERN)
    return [
        some.model_copy(update={"id": f"{name}#{number}", "image": some.image.model_copy(update={"path": name})})
        for name, count in counts.items()
        for number in range(count)
    ]


PATTERN = {
    "id": "a",
    "sample_id": "a",
    "task": "CAP",
    "image": {"path": "a.png", "width_px": 8, "height_px": 8, "sha256": "0" * 64},
    "source": "tiny",
    "group": "g",
    "split": "test",
    "turns": [{"role": "user", "text": "Describe."}, {"role": "assistant", "text": "Nothing."}],
    "target": {},
}


def test_an_image_lies_in_one_part_and_parts_are_as_even_as_that_allows():
    asked = questions({"a": 1, "b": 4, "c": 2, "d": 3, "e": 2})

    parts = divided(asked, 3)

    # b (4) to the first, d (3) to the second, c (2) to the third, e (2) to the third (2 < 3 < 4), a (1) to the second.
    assert [Counter(one.image.path for one in part) for part in parts] == [{"b": 4}, {"a": 1, "d": 3}, {"c": 2, "e": 2}]
    assert divided(list(reversed(asked)), 3) == [list(reversed(part)) for part in parts]


def test_a_thousand_images_are_divided_evenly():
    asked = questions({f"{number}.png": 1 + number % 4 for number in range(1000)})  # 2,500 questions

    sizes = [len(part) for part in divided(asked, 7)]

    assert sum(sizes) == 2500
    assert set(sizes) == {357, 358}  # 2,500 = 7 * 357 + 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_a_part_that_cannot_be_is_refused(text):
    with pytest.raises(ConfigError, match="expected K/N with K from 1 to N, such as 2/8"):
        Shard.parse(text)


def test_a_launcher_gives_each_process_its_part(monkeypatch):
    assert Shard.of_launcher() is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")

    assert Shard.of_launcher() == Shard.parse("3/4")


def test_whoever_ends_last_joins_the_parts_to_the_file_of_one_process(conversations, whole, tmp_path):
    output = tmp_path / "new" / "out.jsonl"
    echo = Echo()

    found = [predict_shard(echo, conversations, output, shard, batch_size=2) for shard in (THREE[2], *THREE[:2])]

    assert [one.is_joined for one in found] == [False, False, True]
    assert [one.answered for one in found] == [4, 8, 8]  # five images of four questions
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.run.json"]
    assert Counter(echo.asked) == Counter(one.id for one in read_records(conversations, Conversation))
    now, alone = read_run(output), read_run(whole)
    assert (now.asked_now, now.description) == (8, {"kind": "echo"})
    moving = {"asked_now", "seconds_now", "created"}
    assert now.model_dump(exclude=moving) == alone.model_dump(exclude=moving)


@pytest.mark.parametrize("dies_at", [1, 2, 4])
def test_a_part_that_was_interrupted_goes_on_where_it_stopped(conversations, whole, tmp_path, dies_at):
    output = tmp_path / "out.jsonl"
    predict_shard(Echo(), conversations, output, THREE[0], batch_size=2)
    predict_shard(Echo(), conversations, output, THREE[2], batch_size=2)
    first, second = Echo(dies_at), Echo()

    with pytest.raises(KeyboardInterrupt):
        predict_shard(first, conversations, output, THREE[1], batch_size=2)
    assert not output.exists()
    found = predict_shard(second, conversations, output, THREE[1], batch_size=2)

    assert found.is_joined
    assert found.answered == len(second.asked) == 8 - len(first.asked)
    assert output.read_bytes() == whole.read_bytes()


def test_a_killed_process_leaves_a_part_that_another_machine_ends(conversations, whole, tmp_path):
    output = tmp_path / "out.jsonl"
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH"))))

    killed = subprocess.run(
        [sys.executable, "-c", DIES, str(conversations), str(output), "1/2", "3"],
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    part = part_path(output, Shard(1, 2))
    assert part.read_bytes().count(b"\n") == 1 + 3  # what it belongs to, and batches of two and one
    part.write_bytes(part.read_bytes()[:-3])  # as where the system was cut off while it wrote

    assert not predict_shard(Echo(), conversations, output, Shard(2, 2), batch_size=2).is_joined
    found = predict_shard(Echo(), conversations, output, Shard(1, 2), batch_size=2)

    assert (found.answered, found.is_joined) == (12 - 2, True)
    assert output.read_bytes() == whole.read_bytes()
    assert not part.exists()


def test_parts_from_several_machines_are_joined_by_hand(conversations, whole, tmp_path):
    for shard in THREE:  # each in a folder of its own, as where no disk is shared
        output = tmp_path / f"machine{shard.number}" / "out.jsonl"
        predict_shard(Echo(), conversations, output, shard, batch_size=2)
        part = part_path(output, shard)
        assert part.exists()
        (tmp_path / "all").mkdir(exist_ok=True)
        part.rename(part_path(tmp_path / "all" / "out.jsonl", shard))

    assert join_shards(conversations, tmp_path / "all" / "out.jsonl") == 20
    assert (tmp_path / "all" / "out.jsonl").read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["out.jsonl", "out.run.json"]


def test_parts_that_are_missing_or_not_whole_are_named_and_nothing_is_written(conversations, tmp_path):
    output = tmp_path / "out.jsonl"
    with pytest.raises(PredictionError, match="found no parts of it beside it"):
        join_shards(conversations, output)
    predict_shard(Echo(), conversations, output, THREE[0], batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        predict_shard(Echo(dies_at=2), conversations, output, THREE[1], batch_size=2)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("out.*")}

    with pytest.raises(
        PredictionError, match=r"shard 2/3 has 6 of 8 questions open; shard 3/3 has 4 of 4 questions open"
    ):
        join_shards(conversations, output)

    assert {path.name: path.read_bytes() for path in tmp_path.glob("out.*")} == before


def test_parts_of_another_model_or_of_other_questions_are_not_mixed(conversations, tmp_path):
    output = tmp_path / "out.jsonl"
    predict_shard(Echo(), conversations, output, Shard(1, 2))

    with pytest.raises(PredictionError, match=r"out\.jsonl\.2-of-2\.partial:1: was answered by 'echo' \(retraine\)"):
        predict_shard(Echo(fingerprint="retrained"), conversations, output, Shard(2, 2))
    with pytest.raises(PredictionError, match="parts of one file are of one model"):
        join_shards(conversations, output)
    assert not output.exists()
    assert not run_path(output).exists()

    part_path(output, Shard(2, 2)).unlink()
    records = list(read_records(conversations, Conversation))
    write_records(conversations, [*records[:-1], records[-1].model_copy(update={"id": "new"})])
    with pytest.raises(PredictionError, match=r"1-of-2\.partial:1: was begun for another state of the file"):
        predict_shard(Echo(), conversations, output, Shard(1, 2))


def test_a_part_of_the_same_file_that_changed_is_not_joined(conversations, tmp_path):
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        predict_shard(Echo(dies_at=2), conversations, output, Shard(1, 1), batch_size=2)
    with conversations.open("a", encoding="utf-8") as stream:
        stream.write("\n")

    with pytest.raises(PredictionError, match="was begun for another state of the file of conversations; delete it"):
        join_shards(conversations, output)


def test_a_reply_in_the_part_of_another_shard_is_refused(conversations, tmp_path):
    output = tmp_path / "out.jsonl"
    predict_shard(Echo(), conversations, output, THREE[0], batch_size=2)
    part_path(output, THREE[0]).rename(part_path(output, THREE[1]))

    with pytest.raises(PredictionError, match=r"2-of-3\.partial:2: answers 'tiny/0#CLS', which is not asked now"):
        join_shards(conversations, output)


def test_parts_of_two_divisions_are_not_joined(conversations, tmp_path):
    output = tmp_path / "out.jsonl"
    predict_shard(Echo(), conversations, output, Shard(1, 2))
    predict_shard(Echo(), conversations, output, Shard(1, 3))

    with pytest.raises(PredictionError, match=r"found parts of 2 divisions \(\[2, 3\] parts\) beside it"):
        join_shards(conversations, output)


def test_more_parts_than_images_leave_some_with_nothing_to_do(conversations, whole, tmp_path):
    output = tmp_path / "out.jsonl"

    found = [predict_shard(Echo(), conversations, output, Shard(number, 7)) for number in range(1, 8)]

    assert [one.asked for one in found] == [4, 4, 4, 4, 4, 0, 0]
    assert [one.is_joined for one in found] == [False] * 4 + [True] + [False] * 2
    assert output.read_bytes() == whole.read_bytes()


def test_a_process_that_comes_when_all_is_joined_has_nothing_to_do(conversations, tmp_path):
    output, late = tmp_path / "out.jsonl", Echo()
    for shard in THREE:
        predict_shard(Echo(), conversations, output, shard)

    found = predict_shard(late, conversations, output, THREE[0])

    assert (found.is_joined, found.answered, late.asked) == (True, 0, [])
    with pytest.raises(OutputError, match="exists already"):
        predict_shard(Echo(fingerprint="retrained"), conversations, output, THREE[0])
    with pytest.raises(OutputError, match="exists already"):
        join_shards(conversations, output)
    predict_shard(Echo(fingerprint="retrained"), conversations, output, Shard(1, 1), is_replaced=True)
    assert read_run(output).fingerprint == "retrained"


def test_failures_of_a_part_are_asked_again(conversations, tmp_path):
    output, again = tmp_path / "out.jsonl", Echo()
    predict_shard(Echo(fails=["tiny/0#CLS"]), conversations, output, THREE[0])

    predict_shard(again, conversations, output, THREE[0], retries_failed=True)

    assert again.asked == ["tiny/0#CLS"]


def test_a_broken_line_of_a_part_is_named(conversations, tmp_path):
    output = tmp_path / "out.jsonl"
    predict_shard(Echo(), conversations, output, THREE[0])
    part = part_path(output, THREE[0])
    other = Prediction(conversation_id="x", text="x", model="echo", seconds=1, stop_reason="end")
    part.write_bytes(part.read_bytes() + b"{broken\n")
    part_path(output, THREE[1]).write_text(to_line(other) + "\n", encoding="utf-8")

    with pytest.raises(RecordError, match=r"1-of-3\.partial:10: not a whole JSON object"):
        join_shards(conversations, output)
    part.unlink()
    with pytest.raises(PredictionError, match=r"2-of-3\.partial:1: does not say which model the replies are of"):
        join_shards(conversations, output)
