"""A Hugging Face model of another's making as one that trains on packed rows, with a loss on answers only.

Its class, weights and forward stay its own: a subclass of the same name adds what happens when `segments` are given,
so that `generate`, `save_pretrained` and everything else remain the family's, and a saved model is a plain one.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model.contrastive import ContrastiveHead
from gastrovl.model.gastrovl import IGNORED, TrainingOutput, masked_mean, merge_image_features
from gastrovl.model.packed.answerloss import answer_loss, answer_scores
from gastrovl.model.packed.rows import PADDING, SHARED
from gastrovl.model.packed.shared_prefix import Backend, answering_states
from gastrovl.model.published.families import FAMILIES, Family


@functools.cache
def answering_class(plain: type[Any]) -> type[Any]:
    """A subclass of a family's own class, of the same name, whose `forward(segments=...)` is what training needs."""
    forward = plain.forward

    @functools.wraps(forward)  # its signature too: `generate` reads there which inputs the model takes
    def answering(self: Any, *given: Any, segments: Tensor | None = None, **inputs: Any) -> Any:
        if segments is None:
            return forward(self, *given, **inputs)
        return answer_packed(self, segments=segments, **inputs)

    def init(self: Any, *given: Any, **named: Any) -> None:
        plain.__init__(self, *given, **named)
        self.packed_attention = Backend.AUTO
        self.contrast = None

    def add_contrastive_head(self: Any) -> None:
        self.contrast = ContrastiveHead()

    def drop_contrastive_head(self: Any) -> None:
        self.contrast = None

    def add_grounding_head(self: Any) -> None:
        raise ConfigError(
            f"grounding_weight: {type(self).__name__} has no grounding head; leave the weight out, or train a composed "
            "model (model.preset)"
        )

    def drop_grounding_head(self: Any) -> None:
        """There is none."""

    body = {
        "__module__": plain.__module__,  # transformers looks up there what attention the class can run
        "__init__": init,
        "forward": answering,
        "add_contrastive_head": add_contrastive_head,
        "drop_contrastive_head": drop_contrastive_head,
        "add_grounding_head": add_grounding_head,
        "drop_grounding_head": drop_grounding_head,
        "perception": None,  # no such head either
    }
    return type(plain.__name__, (plain,), body)


def family_of(model: Any) -> Family:
    """The family of a loaded model."""
    return FAMILIES[model.config.model_type]


def packs(model: Any) -> bool:
    """Whether the dialogues of an image can share a row: plain positions, and a look back without limit."""
    text = model.config.get_text_config()
    is_plain = not any(getattr(text, name, None) for name in ("sliding_window", "attn_logit_softcapping"))
    return family_of(model).packs and is_plain


def answer_packed(
    model: Any,
    *,
    input_ids: Tensor,
    segments: Tensor,
    position_ids: Tensor,
    labels: Tensor,
    pixel_values: Tensor,
    label_weights: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    caption_ids: Tensor | None = None,
    caption_mask: Tensor | None = None,
    caption_rows: Tensor | None = None,
    answer_weight: float = 1.0,
    contrastive_weight: float = 0.0,
    grounding_weight: float = 0.0,
    perception_weight: float = 0.0,
    with_guesses: bool = False,
) -> TrainingOutput:
    """The loss of packed rows, as `GastroVLForConditionalGeneration` gives it.

    Arguments are those of the composed model with labels: rows of one image and its dialogues each. The tower runs once
    an image. A family that packs reads the rows as they are; for the others each dialogue becomes a row of its own
    behind its image, which has the same loss.

    Raises:
        ModelInputError: `labels` mark no answer at all, there is no contrastive head for its weight, or images and
            placeholders differ in number.
        ConfigError: A grounding or a perception weight is given.
    """
    if grounding_weight:
        model.add_grounding_head()
    if perception_weight:
        raise ConfigError(
            f"perception_weight: {type(model).__name__} has no perception head; leave the weight out, or train a "
            "composed model (model.preset) with `perception`"
        )
    family, language = family_of(model), model.get_decoder()
    images = image_features(model, pixel_values, len(input_ids))
    loss, token_losses, guesses = images.sum() * 0.0, None, None
    if answer_weight:
        if packs(model):
            is_read = nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))  # each token is said by the one before it
            embedded = _embedded(model, input_ids, images)
            states = answering_states(language, embedded, position_ids, segments, is_read, model.packed_attention)
        else:
            rows, places = dialogue_places(segments)
            patches = math.isqrt(len(pixel_values) // len(input_ids)) if family.layout == "patches" else 0
            states = _alone(model, input_ids[rows, places], places, images[rows[:, 0]], labels[rows, places], patches)
        is_answer = labels[:, 1:] != IGNORED
        targets = labels[:, 1:][is_answer]
        weights = None if label_weights is None else label_weights[:, 1:][is_answer]
        loss = answer_weight * answer_loss(states, model.lm_head, targets, weights, num_items_in_batch)
        if with_guesses:
            token_losses, guesses = answer_scores(states, model.lm_head, targets)
    if contrastive_weight and caption_ids is not None and caption_mask is not None:
        if model.contrast is None:
            raise ModelInputError("contrastive_weight needs add_contrastive_head() first; the model has no head for it")
        shown = images if caption_rows is None else images[caption_rows]
        said = language(input_ids=caption_ids, attention_mask=caption_mask, use_cache=False).last_hidden_state
        texts, ids = masked_mean(said, caption_mask)[: len(shown)], ((caption_ids + 1) * caption_mask)[: len(shown)]
        loss = loss + contrastive_weight * model.contrast(shown.mean(dim=1), texts, ids)
    return TrainingOutput(loss=loss, token_losses=token_losses, guesses=guesses)


def image_features(model: Any, pixel_values: Tensor, images: int) -> Tensor:
    """What stands for each image in the text, (images, tokens, text width), from pixels in the family's layout."""
    beside: dict[str, Tensor] = {}
    if family_of(model).layout == "patches":
        side = math.isqrt(len(pixel_values) // images)
        beside["image_grid_thw"] = torch.tensor([[1, side, side]] * images, device=pixel_values.device)
    found = model.model.get_image_features(pixel_values, return_dict=True, **beside).pooler_output
    features = found if isinstance(found, Tensor) else torch.cat(tuple(found))
    return features.reshape(images, -1, features.shape[-1])


def dialogue_places(segments: Tensor) -> tuple[Tensor, Tensor]:
    """Where the tokens of each dialogue stand in packed rows, what it shares with the others before it.

    Args:
        segments: (rows, length), see `shared_prefix`.

    Returns:
        Row and place of each token, both (dialogues, longest), in the order of rows and dialogues; a place of -1 is
        padding behind a dialogue that is shorter.
    """
    found, rows = [], []
    for number, row in enumerate(segments.cpu()):
        prefix = (row == SHARED).nonzero().flatten()
        for dialogue in range(1, int(row.max()) + 1):
            found.append(torch.cat([prefix, (row == dialogue).nonzero().flatten()]))
            rows.append(number)
    places = nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=PADDING)
    return torch.tensor(rows)[:, None].expand_as(places).to(segments.device), places.to(segments.device)


def _alone(model: Any, ids: Tensor, places: Tensor, images: Tensor, labels: Tensor, patches: int) -> Tensor:
    """Hidden states before the answer tokens of dialogues in rows of their own, (positions, width).

    Args:
        ids, labels, places: (dialogues, length), what stands at padding does not matter.
        images: (dialogues, tokens, width). patches: Along a side of an image, where the family counts them.
    """
    is_there = places != PADDING
    is_image = (ids == model.config.image_token_id) & is_there
    ids = ids.masked_fill(~is_there, 0)
    beside = family_of(model).beside(is_image, patches)
    if "image_grid_thw" in beside:  # the family works its positions out from ids, which are embedded already
        beside = {"position_ids": model.model.get_rope_index(ids, attention_mask=is_there.long(), **beside)[0]}
    states = model.model(
        inputs_embeds=_embedded(model, ids, images, is_image),
        attention_mask=is_there.long(),
        use_cache=False,
        **beside,
    ).last_hidden_state
    is_answer = (labels[:, 1:] != IGNORED) & is_there[:, 1:]
    read: Tensor = states[:, :-1][is_answer]
    return read


def _embedded(model: Any, ids: Tensor, images: Tensor, is_image: Tensor | None = None) -> Tensor:
    """Words with the images in their places, (rows, length, width)."""
    if is_image is None:
        is_image = ids == model.config.image_token_id
    words = model.get_input_embeddings()(ids.masked_fill(is_image, 0))  # Gemma's image token may have no embedding
    if int(is_image.sum()) != images.shape[0] * images.shape[1]:
        raise ModelInputError(
            f"{int(is_image.sum())} image placeholders in the text, {images.shape[0]} images of {images.shape[1]} "
            "tokens; text and images of this batch were prepared for another model"
        )
    return merge_image_features(words, images.flatten(0, 1), is_image)
