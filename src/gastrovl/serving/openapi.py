"""Request models to the OpenAPI schema of a server whose handlers read bodies themselves."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gastrovl import __version__
from gastrovl.inference.question import NOTICE
from gastrovl.serving.schemas import (
    ChatRequest,
    ClassifyRequest,
    DescribeRequest,
    ErrorAnswer,
    ImageRequest,
    LocateRequest,
    NameRegionRequest,
)

BODIES: tuple[type[BaseModel], ...] = (
    ChatRequest,
    ClassifyRequest,
    LocateRequest,
    NameRegionRequest,
    DescribeRequest,
    ImageRequest,
)
_REFERENCE = "#/components/schemas/{model}"
_REFUSALS = {
    "400": "The request is wrong; `code` and `param` say what.",
    "401": "No key, or a wrong one.",
    "403": "Sent by a page of another site, or under another name, to a server that asks for no key.",
    "404": "No such model.",
    "408": "The request took too long to arrive.",
    "413": "The body or the image is too large.",
    "415": "Neither JSON nor a form.",
    "429": "The queue is full, or the rate exceeded; `Retry-After` says when to ask again.",
    "503": "The server is shutting down.",
    "504": "No answer in time.",
}


def request_body(kind: type[BaseModel], *, is_form: bool = True) -> dict[str, Any]:
    """What `openapi_extra` of a route says of its body: JSON, or also a form with the image as a file."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _REFERENCE.format(model=kind.__name__)}}}
    if is_form:
        fields = {name: {"type": "string"} for name in kind.model_fields if name != "image"}
        image = {"type": "string", "contentMediaType": "application/octet-stream"}
        needed = [name for name, field in kind.model_fields.items() if field.is_required()]
        form = {"type": "object", "required": needed, "properties": {"image": image} | fields}
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI schema of an app: FastAPI's, with our bodies, our errors, and no 422, which is never sent."""
    from fastapi.openapi.utils import get_openapi

    schema = get_openapi(title="GastroVL", version=__version__, description=NOTICE, routes=app.routes)
    _, bodies = models_json_schema(
        [(kind, "validation") for kind in BODIES] + [(ErrorAnswer, "serialization")], ref_template=_REFERENCE
    )
    components = schema.setdefault("components", {})
    schemas = {**components.get("schemas", {}), **bodies["$defs"]}
    components["schemas"] = {name: schemas[name] for name in sorted(schemas) if "ValidationError" not in name}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    error = {"application/json": {"schema": {"$ref": _REFERENCE.format(model="ErrorAnswer")}}}
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            if path.startswith("/v1/"):
                operation["security"] = [{"key": []}, {}]
                operation["responses"] |= {
                    status: {"description": what, "content": error} for status, what in _REFUSALS.items()
                }
    return schema
