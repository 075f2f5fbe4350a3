from __future__ import annotations

import pytest

from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.results import IouCurve
from gastrovl.evaluation.showing.overview import draw_overview
from gastrovl.evaluation.showing.pictures import pictures
from gastrovl.evaluation.showing.plots import draw_curves, draw_datasets, draw_scores
from gastrovl.evaluation.showing.radar import MODEL, RIVAL, draw_radar, profiles


def score(task=Task.CLS, metric="accuracy", dataset="all", split=Split.TEST, value=0.5, baseline=0.25, **more):
    bounds = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
    return Score(
        task=task, metric=metric, dataset=dataset, split=split, value=value, n=10, n_unparsed=0, baseline=baseline,
        baseline_name="majority label", **(bounds | more),
    )  # fmt: skip


def bars(axes):
    return [round(patch.get_height(), 6) for patch in axes.patches]


def test_the_overview_has_a_bar_for_each_task_and_split_and_the_papers_number():
    scores = [
        score(split=Split.VAL, value=0.7),
        score(value=0.5),
        score(task=Task.CAP, metric="rougeL", value=0.3),
        score(dataset="a", value=0.9),
        score(metric="macro_f1", value=0.8),
    ]
    [axes] = draw_overview(scores).axes
    assert bars(axes) == [70.0, 50.0, 30.0]
    squares = [line for line in axes.get_lines() if line.get_marker() == "s"]
    assert [line.get_ydata()[0] for line in squares] == [91.36, 88.63]  # Table 4, CLS; it has none for CAP
    assert {line.get_label() for line in squares} == {"He et al. 2025, on other images"}


def test_an_overview_of_nothing_is_no_picture():
    assert draw_overview([score(value=None, reason="nothing to score")]) is None


def test_a_long_name_of_a_dataset_is_shortened_below_its_bar():
    [axes] = draw_datasets([score(dataset="a very long name of a dataset v2"), score()]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a very long na…aset v2: 50", "all: 50"]


def test_the_axis_reaches_what_lies_below_zero():
    [axes] = draw_scores([score(metric="mcc", value=-0.3, baseline=-0.5), score()]).axes
    assert axes.get_xlim()[0] < -50
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Matthews correlation (-1 to 1)", "accuracy (%)"]


def test_the_radar_shows_model_and_baseline_on_shares_only():
    scores = [
        score(value=0.5),
        score(metric="macro_f1", value=0.4, baseline=None),
        score(metric="mcc", value=0.3),
        score(metric="ece", value=0.2),
        score(task=Task.REC, metric="acc@0.5", value=0.6, baseline=0.1),
    ]
    found = profiles(scores)
    assert list(found[MODEL].values()) == [0.5, 0.4, 0.6]
    assert list(found[RIVAL].values()) == [0.25, 0.1]
    [axes] = draw_radar(found).axes
    model, rival = axes.get_lines()
    assert list(model.get_ydata()) == pytest.approx([50, 40, 60, 50])  # closed
    assert list(rival.get_ydata()) == pytest.approx([25, 0, 10, 25])


def test_a_radar_needs_three_axes_and_takes_many_models():
    assert draw_radar({"a": {"x": 0.1, "y": 0.2}}) is None
    figure = draw_radar({name: {"x": 0.1, "y": 0.2, "z": 0.3} for name in "abcdefgh"})
    assert len(figure.axes[0].get_lines()) == 8


def test_iou_curves_are_drawn_in_percent():
    curve = IouCurve(split=Split.TEST, name="model", thresholds=(0.1, 0.5), shares=(0.8, 0.4))
    [axes] = draw_curves([curve]).axes
    assert list(axes.get_lines()[0].get_ydata()) == [80.0, 40.0]


def test_pictures_of_a_folder_come_in_reading_order_with_words(made_up_run):
    found = pictures(made_up_run / "evaluation" / "test" / "plots")
    words = [picture.words for picture in found]
    assert words[0].endswith("(test)")
    assert "the paper's number" in words[0]
    order = ["by dataset", "(CLS, test)", "(REC, test)", "(REG, test)", "(CAP, test)"]
    places = [next(i for i, text in enumerate(words) if part in text) for part in order]
    assert places == sorted(places)
    assert all(picture.address.startswith("data:image/png;base64,") for picture in found)
    assert not any(picture.is_detail for picture in found[:2])


def test_a_count_without_an_end_is_on_no_axis_of_percent():
    scores = [score(task=Task.CAP, metric="fact_f1"), score(task=Task.CAP, metric="contradictions", value=3.0)]
    [axes] = draw_scores(scores).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fact F1 (%)"]
    assert axes.get_xlim()[1] < 110
