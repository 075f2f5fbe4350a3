"""YAML to typed configs: unknown keys refused with the nearest known name, `--set key.path=value` on top."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gastrovl.core.errors import ConfigError

C = TypeVar("C", bound=BaseModel)
KeyPath = tuple[str, ...]
# The same safe loader in C where libyaml is there: ten times as fast, and every command reads the taxonomy.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Config(BaseModel):
    """Base of every config: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def load_config(path: Path, kind: type[C], overrides: tuple[str, ...] = ()) -> C:
    """Read a YAML file into `kind`; each override is `dotted.key=YAML value`.

    Raises:
        ConfigError: The file is missing, is not YAML, has a key twice, an unknown key or a wrong value; or an override
            is malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; `configs/` holds working examples")
    content, lines = _read(path)
    origins = {key: f"{path}:{line}" for key, line in lines.items()}
    for override in overrides:
        changed = _set(content, override)
        origins = {key: origin for key, origin in origins.items() if key[: len(changed)] != changed}
        origins[changed] = f"--set {override}"
    return _validate(content, kind, str(path), origins)


def parse_config(content: dict[str, Any], kind: type[C], *, where: str, lines: dict[KeyPath, int] | None = None) -> C:
    """Check a mapping against `kind`; `where` opens every error message, with the line of the key if `lines` has it.

    Raises:
        ConfigError: As in `load_config`.
    """
    return _validate(content, kind, where, {key: f"{where}:{line}" for key, line in (lines or {}).items()})


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


def _read(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """The mapping in a YAML file, and the line of every key path, counted from 1."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = _key_lines(text, path)
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506 (either is a safe loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{path}: found {found}, expected a mapping of settings (`key: value` lines)")
    return content, lines


def _key_lines(text: str, path: Path) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}

    def walk(node: yaml.Node | None, above: KeyPath, open_nodes: tuple[int, ...]) -> None:
        if id(node) in open_nodes:
            raise ConfigError(f"{path}: {'.'.join(above)!r} is an alias of a part that contains it; write it out")
        if isinstance(node, yaml.MappingNode):
            children = [(str(key.value), key.start_mark.line + 1, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(str(n), value.start_mark.line + 1, value) for n, value in enumerate(node.value)]
        else:
            return
        seen: dict[str, int] = {}
        for name, line, value in children:
            if name in seen:
                raise ConfigError(
                    f"{path}:{line}: key {name!r} stands in line {seen[name]} already; remove one of the two"
                )
            seen[name] = line
            lines[(*above, name)] = line
            walk(value, (*above, name), (*open_nodes, id(node)))

    walk(yaml.compose(text, Loader=_LOADER), (), ())
    return lines


def _set(content: dict[str, Any], override: str) -> KeyPath:
    """Change one value; returns the path of its key."""
    key, separator, text = override.partition("=")
    parts = tuple(key.strip().split("."))
    if not separator or not all(parts):
        raise ConfigError(f"--set {override}: expected key.path=value, e.g. --set training.seed=7")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {override}: the value {text!r} is not valid YAML; quote it if it is plain text"
        ) from error
    place: Any = content
    for part in parts[:-1]:
        place = _descend(place, part, override)
    if isinstance(place, list):
        place[_index(place, parts[-1], override)] = value
    else:
        place[parts[-1]] = value
    return parts


def _descend(place: Any, part: str, override: str) -> Any:
    key: Any = _index(place, part, override) if isinstance(place, list) else part
    if isinstance(place, dict) and place.get(part) is None:
        place[part] = {}
    child = place[key]
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {override}: {part!r} is the plain value {child!r}, so nothing can be set below it")
    return child


def _index(place: list[Any], part: str, override: str) -> int:
    if not (part.isascii() and part.isdigit()) or int(part) >= len(place):
        raise ConfigError(f"--set {override}: {part!r} is no index into a list of {len(place)} (counted from 0)")
    return int(part)


def _validate(content: dict[str, Any], kind: type[C], where: str, origins: Mapping[KeyPath, str]) -> C:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        messages = [_explain(item, content, kind, where, origins) for item in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(messages))) from error


def _explain(item: Any, content: Any, kind: type[BaseModel], where: str, origins: Mapping[KeyPath, str]) -> str:
    location = tuple(str(part) for part in item["loc"])
    path = _real_keys(location, content)
    start = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), where)
    key = ".".join(path) or "the config"
    if item["type"] == "extra_forbidden":
        known = _known_keys(kind, location[:-1])
        nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys here: {', '.join(sorted(known))}"
        return f"{start}: unknown key {key!r}; {hint}"
    if item["type"] == "missing":
        return f"{start}: key {'.'.join((*path, location[-1]))!r} is missing; it has no default"
    reason = item["msg"].removeprefix("Value error, ")
    return f"{start}: {key}: {reason} (found {_short(item.get('input'))})"


def _real_keys(location: KeyPath, content: Any) -> KeyPath:
    """`location` without the parts by which pydantic names the branches of a union, and without a missing key."""
    keys: list[str] = []
    for part in location:
        if isinstance(content, dict):
            names = {str(name): value for name, value in content.items()}
            if part not in names:
                continue
            content = names[part]
        elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        else:
            continue
        keys.append(part)
    return tuple(keys)


def _known_keys(kind: type[BaseModel], location: KeyPath) -> list[str]:
    schema = kind.model_json_schema()
    nodes = _options(schema, schema)
    for part in location:
        below = [child for node in nodes for child in _children(node, part, schema)]
        # A part that leads nowhere names a branch of a union.
        nodes = below or [node for node in nodes if node.get("title") == part] or nodes
    return list(dict.fromkeys(name for node in nodes for name in node.get("properties", {})))


def _children(node: dict[str, Any], part: str, schema: dict[str, Any]) -> list[dict[str, Any]]:
    properties = node.get("properties", {})
    if part in properties:
        return _options(properties[part], schema)
    below = node.get("items") if part.isdigit() else None
    below = below if isinstance(below, dict) else node.get("additionalProperties")
    return _options(below, schema) if isinstance(below, dict) else []


def _options(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    reference = node.get("$ref")
    if reference:
        node = schema["$defs"][reference.rsplit("/", 1)[-1]]
    branches = node.get("anyOf", []) + node.get("oneOf", [])
    return [leaf for branch in branches for leaf in _options(branch, schema)] or [node]


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
