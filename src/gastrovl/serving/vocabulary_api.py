"""What a client needs to ask well: the terms there are, how typed questions are worded, what an image file holds."""

from __future__ import annotations

from functools import partial

import anyio.to_thread
from fastapi import APIRouter, Request

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.inference.asking import ASKED
from gastrovl.inference.session import TASK_OF, Kind, pixel_digest
from gastrovl.serving.intake import Intake, parse
from gastrovl.serving.openapi import request_body
from gastrovl.serving.pictures import from_base64
from gastrovl.serving.schemas import ImageFacts, ImageRequest, TermEntry, TermList


def vocabulary_routes(intake: Intake) -> APIRouter:
    """`/v1/terms` and `/v1/image`, which ask no model."""
    routes = APIRouter(prefix="/v1", tags=["vocabulary"])

    @routes.get("/terms")
    async def terms() -> TermList:
        """The terms that labels are given in, and that can be located by name."""
        found = [
            TermEntry(id=term.id, name=term.name, level=term.level, parent=term.parent, synonyms=term.synonyms)
            for term in Taxonomy.load().terms
        ]
        return TermList(terms=found, wordings={kind.value: ASKED[TASK_OF[kind]] for kind in Kind if kind in TASK_OF})

    @routes.post("/image", response_model=ImageFacts, openapi_extra=request_body(ImageRequest, is_form=False))
    async def image(request: Request) -> ImageFacts:
        """Whether the server can read an image, and what it then sees."""
        asked = parse(ImageRequest, await request.body())
        found = await intake.image(partial(from_base64, asked.image, "image"), "image")
        digest = await anyio.to_thread.run_sync(pixel_digest, found)
        return ImageFacts(width_px=found.width, height_px=found.height, sha256=digest)

    return routes
