"""A JSON schema that a client asks for, held against the schema of one of our answers; then the answer cut to it.

Nothing here steers decoding: an answer of ours fits by construction, or the schema is refused before anything is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
_SAYS_NOTHING = {"title", "description", "default", "examples", "$defs", "definitions", "$schema", "$id", "strict"}
_READ = {"type", "properties", "required", "additionalProperties", "items", "prefixItems", "anyOf", "oneOf", "enum"}
_READ |= {"const", "minimum", "maximum", "minItems", "maxItems", "$ref"}
_DEEPEST = 16


class MisfitError(Exception):
    """Where a schema asks for what our answer does not have."""


def check_fit(theirs: Schema, ours: Schema) -> None:
    """Whether every answer of schema `ours`, cut to the properties that `theirs` names, is valid under `theirs`.

    Raises:
        MisfitError: It is not, or nobody can tell: `theirs` uses a keyword that is not read here.
    """
    _fit(theirs, ours, theirs, ours, "the schema", 0)


def cut(value: Any, theirs: Schema) -> Any:
    """An answer without the properties that a fitting schema does not name."""
    return _cut(value, theirs, theirs)


def _cut(value: Any, theirs: Any, root: Schema) -> Any:
    theirs = _resolved(theirs, root, "the schema")
    if value is None:
        return None
    if (branch := _branch(theirs, root, "the schema")) is not None:
        return _cut(value, branch, root)
    if isinstance(value, dict) and theirs.get("properties"):
        return {name: _cut(value[name], below, root) for name, below in theirs["properties"].items()}
    if isinstance(value, list) and isinstance(theirs.get("items"), Mapping):
        return [_cut(one, theirs["items"], root) for one in value]
    return value


def _resolved(schema: Any, root: Schema, where: str) -> Schema:
    """A schema that is no reference, and has no keyword that is not read."""
    for _ in range(_DEEPEST):
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            raise MisfitError(f"{where} is no schema")
        if unread := set(schema) - _READ - _SAYS_NOTHING:
            raise MisfitError(f"{where}: keyword {min(unread)[:40]!r} is not supported")
        if "$ref" not in schema:
            return schema
        _check_alone(schema, "$ref", where)
        parts = str(schema["$ref"]).split("/")
        if len(parts) != 3 or parts[0] != "#" or parts[1] not in ("$defs", "definitions"):
            raise MisfitError(f"{where} refers to another document or place than its own $defs")
        known = root.get(parts[1])
        if not isinstance(known, Mapping) or parts[2] not in known:
            raise MisfitError(f"{where} refers to a definition that is not there")
        schema = known[parts[2]]
    raise MisfitError(f"{where} refers to itself")


def _check_alone(schema: Schema, keyword: str, where: str) -> None:
    if beside := set(schema) - _SAYS_NOTHING - {keyword}:
        raise MisfitError(f"{where}: {min(beside)[:40]!r} beside {keyword} is not supported")


def _branch(schema: Schema, root: Schema, where: str) -> Schema | None:
    """What a schema of "this or null" says beside null; None where there are no alternatives."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            _check_alone(schema, keyword, where)
            given = schema[keyword] if isinstance(schema[keyword], list) else []
            kinds = [_resolved(one, root, where) for one in given[:3]]
            others = [kind for kind in kinds if kind.get("type") != "null"]
            if len(kinds) != 2 or len(others) != 1:
                raise MisfitError(f"{where}: the only alternatives supported are one kind and null")
            return others[0]
    return None


def _fit(theirs: Any, ours: Any, root: Schema, our_root: Schema, where: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise MisfitError(f"{where} is nested too deeply")
    theirs, ours = _resolved(theirs, root, where), _resolved(ours, our_root, where)
    if "anyOf" in ours:
        for branch in ours["anyOf"]:
            _fit(theirs, branch, root, our_root, where, depth + 1)
        return
    if (branch := _branch(theirs, root, where)) is not None:
        if ours.get("type") != "null":
            _fit(branch, ours, root, our_root, where, depth + 1)
        return
    _fit_values(theirs, ours, where)
    if ours.get("type") == "object":
        _fit_object(theirs, ours, root, our_root, where, depth)
    if ours.get("type") == "array":
        _fit_array(theirs, ours, root, our_root, where, depth)


def _fit_values(theirs: Schema, ours: Schema, where: str) -> None:
    """Type, listed values and bounds."""
    kinds, kind = theirs.get("type"), ours.get("type")
    allowed = kinds if isinstance(kinds, list) else [kinds]
    if kinds is not None and kind not in allowed and not (kind == "integer" and "number" in allowed):
        raise MisfitError(f"{where}: ours is of type {kind}")
    listed = [theirs["const"]] if "const" in theirs else theirs.get("enum")
    if listed is not None:
        given = [ours["const"]] if "const" in ours else ours.get("enum")
        if not isinstance(listed, list) or given is None or any(one not in listed for one in given):
            raise MisfitError(f"{where}: ours takes other values than those listed")
    for bound, is_looser in (
        ("minimum", lambda a, b: a <= b),
        ("maximum", lambda a, b: a >= b),
        ("minItems", lambda a, b: a <= b),
        ("maxItems", lambda a, b: a >= b),
    ):
        if bound in theirs:
            wanted, kept = theirs[bound], ours.get(bound, 0 if bound == "minItems" else None)
            if not isinstance(wanted, int | float) or kept is None or not is_looser(wanted, kept):
                raise MisfitError(f"{where}: ours does not keep that {bound}")


def _fit_object(theirs: Schema, ours: Schema, root: Schema, our_root: Schema, where: str, depth: int) -> None:
    asked, had = theirs.get("properties") or {}, ours.get("properties") or {}
    needed, others = theirs.get("required") or [], theirs.get("additionalProperties", True)
    is_named = isinstance(needed, list) and all(isinstance(name, str) for name in needed)
    if not isinstance(asked, Mapping) or not is_named:
        raise MisfitError(f"{where} is no schema of an object")
    for name in [*asked, *(one for one in needed if one not in asked)]:
        if name not in had:
            raise MisfitError(f"{where}: ours has no {str(name)[:40]!r}; it has {', '.join(had) or 'no fixed names'}")
    if any(name not in asked for name in needed) and asked:
        raise MisfitError(f"{where}: what is required must stand in its properties")
    for name, below in asked.items():
        _fit(below, had[name], root, our_root, f"{where}.{name}"[:120], depth + 1)
    if not asked and others is not True:
        mapped = ours.get("additionalProperties")
        if others is False or not isinstance(mapped, Mapping):
            raise MisfitError(f"{where}: ours has more properties")
        _fit(others, mapped, root, our_root, f"{where}.*", depth + 1)
    elif asked and not isinstance(others, bool):
        raise MisfitError(f"{where}: additionalProperties beside properties may only be true or false")


def _fit_array(theirs: Schema, ours: Schema, root: Schema, our_root: Schema, where: str, depth: int) -> None:
    had = ours.get("prefixItems")
    if "prefixItems" in theirs:
        asked = theirs["prefixItems"]
        if had is None or not isinstance(asked, list) or len(asked) > len(had):
            raise MisfitError(f"{where}: ours is a list of another form")
        for below, mine in zip(asked, had, strict=False):
            _fit(below, mine, root, our_root, f"{where}[]", depth + 1)
        if len(asked) == len(had):
            return  # `items` is of what lies behind them, and nothing does
        had = had[len(asked) :]
    if "items" in theirs:
        for mine in had if had is not None else [ours["items"]]:
            _fit(theirs["items"], mine, root, our_root, f"{where}[]", depth + 1)
