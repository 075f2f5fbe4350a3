"""What the README and the docs tell a stranger to type exists, and what they point at is there."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from gastrovl.cli.app import app
from gastrovl.core.config import parse_config

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
PAGES = [
    README,
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
PACKAGE = REPOSITORY / "src" / "gastrovl"
# Name of a YAML example in the pages -> the type it loads as.
EXAMPLES = {
    "served": ("gastrovl.inference.others.description", "ModelDescription"),
    "source": ("gastrovl.data.source", "SourceDescription"),
    "data": ("gastrovl.data.build", "BuildConfig"),
    "train": ("gastrovl.training.config", "TrainConfig"),
}
_FENCE = re.compile(r"^```(?:bash|console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
_CITED = re.compile(r"`((?:configs|src|docs|tests|benchmarks|\.ci)/[^`\s*<>{}]+)`")


def commands_of(page):
    """The command lines of a page's shell blocks, split into words, continued lines joined, comments dropped."""
    for block in _FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield words


def make_targets():
    return set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def problem_of_gastrovl_command(words):
    """None when the subcommand, its options and its config files exist, else what is wrong."""
    command, rest = get_command(app), words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    known |= {"-h", "--help"}
    unknown = [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]
    missing = [word for word in rest if word.startswith("configs/") and not (REPOSITORY / word).is_file()]
    return f"unknown options {unknown}, missing files {missing}" if unknown or missing else None


def short(path):
    return str(path.relative_to(REPOSITORY))


def test_the_readme_shows_the_two_commands_a_stranger_needs():
    assert {("make", "demo"), ("make", "test")} <= {tuple(words) for words in commands_of(README)}


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_command_of_a_page_exists(page):
    problems = []
    for words in commands_of(page):
        if words[0] == "make":
            problems += [f"no target {word!r}" for word in words[1:] if "=" not in word and word not in make_targets()]
        elif words[0].endswith("gastrovl") and (problem := problem_of_gastrovl_command(words)):
            problems.append(f"{shlex.join(words)}: {problem}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_relative_link_of_a_page_leads_somewhere(page):
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_file_a_page_names_exists(page):
    assert [name for name in _CITED.findall(page.read_text(encoding="utf-8")) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_yaml_example_of_a_page_loads(page):
    for example in _YAML.findall(page.read_text(encoding="utf-8")):
        name = re.match(r"# my/(\w+)\.yaml: ", example)
        assert name, f"an example opens with `# my/NAME.yaml: what it is`, found {example.splitlines()[0]!r}"
        module, kind = EXAMPLES[name.group(1)]
        parse_config(yaml.safe_load(example), getattr(import_module(module), kind), where=short(page))


def test_the_readme_tree_lists_every_package_folder():
    tree = README.read_text(encoding="utf-8").split("src/gastrovl/", 1)[1].split("```", 1)[0]
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {name for name in folders if not re.search(rf"^\s+{name}/\s+\S", tree, re.MULTILINE)} == set()


def test_the_readme_says_what_this_is_not():
    text = " ".join(README.read_text(encoding="utf-8").lower().split())
    assert "not a medical device" in text
    assert "a physician decides" in text


def test_the_licences_are_those_the_package_names():
    licence = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    card = (REPOSITORY / "src" / "gastrovl" / "starter" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0" in card
    assert 'license = "Apache-2.0 AND CC-BY-4.0"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def test_the_citation_names_the_version_and_the_paper():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == project.group(1)
    assert citation["references"][0]["title"] == "Foundational Multi-Task Multimodal Model for Upper GI Endoscopy"


def test_decision_pages_are_numbered_without_gaps_and_have_the_four_parts():
    pages = sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    parts = ["## Context", "## Decision", "## Consequences", "## What would overturn it"]
    wrong = [
        page.name for page in pages if re.findall(r"^## .*", page.read_text(encoding="utf-8"), re.MULTILINE) != parts
    ]
    assert wrong == []
