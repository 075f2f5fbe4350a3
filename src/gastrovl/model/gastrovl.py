"""The model: vision tokens stand where the image tokens are, the language model answers, only answers carry loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.models.llava.modeling_llava import (
    LlavaModel,
    LlavaMultiModalProjector,
    LlavaPreTrainedModel,
)

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model.config import GastroVLConfig
from gastrovl.model.contrastive import ContrastiveHead
from gastrovl.model.fusion import cross_attention
from gastrovl.model.fusion.attention_pooling import AttentionProjector
from gastrovl.model.fusion.projector import PooledProjector, QueryProjector, pool_regions
from gastrovl.model.fusion.second_tower import SecondTower, joined
from gastrovl.model.grounding import GroundingHead, GroundingTargets
from gastrovl.model.locations import LocationTokens
from gastrovl.model.packed.answerloss import answer_loss, answer_scores
from gastrovl.model.packed.shared_prefix import Backend, answering_states
from gastrovl.model.packed.tokenlogprobs import token_logprobs
from gastrovl.model.perception import PerceptionHead
from gastrovl.model.perception_loss import PerceptionTargets, perception_loss
from gastrovl.model.vision import TowerShape, tower_shape, tower_tokens

IGNORED = -100  # label of positions without loss, as everywhere in transformers


@dataclass
class TrainingOutput(ModelOutput):
    """What the model says of labels.

    Attributes:
        loss: The weighted losses, a scalar.
        token_losses: Cross-entropy of each answer token, row by row, (answers,); only when asked for.
        guesses: The token that greedy decoding would have said in its place, (answers,); only when asked for.
        logprobs: Log-probability of each answer token with its gradient, (answers,); in the place of the rest.
    """

    loss: Tensor | None = None
    token_losses: Tensor | None = None
    guesses: Tensor | None = None
    logprobs: Tensor | None = None


class GastroVLModel(LlavaModel):
    """LLaVA's trunk with any tower and any connector."""

    def __init__(self, config: LlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.shape = tower_shape(config.vision_config, config.vision_config.image_size)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.second_tower = _second_tower(config)
        if self.second_tower:
            self.vision_tower_2 = AutoModel.from_config(self.second_tower.hf_config())
            self.shape = joined(self.shape, self.second_tower.shape)
        self.arrange_tower()
        self.multi_modal_projector = _connector(config, self.shape)
        self.language_model = AutoModel.from_config(config.text_config)
        every = config.gated_every if isinstance(config, GastroVLConfig) else 0
        self.gated_blocks = cross_attention.gated_blocks(config.text_config, every)
        if every:
            cross_attention.attach(self.language_model, every)
        self.post_init()

    def arrange_tower(self) -> None:
        """Lay out a convolutional tower's weights as CPUs and tensor cores want them; reading weights undoes it."""
        if self.shape.is_convolutional:
            self.vision_tower.to(memory_format=torch.channels_last)
        if self.second_tower and self.second_tower.shape.is_convolutional:
            self.vision_tower_2.to(memory_format=torch.channels_last)

    def get_image_features(
        self,
        pixel_values: Tensor,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        image_sizes: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Projected features of normalised images, (images, 3, side, side), as a list of (tokens, text width) each.

        The other arguments exist because plain LLaVA passes them; layer and selection come from the config.
        """
        del vision_feature_layer, vision_feature_select_strategy, image_sizes, return_dict
        features = self.tower_features(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=list(self.project(features)))

    def tower_features(self, pixel_values: Tensor) -> Tensor:
        """What the tower says of normalised images, (images, 3, side, side) to (images, grid cells, tower width).

        With a second tower the width is that of both, the first one's channels first.
        """
        found = tower_tokens(self.vision_tower, self.shape, pixel_values, self.config.vision_feature_layer)
        if self.second_tower is None:
            return found
        return torch.cat(
            [found, self.second_tower.features(self.vision_tower_2, pixel_values, self.shape.grid_side)], dim=-1
        )

    def project(self, features: Tensor) -> Tensor:
        """Tower features as image tokens, (images, tokens, text width)."""
        projected: Tensor = self.multi_modal_projector(features.to(next(self.multi_modal_projector.parameters()).dtype))
        return projected

    def gating(self, images: Tensor | None, keys: Tensor | None = None) -> dict[str, cross_attention.Gating]:
        """What the language model has to be told for gated cross-attention, nothing without its blocks."""
        return cross_attention.gating(self.gated_blocks, images, keys) if len(self.gated_blocks) else {}

    def with_regions(self, images: Tensor, boxes: Tensor | None) -> Tensor:
        """All image tokens in the order of their placeholders: of each image its own, then one for each region.

        Args:
            images: (images, tokens, width).
            boxes: (images, regions, 4) as fractions, NaN where an image has fewer; None when none is asked about.

        Returns:
            (image tokens and regions, width).

        Raises:
            ModelInputError: The connector knows no regions, or boxes and images differ in number.
        """
        if boxes is None:
            return images.flatten(0, 1)
        side = self.config.token_grid_side() if isinstance(self.config, GastroVLConfig) else None
        if side is None or not self.config.region_tokens:
            raise ModelInputError("region_boxes are given, but the model's connector was built without `regions`")
        if len(boxes) != len(images):
            raise ModelInputError(f"region_boxes of {len(boxes)} images are given for {len(images)}; expected one each")
        boxes = boxes.to(images.device)
        pooled = pool_regions(images, boxes.nan_to_num(), side)
        is_there = torch.cat([boxes.new_ones(images.shape[:2]), ~boxes.isnan().any(dim=-1)], dim=1).bool()
        return torch.cat([images, pooled], dim=1)[is_there]


class GastroVLForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with a choice of connectors, several dialogues a row, and a head that runs on answer positions only.

    With a `linear` or `mlp` connector, config and weights are plain LLaVA; with the others the config is a
    GastroVLConfig and needs this package.
    """

    def __init__(self, config: LlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = GastroVLModel(config)
        has_bias = isinstance(config, GastroVLConfig) and config.head_bias
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=has_bias)
        self.grounding: GroundingHead | None = None
        self.packed_attention = Backend.AUTO
        self.locations: LocationTokens | None = None  # set by whoever knows how boxes are written
        self.contrast: ContrastiveHead | None = None
        self.post_init()
        self.perception = _perception(config, self.model.shape)  # keeps its own initialisation

    def add_grounding_head(self) -> None:
        """Give the model the training-time head; `drop_grounding_head` takes it away before a checkpoint is written.

        Raises:
            ConfigError: The connector's tokens form no grid.
        """
        config = self.config
        side = config.token_grid_side() if isinstance(config, GastroVLConfig) else self.model.shape.grid_side
        if side is None:
            raise ConfigError(
                f"grounding_weight needs image tokens on a grid; connector `{config.connector_kind}` with "
                f"{config.connector_queries} tokens has none, use mlp or pool, or attention with a square number"
            )
        self.grounding = GroundingHead(config.text_config.hidden_size, side * side)

    def drop_grounding_head(self) -> None:
        """Remove the training-time head."""
        self.grounding = None

    def add_contrastive_head(self) -> None:
        """Give the model the scale and bias of a contrastive loss, dropped as the grounding head is."""
        self.contrast = ContrastiveHead()

    def drop_contrastive_head(self) -> None:
        """Remove them."""
        self.contrast = None

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        tower_features: Tensor | None = None,
        region_boxes: Tensor | None = None,
        segments: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        label_places: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        caption_ids: Tensor | None = None,
        caption_mask: Tensor | None = None,
        caption_rows: Tensor | None = None,
        contrastive_weight: float = 0.0,
        grounding: GroundingTargets | None = None,
        grounding_weight: float = 0.0,
        perceived: PerceptionTargets | None = None,
        perception_weight: float = 0.0,
        answer_weight: float = 1.0,
        with_guesses: bool = False,
        temperature: float | None = None,
        use_cache: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        image_keys: Tensor | None = None,
        **others: Any,
    ) -> ModelOutput:
        """Logits of every position, or, when `labels` are given, the loss.

        Args:
            input_ids: (rows, length), the image token repeated once per vision token.
            pixel_values: (images, 3, side, side), in the order of their tokens.
            attention_mask: (rows, length), without labels.
            segments: (rows, length), with labels: which tokens are the image's, a dialogue's (see `shared_prefix`).
            tower_features: What a frozen tower said of the images before, in the place of `pixel_values`.
            region_boxes: (images, regions, 4) as fractions, NaN where an image has fewer: the boxes in the questions.
            labels: (rows, length), the token itself where it is part of an answer and IGNORED elsewhere.
            label_weights: (rows, length), weight of each label; 1 when left out.
            label_places: (rows, length), where a label is a location token its bin, not rounded, and NaN elsewhere.
            num_items_in_batch: Divisor of the summed loss (the weights' sum over all accumulated batches).
            caption_ids, caption_mask: (rows, caption length), texts to contrast with the rows' images.
            caption_rows: Which rows those are; all when left out. May be empty, with one caption that is not read, so
                that a process without captions still takes part when processes exchange them.
            contrastive_weight: Weight of that term (see `contrastive`).
            grounding, grounding_weight: Targets and weight of the grounding head's loss.
            perceived, perception_weight: Targets and weight of the perception head's loss.
            answer_weight: Weight of the answers' cross-entropy; at 0 the language model does not run at all.
            with_guesses: Score each answer token besides; for validation.
            temperature: Give the answer tokens' log-probabilities at this temperature, and no loss.
            image_keys: What `generate` hands on from step to step for gated cross-attention, instead of `pixel_values`.
            others: Without labels, what plain LLaVA takes; the cache has another name in each version of transformers.

        Returns:
            With labels a TrainingOutput, else what plain LLaVA gives.

        Raises:
            ModelInputError: `labels` mark no answer at all (a silent NaN otherwise).
        """
        del return_dict, cache_position  # `generate` may pass them; the language model works both out itself
        if labels is None:
            images = None
            if pixel_values is not None:
                images = self.model.project(self.model.tower_features(pixel_values))
                inputs_embeds = self.embedded(input_ids, images, region_boxes)
                input_ids = None
            others |= self.model.gating(images, image_keys)
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                logits_to_keep=logits_to_keep,
                use_cache=use_cache,
                **others,
            )
        if others:
            raise ModelInputError(f"labels do not go with {', '.join(others)}; expected the arguments of training")
        if input_ids is None or segments is None or position_ids is None:
            raise ModelInputError("labels need input_ids, segments and position_ids beside them")
        if tower_features is None:
            if pixel_values is None:
                raise ModelInputError("labels need pixel_values or tower_features beside them")
            tower_features = self.model.tower_features(pixel_values)
        images = self.model.project(tower_features)
        loss, states, token_losses, guesses = images.sum() * 0.0, None, None, None
        if answer_weight:
            embedded = self.embedded(input_ids, images, region_boxes)
            is_answer = labels[:, 1:] != IGNORED
            is_read = nn.functional.pad(is_answer, (0, 1))  # each token is said by the position before it
            backend, told = self.packed_attention, self.model.gating(images)
            states = answering_states(
                self.model.language_model, embedded, position_ids, segments, is_read, backend, **told
            )
            targets = labels[:, 1:][is_answer]
            if temperature is not None:
                return TrainingOutput(logprobs=token_logprobs(states, self.lm_head, targets, temperature))
            weights = None if label_weights is None else label_weights[:, 1:][is_answer]
            soft = None
            if self.locations is not None and label_places is not None:
                soft = self.locations.soft_targets(label_places[:, 1:][is_answer])
            loss = answer_weight * answer_loss(states, self.lm_head, targets, weights, num_items_in_batch, soft=soft)
            if with_guesses:
                token_losses, guesses = answer_scores(states, self.lm_head, targets)
        if contrastive_weight and caption_ids is not None and caption_mask is not None:
            shown = images if caption_rows is None else images[caption_rows]
            loss = loss + contrastive_weight * self._contrast(shown.mean(dim=1), caption_ids, caption_mask)
        if grounding_weight and grounding is not None and self.grounding is not None:
            grounding = grounding.to(images.device)
            words = masked_mean(self.get_input_embeddings()(grounding.term_ids), grounding.term_mask)
            loss = loss + grounding_weight * self.grounding(images, words, grounding)
        if perception_weight and perceived is not None:
            if self.perception is None:
                raise ModelInputError("perception_weight needs a model with `perception`; this one has no such head")
            perceived = perceived.to(images.device)
            names = masked_mean(self.get_input_embeddings()(perceived.term_ids), perceived.term_mask)
            said = perception_loss(self.perception, tower_features, names, perceived, states)
            loss = loss + perception_weight * said
        return TrainingOutput(loss=loss, token_losses=token_losses, guesses=guesses)

    def perceive(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, region_boxes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One forward pass: what the perception head reads of images, and the state in which each answer would begin.

        Args:
            input_ids, attention_mask: (rows, length), padded on the left; others as in `forward`.

        Returns:
            Features as of `tower_features`, and states (rows, text width).

        Raises:
            ModelInputError: The model has no perception head.
        """
        if self.perception is None:
            raise ModelInputError("perceive needs a model with `perception`; this one has no such head")
        features = self.model.tower_features(pixel_values)
        images = self.model.project(features)
        embedded = self.embedded(input_ids, images, region_boxes)
        positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
        hidden = self.model.language_model(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=False,
            **self.model.gating(images),
        ).last_hidden_state
        return features, hidden[:, -1]

    def _contrast(self, images: Tensor, caption_ids: Tensor, caption_mask: Tensor) -> Tensor:
        """The contrastive loss of (pairs, width) image vectors and the first `pairs` captions."""
        if self.contrast is None:
            raise ModelInputError("contrastive_weight needs add_contrastive_head() first; the model has no head for it")
        hidden = self.model.language_model(input_ids=caption_ids, attention_mask=caption_mask, use_cache=False)
        texts = masked_mean(hidden.last_hidden_state, caption_mask)[: len(images)]
        return self.contrast(images, texts, ((caption_ids + 1) * caption_mask)[: len(images)])

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; with gated cross-attention the image's keys are worked out once for all steps."""
        if self.model.gated_blocks and (pixel_values := kwargs.pop("pixel_values", None)) is not None:
            images = self.model.project(self.model.tower_features(pixel_values))
            kwargs["image_keys"] = cross_attention.image_keys(self.model.gated_blocks, images)
        return super().generate(inputs, *args, **kwargs)

    def embedded(self, input_ids: Tensor | None, images: Tensor, region_boxes: Tensor | None) -> Tensor:
        """Words, image tokens and regions in their places, (rows, length, width)."""
        if input_ids is None:
            raise ModelInputError("images need input_ids that say where they stand")
        words = self.get_input_embeddings()(input_ids)
        if self.model.gated_blocks:  # the placeholder stays what it is, the image is looked at from the layers
            cross_attention.check_rows(input_ids == self.config.image_token_id, len(images))
            return words
        features = self.model.with_regions(images, region_boxes)
        return merge_image_features(words, features, input_ids == self.config.image_token_id)


def merge_image_features(tokens: Tensor, features: Tensor, is_image: Tensor) -> Tensor:
    """Put projected image features where the image placeholders stand.

    Args:
        tokens: Token embeddings, (rows, length, width).
        features: What stands there, in the order of the places, (image tokens, width).
        is_image: True at placeholders, bool, (rows, length).

    Returns:
        New embeddings, (rows, length, width); `tokens` is not changed.

    Raises:
        ModelInputError: The number of placeholders differs from that of image tokens.
    """
    if int(is_image.sum()) != len(features):
        raise ModelInputError(
            f"{int(is_image.sum())} image placeholders in the text, {len(features)} image tokens from the connector; "
            "text and images of this batch were prepared for another model"
        )
    return tokens.masked_scatter(is_image.unsqueeze(-1), features.to(tokens.dtype))


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions where `mask` is 1: (rows, length, width) to (rows, width)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _second_tower(config: LlavaConfig) -> SecondTower | None:
    told = config.second_tower if isinstance(config, GastroVLConfig) else None
    return SecondTower.model_validate(told) if told else None


def _perception(config: LlavaConfig, shape: TowerShape) -> PerceptionHead | None:
    told = config.perception if isinstance(config, GastroVLConfig) else None
    if not told:
        return None
    return PerceptionHead(shape.width, config.text_config.hidden_size, shape.grid_side, **told)


def _connector(config: LlavaConfig, shape: TowerShape) -> nn.Module:
    text_width = config.text_config.hidden_size
    if not isinstance(config, GastroVLConfig):
        return LlavaMultiModalProjector(config)
    if config.connector_kind == "query":
        return QueryProjector(
            shape.width, text_width, shape.grid_side, config.connector_queries, config.connector_depth
        )
    if config.connector_kind == "attention":
        return AttentionProjector(shape.width, text_width, shape.grid_side, config.connector_queries)
    return PooledProjector(shape.width, text_width, shape.grid_side, tuple(config.connector_grids or ()))
