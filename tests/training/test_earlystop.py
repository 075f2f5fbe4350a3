"""Early stops: which validation is best, when patience ends, and which files are left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gastrovl.core.errors import ConfigError
from gastrovl.training.config import EarlyStopConfig
from gastrovl.training.earlystop import EarlyStop


@pytest.fixture
def watch(tmp_path):
    """`watch(scores, metric="loss", ...)`: a model whose weight is the step, validated with these scores in turn."""

    def build(scores, metric="loss", is_saving=True, stop=None, first=1, **rule):
        model = torch.nn.Linear(1, 1, bias=False)
        stop = stop or EarlyStop(EarlyStopConfig(metric=metric, **rule), model, tmp_path, is_saving)
        ended = None
        for step, score in enumerate(scores, start=first):
            with torch.no_grad():
                stop.model.weight.fill_(step)
            state = SimpleNamespace(global_step=step, is_world_process_zero=True)
            control = SimpleNamespace(should_training_stop=False)
            stop.on_evaluate(None, state, control, {f"eval_{metric}": score})
            if control.should_training_stop:
                ended = step
                break
        return SimpleNamespace(stop=stop, ended=ended, folder=tmp_path, state=state)

    return build


@pytest.mark.parametrize(
    ("scores", "rule", "ended", "best"),
    [
        ([5, 4, 4.5, 4.2, 3], {"patience": 2}, 4, 2),  # two in a row above 4
        ([5, 4, 4.5, 3, 4, 4], {"patience": 2}, 6, 4),  # a better one starts the count anew
        ([5, 4.9, 4.8], {"patience": 2, "min_delta": 0.5}, 3, 1),  # gains too small to count
        ([0.1, 0.3, 0.2, 0.2], {"patience": 2, "metric": "rec_iou"}, 4, 2),  # the highest of what is no loss
        ([float("nan"), 5, float("nan")], {"patience": 2}, None, 2),
        ([5, 5], {"patience": 1}, 2, 1),  # equal is no better
    ],
)
def test_a_stage_ends_after_so_many_validations_that_are_no_better(watch, scores, rule, ended, best):
    seen = watch(scores, **rule)

    assert seen.ended == ended
    seen.stop.apply()
    assert seen.stop.model.weight.item() == best


def test_a_saved_state_finds_its_own_best_weights_although_the_run_went_on(watch, tmp_path):
    first = watch([5, 4])
    (tmp_path / "state").mkdir()
    first.stop.save(tmp_path / "state")
    first.stop.on_save(None, first.state, None)
    watch([3], stop=first.stop, first=3)  # then the run died
    again = watch([5])

    again.stop.load(tmp_path / "state")
    again.stop.apply()

    assert (again.stop.best, again.stop.misses, again.stop.model.weight.item()) == (4, 0, 2)


def test_older_files_go_when_a_state_is_saved(watch):
    seen = watch([5, 4, 3])
    assert sorted(path.name for path in seen.folder.iterdir()) == [f"best-{n}.safetensors" for n in (1, 2, 3)]

    seen.stop.on_save(None, seen.state, None)

    assert [path.name for path in seen.folder.iterdir()] == ["best-3.safetensors"]


def test_without_saved_states_only_the_best_file_is_kept(watch):
    assert [path.name for path in watch([5, 4, 6], is_saving=False).folder.iterdir()] == ["best-2.safetensors"]


def test_an_unknown_score_is_refused_with_the_known_ones(watch):
    seen = watch([5])

    with pytest.raises(ConfigError, match=r"early_stop\.metric 'loss' is no validation score; known: cls_exact"):
        seen.stop.on_evaluate(None, seen.state, None, {"eval_cls_exact": 1.0, "epoch": 2})
