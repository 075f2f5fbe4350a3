"""A question about where something is, in a view of its image, to a prompt and the boxes that are true there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gastrovl.core.boxcoding import SizeWH
from gastrovl.core.types import Box, Conversation
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.rows.augment import View


@dataclass(frozen=True)
class Asked:
    """One question that the model is to answer itself.

    Attributes:
        prompt: Token ids, ready for an answer.
        prefix: How many of them stand up to the image's last token.
        regions: The boxes in the question, in their order.
        true: Where the thing is, in the view; empty where it is absent.
        size_wh: Of the original image, in pixels.
    """

    prompt: tuple[int, ...]
    prefix: int
    regions: tuple[Box, ...]
    true: tuple[Box, ...]
    size_wh: SizeWH


def ask(
    processor: GastroVLProcessor, conversation: Conversation, turns: Sequence[tuple[str, str]], view: View
) -> Asked:
    """The question of a conversation in the words drawn for it; earlier turns of a dialogue stay before it.

    Args:
        turns: (role, text) as they stand in the view, the answer last.
    """
    size_wh, questions = conversation.image.size_wh, turns[:-1]
    prompt = processor.encode_prompt(questions, size_wh)
    moved = (view.move(box) for box in conversation.target.boxes)
    return Asked(
        tuple(prompt),
        prompt.index(processor.image_token_id) + processor.image_tokens,
        processor.regions(questions),
        tuple(box for box in moved if box is not None),
        size_wh,
    )
