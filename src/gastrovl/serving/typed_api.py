"""The typed endpoints: an image and what is wanted of it to labels, boxes or words with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import GastroVLError
from gastrovl.core.geometry import from_pixels, to_pixels
from gastrovl.core.types import Box
from gastrovl.inference import asking
from gastrovl.inference.question import Question
from gastrovl.inference.typed import BoxAnswer, LabelAnswer, TextAnswer
from gastrovl.serving.beliefs import belief_given, scope_given
from gastrovl.serving.engine import Answered, Engine
from gastrovl.serving.forms import read_form
from gastrovl.serving.intake import Intake, parse
from gastrovl.serving.openapi import request_body
from gastrovl.serving.pictures import from_base64
from gastrovl.serving.refusals import RefusedError
from gastrovl.serving.schemas import (
    BoxesAnswer,
    ClassifyRequest,
    DescribeRequest,
    ImageAsked,
    ImageSize,
    Label,
    LabelsAnswer,
    LocateRequest,
    NameRegionRequest,
    PlacedBox,
    RegionAnswer,
    WordsAnswer,
)

A = TypeVar("A", bound=ImageAsked)
_UNREADABLE = "the reply holds no {what} that can be read"


def typed_routes(intake: Intake) -> APIRouter:
    """`/v1/classify`, `/v1/locate`, `/v1/name-region` and `/v1/describe`."""
    routes = APIRouter(prefix="/v1", tags=["typed answers"])

    @routes.post("/classify", response_model=LabelsAnswer, openapi_extra=request_body(ClassifyRequest))
    async def classify(request: Request) -> LabelsAnswer:
        """Labels that fit the image, with the probability of every label."""
        _, engine, image = await _read(intake, request, ClassifyRequest)
        answered = await _ask(intake, request, engine, asking.classify(image))
        return labels_answer(engine.name, image, asking.label_answer(answered.reply, Taxonomy.load()))

    @routes.post("/locate", response_model=BoxesAnswer, openapi_extra=request_body(LocateRequest))
    async def locate(request: Request) -> BoxesAnswer:
        """Where something is in the image: boxes, or that it is absent."""
        asked, engine, image = await _read(intake, request, LocateRequest)
        try:
            question = asking.locate(image, asked.what)
        except GastroVLError as error:
            raise RefusedError(400, "invalid_value", str(error), param="what") from None
        answered = await _ask(intake, request, engine, question)
        return boxes_answer(engine.name, image, asked.what, asking.box_answer(answered.reply, Taxonomy.load()))

    @routes.post("/name-region", response_model=RegionAnswer, openapi_extra=request_body(NameRegionRequest))
    async def name_region(request: Request) -> RegionAnswer:
        """What lies in a box of the image, with the probability of every label."""
        asked, engine, image = await _read(intake, request, NameRegionRequest)
        box = region(asked, image)
        answered = await _ask(intake, request, engine, asking.name_region(image, box))
        labels = labels_answer(engine.name, image, asking.label_answer(answered.reply, Taxonomy.load()))
        return RegionAnswer(**dict(labels), box=placed(box, image.size))

    @routes.post("/describe", response_model=WordsAnswer, openapi_extra=request_body(DescribeRequest))
    async def describe(request: Request) -> WordsAnswer:
        """What the image shows, in a sentence or two."""
        asked, engine, image = await _read(intake, request, DescribeRequest)
        answered = await _ask(intake, request, engine, asking.describe(image), asked.max_tokens)
        said = asking.text_answer(answered.reply)
        return WordsAnswer(
            **_said(engine.name, image, said),
            stop_reason=answered.reply.stop_reason,
        )

    return routes


def placed(box: Box, size_wh: tuple[int, int], expected_iou: float | None = None) -> PlacedBox:
    """A box as fractions and in pixels of an image of `size_wh`."""
    return PlacedBox(fractions=box.xyxy, pixels=to_pixels(box, size_wh), expected_iou=expected_iou)


def region(asked: NameRegionRequest, image: Image.Image) -> Box:
    """The box asked about.

    Raises:
        RefusedError: It is reversed, or leaves the image.
    """
    try:
        if asked.unit == "pixel":
            return from_pixels(asked.box, image.size)
        x0, y0, x1, y1 = asked.box
        return Box(x0=x0, y0=y0, x1=x1, y1=y1)
    except GastroVLError as error:
        raise RefusedError(400, "invalid_box", str(error)[:500], param="box") from None


def labels_answer(model: str, image: Image.Image, said: LabelAnswer) -> LabelsAnswer:
    """Labels for the wire."""
    taxonomy, chances = Taxonomy.load(), said.probabilities
    return LabelsAnswer(
        **_said(model, image, said),
        belief=belief_given(said.belief),
        unreadable=None if said.terms else _UNREADABLE.format(what="label of the taxonomy"),
        labels=[Label(id=term, name=taxonomy[term].name, probability=chances.get(term)) for term in said.terms],
        probabilities=dict(chances) or None,
    )


def boxes_answer(model: str, image: Image.Image, what: str, said: BoxAnswer) -> BoxesAnswer:
    """Boxes for the wire."""
    expected: Sequence[float | None] = said.expected_iou or [None] * len(said.boxes)
    is_read = bool(said.boxes) or said.text.strip().lower() == "absent"
    return BoxesAnswer(
        **_said(model, image, said),
        belief=belief_given(said.belief),
        unreadable=None if is_read else _UNREADABLE.format(what="box"),
        what=what,
        present=bool(said.boxes) if is_read else None,
        presence=said.presence,
        boxes=[placed(box, image.size, iou) for box, iou in zip(said.boxes, expected, strict=True)],
    )


def _said(model: str, image: Image.Image, said: LabelAnswer | BoxAnswer | TextAnswer) -> dict[str, Any]:
    """What every typed answer has."""
    return {
        "model": model,
        "text": said.text,
        "confidence": said.confidence,
        "calibrated": said.calibrated,
        "scope": scope_given(said.belief),
        "image": ImageSize(width_px=image.width, height_px=image.height),
    }


async def _ask(
    intake: Intake, request: Request, engine: Engine, question: Question, wanted: int | None = None
) -> Answered:
    _, limit = await intake.measure(engine, question, wanted)
    return await intake.ask(request, engine, question, limit)


async def _read(intake: Intake, request: Request, kind: type[A]) -> tuple[A, Engine, Image.Image]:
    """What is asked, of whom, about which image; from JSON, or from a form with the image as a file.

    Raises:
        RefusedError: It is neither, or wrong.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        fields, content = _form(await request.body(), request.headers["content-type"])
        asked = parse(kind, fields)
    elif media == "application/json":
        asked = parse(kind, await request.body())
        content = asked.image
    else:
        raise RefusedError(415, "unsupported_media_type", "expected application/json or multipart/form-data")
    engine = intake.engine(asked.model)
    read = partial(from_base64, content, "image") if isinstance(content, str) else partial(bytes, content)
    return asked, engine, await intake.image(read, "image")


def _form(body: bytes, content_type: str) -> tuple[dict[str, Any], bytes | str]:
    """The fields of a form, with a box given as x0,y0,x1,y1, and the file of the image (or its base64)."""
    found = read_form(body, content_type)
    if unknown := [name for name, value in found.items() if isinstance(value, bytes) and name != "image"]:
        raise RefusedError(400, "unknown_parameter", "only `image` may be a file", param=unknown[0][:200])
    content = found.get("image", "")
    fields: dict[str, Any] = found | ({"image": "a file"} if isinstance(content, bytes) else {})
    if isinstance(box := fields.get("box"), str):
        fields["box"] = box.strip("[]() ").split(",")
    return fields, content
