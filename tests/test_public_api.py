"""The names a stranger may rely on: they exist, they are documented, and the list does not grow by accident."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import gastrovl

PROMISED = [
    "Box",
    "Conversation",
    "Finding",
    "Prediction",
    "Predictor",
    "Sample",
    "Score",
    "Task",
    "Taxonomy",
    "Turn",
    "build_dataset",
    "evaluate",
    "train",
]


def test_all_lists_exactly_the_promised_names_in_order():
    assert gastrovl.__all__ == sorted(gastrovl.__all__)
    assert set(gastrovl.__all__) == set(PROMISED)


def test_dir_shows_the_public_names_and_the_version():
    assert dir(gastrovl) == sorted([*PROMISED, "__version__"])


@pytest.mark.parametrize("name", PROMISED)
def test_a_public_name_imports_and_explains_itself(name):
    thing = getattr(gastrovl, name)
    text = thing.__doc__ or ""
    assert text.strip(), f"gastrovl.{name} has no docstring"
    assert not text.startswith(f"{name}("), f"gastrovl.{name} has only a generated docstring"


@pytest.mark.parametrize("name", PROMISED)
def test_a_public_method_explains_itself(name):
    thing = getattr(gastrovl, name)
    methods = inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else []
    bare = [
        method
        for method, function in methods
        if not method.startswith("_") and function.__module__.startswith("gastrovl.") and not inspect.getdoc(function)
    ]
    assert not bare, f"gastrovl.{name} has methods without a docstring: {bare}"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"'Boxes'; public names: Box, Conversation"):
        _ = gastrovl.Boxes


def test_importing_the_package_imports_no_torch():
    script = "import sys, gastrovl; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
