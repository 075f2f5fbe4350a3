"""Phrase files: what they must hold, and that no held-out wording is among the training ones."""

import pytest

from gastrovl.core.errors import ConfigError
from gastrovl.core.types import ImageRef, Sample, Split, Target, Task
from gastrovl.data.exchanges import Exchange
from gastrovl.data.wordings import SLOTS, Phrasing, Writer, plain

PHRASING = Phrasing.load()


def sample_of(split):
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id="own/a", image=image, source="own", group="1", split=split, findings=())


def question(task=Task.CLS):
    return Exchange(task, task, ("a", "b"), Target())


def test_every_question_has_training_wordings_and_others_held_out():
    assert PHRASING.wordings.keys() == PHRASING.held_out.keys() == SLOTS.keys()
    assert min(len(wordings) for wordings in PHRASING.wordings.values()) >= 5
    assert min(len(wordings) for wordings in PHRASING.held_out.values()) >= 3


def test_no_wording_of_the_package_stands_twice_in_any_place():
    said = [plain(text) for book in (PHRASING.wordings, PHRASING.held_out) for some in book.values() for text in some]
    assert len(set(said)) == len(said)


def test_punctuation_and_case_do_not_make_another_wording():
    assert plain("Where is {label}?") == plain("where  is {label}!") != plain("Where is {box}?")


def test_training_offers_every_wording_and_none_that_is_held_out():
    asked, answered = Writer(sample_of(Split.TRAIN), PHRASING, 7).write("CLS-0", [question()]).turns
    assert {asked.text, *asked.alternatives} == set(PHRASING.wordings[Task.CLS])
    assert (answered.text, answered.alternatives) == ("a", ("b",))


def test_rewording_changes_the_words_of_a_question_alone():
    plainly = Writer(sample_of(Split.TEST), PHRASING, 7).write("CLS-0", [question()])
    again = Writer(sample_of(Split.TEST), PHRASING, 7, is_reworded=True).write("CLS-0", [question()])
    assert plainly.turns[0].text in PHRASING.wordings[Task.CLS]
    assert again.turns[0].text in PHRASING.held_out[Task.CLS]
    assert again.model_copy(update={"turns": (plainly.turns[0], again.turns[1])}) == plainly


def test_a_training_sample_is_never_reworded():
    with pytest.raises(ValueError, match="training split"):
        Writer(sample_of(Split.TRAIN), PHRASING, 7, is_reworded=True)


def test_turns_draw_their_wordings_apart():
    drawn = {
        tuple(
            turn.text for turn in Writer(sample_of(Split.TEST), PHRASING, seed).write("x", [question()] * 2).turns[::2]
        )
        for seed in range(20)
    }
    assert any(first != second for first, second in drawn)


@pytest.fixture
def phrasing_folder(tmp_path):
    for key, slots in SLOTS.items():
        tail = " ".join(f"{{{slot}}}" for slot in slots)
        lines = ["wordings:", *(f'  - "Wording {number} {tail}"' for number in range(5))]
        lines += ["held_out:", *(f'  - "Other {number} {tail}"' for number in range(3))]
        (tmp_path / f"{key.lower()}.yaml").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_own_wordings_can_be_loaded(phrasing_folder):
    phrasing = Phrasing.load(phrasing_folder)
    assert phrasing.wordings[Task.REC][0] == "Wording 0 {label}"
    assert phrasing.held_out["compare_size"] == tuple(f"Other {number} {{first}} {{second}}" for number in range(3))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "rec.yaml",
            "Wording 0 {label}",
            "Wording 0",
            r"rec\.yaml: wordings: 'Wording 0' has slots \[\], expected \{label\}",
        ),
        ("cls.yaml", "Wording 0", "Wording {label}", r"cls\.yaml: wordings: .* expected no slot"),
        ("reg.yaml", "Wording 0 {box}", "Wording 0 {box", r"reg\.yaml: wordings: .* has an unpaired brace"),
        ("compare_size.yaml", "0 {first} {second}", "0 {second} {first}", r"expected \{first\} \{second\}, once"),
        ("cap.yaml", "Wording 0", "Wording 1", r"cap\.yaml: wordings: 'Wording 1 ?' is listed twice"),
        ("cap.yaml", '  - "Wording 4 "', "", r"cap\.yaml: wordings: found 4, expected at least 5"),
        ("cap.yaml", '  - "Other 2 "', "", r"cap\.yaml: held_out: found 2, expected at least 3"),
        ("count.yaml", "Other 1 {label}", "Other 1", r"count\.yaml: held_out: 'Other 1' has slots"),
        (
            "cap.yaml",
            "Other 1 ",
            "WORDING 1.",
            r"cap\.yaml: held_out: 'WORDING 1.' is a training wording of .*\.yaml",
        ),
    ],
)
def test_wrong_wordings_are_refused(phrasing_folder, file, old, new, message):
    path = phrasing_folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        Phrasing.load(phrasing_folder)
