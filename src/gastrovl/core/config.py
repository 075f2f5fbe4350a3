"""YAML to typed configs: unknown keys refused with the nearest known name, `--set key.path=value` on top."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gastrovl.core.errors import ConfigError

C = TypeVar("C", bound=BaseModel)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Config(BaseModel):
    """Base of every config: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def load_config(path: Path, kind: type[C], overrides: tuple[str, ...] = ()) -> C:
    """Read a YAML file into `kind`; each override is `dotted.key=YAML value`.

    Raises:
        ConfigError: The file is missing, is not YAML, has an unknown key or a wrong value.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; `configs/` holds working examples")
    text = path.read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: found {type(content).__name__}, expected a mapping of settings")
    for override in overrides:
        _set(content, override)
    return parse_config(content, kind, where=str(path), lines=_key_lines(text))


def parse_config(
    content: dict[str, Any], kind: type[C], *, where: str, lines: dict[tuple[str, ...], int] | None = None
) -> C:
    """Check a mapping against `kind`; `where` opens every error message.

    Raises:
        ConfigError: As in `load_config`.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        messages = [_explain(item, kind, where, lines or {}) for item in error.errors()]
        raise ConfigError("\n".join(messages)) from error


def expand_variables(value: str, where: str) -> str:
    """`value` with each ${NAME} replaced by the environment variable NAME.

    Raises:
        ConfigError: A variable is not set.
    """

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{where}: environment variable {name} is not set; set it, or write the path itself")
        return os.environ[name]

    return _VARIABLE.sub(replace, value)


def _set(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: expected key.path=value, e.g. --set training.seed=7")
    place: Any = content
    *parents, last = key.split(".")
    for part in parents:
        place = _descend(place, part, override)
    if isinstance(place, list):
        place[_index(place, last, override)] = yaml.safe_load(value)
    else:
        place[last] = yaml.safe_load(value)


def _descend(place: Any, part: str, override: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, override)]
    child = place.setdefault(part, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {override!r}: {part!r} is a plain value, so nothing can be set below it")
    return child


def _index(place: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise ConfigError(f"--set {override!r}: {part!r} is no index into a list of {len(place)} (counted from 0)")
    return int(part)


def _explain(item: Any, kind: type[BaseModel], where: str, lines: dict[tuple[str, ...], int]) -> str:
    location = tuple(str(part) for part in item["loc"])
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    start = f"{where}:{line}" if line else where
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        known = _known_keys(kind, location[:-1])
        nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys here: {', '.join(sorted(known))}"
        return f"{start}: unknown key {key!r}; {hint}"
    if item["type"] == "missing":
        return f"{start}: key {key!r} is missing; it has no default"
    return f"{start}: {key}: {item['msg']} (found {item.get('input')!r})"


def _known_keys(kind: type[BaseModel], location: tuple[str, ...]) -> list[str]:
    schema = kind.model_json_schema()
    nodes = [schema]
    for part in location:
        nodes = [child for node in nodes for child in _children(node, part, schema)]
    return [name for node in nodes for name in _resolve(node, schema).get("properties", {})]


def _children(node: dict[str, Any], part: str, schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for option in _options(node, schema):
        properties = option.get("properties", {})
        if part in properties:
            found.extend(_options(properties[part], schema))
        elif isinstance(option.get("items"), dict):
            found.extend(_options(option["items"], schema))
        elif isinstance(option.get("additionalProperties"), dict):
            found.extend(_options(option["additionalProperties"], schema))
    return found


def _options(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    node = _resolve(node, schema)
    branches = node.get("anyOf", []) + node.get("oneOf", [])
    return [leaf for branch in branches for leaf in _options(branch, schema)] or [node]


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[-1]] if reference else node


def _key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Line number of every key path, counted from 1."""
    lines: dict[tuple[str, ...], int] = {}

    def walk(node: yaml.Node | None, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*path, str(key.value))] = key.start_mark.line + 1
                walk(value, (*path, str(key.value)))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*path, str(index))] = value.start_mark.line + 1
                walk(value, (*path, str(index)))

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return lines
