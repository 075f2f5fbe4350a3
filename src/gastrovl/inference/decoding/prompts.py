"""A question with its images to the tokens of its prompt, for a model of ours or another's."""

from __future__ import annotations

from gastrovl.core.boxtext import BOX_PATTERN
from gastrovl.core.errors import ModelInputError
from gastrovl.inference.question import Question
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.published.processor import ForeignProcessor


def prompt_ids(processor: GastroVLProcessor, question: Question, *, is_gated: bool = False) -> list[int]:
    """Token ids of a question, image tokens included.

    Args:
        is_gated: The language model looks at the image from its layers, and not among the words.

    Raises:
        ModelInputError: Several images are shown, and the model cannot look at them in one dialogue, or a user's box
            does not say in which of them it lies.
        BoxTextError: A box in a question is reversed or leaves the image.
    """
    if not question.further:
        return processor.encode_prompt(question.turns, question.original_wh)
    why = None
    if is_gated:
        why = "its layers look at one image (gated cross-attention)"
    elif isinstance(processor, ForeignProcessor):
        why = "prompts of another's model are written for one image here"
    elif not processor.coding.is_plain:
        why = "it writes boxes in a way that is of one image"
    if why:
        raise ModelInputError(
            f"{1 + len(question.further)} images in one dialogue: this model cannot, since {why}; ask about one image"
        )
    if any(BOX_PATTERN.search(text) for role, text in question.turns if role == "user"):
        raise ModelInputError(
            "a box in a dialogue about several images does not say in which of them it lies; ask about one image"
        )
    return processor.encode_prompt(
        question.turns, question.original_wh, further=[place for place, _ in question.further]
    )
