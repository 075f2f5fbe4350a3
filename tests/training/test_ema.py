"""A running average of weights: by hand, put in and taken out again bit for bit, kept in saved states."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gastrovl.training.ema import AveragedWeights


def a_model():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model[2].requires_grad_(False)
    return model


def step(average, model, number, value):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.fill_(value)
        model[1].running_mean.fill_(10 * value)
    average.on_step_end(None, SimpleNamespace(global_step=number), None)


def test_the_average_follows_the_weights_as_worked_by_hand():
    model = a_model()
    average = AveragedWeights(model, 0.2)
    average.on_train_begin(None, None, None)

    step(average, model, 1, 1.0)  # keeps min(0.2, 2 / 11) of 0: 9 / 11
    step(average, model, 2, 3.0)  # keeps min(0.2, 3 / 12) = 0.2: 0.2 * 9 / 11 + 0.8 * 3
    average.apply()

    expected = 0.2 * 9 / 11 + 0.8 * 3
    assert model[0].weight.flatten().tolist() == pytest.approx([expected] * 4)
    assert model[1].running_mean.tolist() == pytest.approx([10 * expected] * 2)
    assert not model[2].weight.any()  # frozen


def test_within_the_context_the_model_has_the_average_and_behind_it_its_own():
    model = a_model()
    average = AveragedWeights(model, 0.5)
    average.on_train_begin(None, None, None)
    step(average, model, 1, 1 / 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with average.applied():
        inside = model[0].weight.clone()

    assert not torch.equal(inside, before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_saved_average_goes_on_bit_for_bit(tmp_path):
    model, twin = a_model(), a_model()
    average, other = AveragedWeights(model, 0.9), AveragedWeights(twin, 0.9)
    average.on_train_begin(None, None, None)
    step(average, model, 1, 1 / 3)
    average.save(tmp_path)

    other.load(tmp_path)
    other.on_train_begin(None, None, None)
    step(average, model, 2, 0.7)
    step(other, twin, 2, 0.7)
    average.apply()
    other.apply()

    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())
