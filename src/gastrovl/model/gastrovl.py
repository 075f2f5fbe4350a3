"""The model: vision tokens stand where the image tokens are, the language model answers, only answers carry loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast, ModelOutput
from transformers.models.llava.modeling_llava import (
    LlavaModel,
    LlavaMultiModalProjector,
    LlavaPreTrainedModel,
)

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model import cross_attention
from gastrovl.model.attention_pooling import AttentionProjector
from gastrovl.model.config import PLAIN_CONNECTORS, ConnectorConfig, GastroVLConfig, PartConfig, part_hf_config
from gastrovl.model.grounding import GroundingHead, GroundingTargets
from gastrovl.model.projector import PooledProjector, QueryProjector, pool_regions
from gastrovl.model.second_tower import SecondTower, joined
from gastrovl.model.shared_prefix import answering_states
from gastrovl.model.vision import TowerShape, load_tower, tower_shape, tower_tokens

IGNORED = -100  # label of positions without loss, as everywhere in transformers
_BIASED_HEADS = ("phi",)  # language models whose output layer has a bias


class GastroVLModel(LlavaModel):
    """LLaVA's trunk with any tower and any connector."""

    def __init__(self, config: LlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.shape = tower_shape(config.vision_config, config.vision_config.image_size)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.second_tower = _second_tower(config)
        if self.second_tower:
            self.vision_tower_2 = AutoModel.from_config(self.second_tower.hf_config())
            self.shape = joined(self.shape, self.second_tower.shape())
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
        if self.second_tower and self.second_tower.shape().is_convolutional:
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
        self.post_init()

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
        num_items_in_batch: Tensor | int | None = None,
        caption_ids: Tensor | None = None,
        caption_mask: Tensor | None = None,
        contrastive_weight: float = 0.0,
        grounding: GroundingTargets | None = None,
        grounding_weight: float = 0.0,
        answer_weight: float = 1.0,
        use_cache: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        image_keys: Tensor | None = None,
        **others: Any,
    ) -> ModelOutput:
        """Logits of every position, or, when `labels` are given, the loss and the logits of answer positions only.

        Args:
            input_ids: (rows, length), the image token repeated once per vision token.
            pixel_values: (images, 3, side, side), in the order of their tokens.
            attention_mask: (rows, length), without labels.
            segments: (rows, length), with labels: which tokens are the image's, a dialogue's (see `shared_prefix`).
            tower_features: What a frozen tower said of the images before, in the place of `pixel_values`.
            region_boxes: (images, regions, 4) as fractions, NaN where an image has fewer: the boxes in the questions.
            labels: (rows, length), the token itself where it is part of an answer and IGNORED elsewhere.
            label_weights: (rows, length), weight of each label; 1 when left out.
            num_items_in_batch: Divisor of the summed loss (the weights' sum over all accumulated batches).
            caption_ids, caption_mask: (rows, caption length), texts to contrast with the rows' images.
            contrastive_weight: Weight of that InfoNCE term.
            grounding, grounding_weight: Targets and weight of the grounding head's loss.
            answer_weight: Weight of the answers' cross-entropy; at 0 the language model does not run at all.
            image_keys: What `generate` hands on from step to step for gated cross-attention, instead of `pixel_values`.
            others: Without labels, what plain LLaVA takes; the cache has another name in each version of transformers.

        Returns:
            With labels: `loss` and, unless `answer_weight` is 0, `logits` of shape (answer positions, vocabulary).

        Raises:
            ModelInputError: `labels` mark no answer at all (a silent NaN otherwise).
        """
        del return_dict, cache_position  # `generate` may pass them; the language model works both out itself
        if labels is None:
            images = None
            if pixel_values is not None:
                images = self.model.project(self.model.tower_features(pixel_values))
                inputs_embeds = self._embedded(input_ids, images, region_boxes)
                input_ids = None
            if self.model.gated_blocks:
                others |= cross_attention.gating(self.model.gated_blocks, images, image_keys)
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
        loss, logits = images.sum() * 0.0, None
        if answer_weight:
            embedded = self._embedded(input_ids, images, region_boxes)
            is_answer = labels[:, 1:] != IGNORED
            is_read = nn.functional.pad(is_answer, (0, 1))  # each token is said by the position before it
            told = cross_attention.gating(self.model.gated_blocks, images) if self.model.gated_blocks else {}
            states = answering_states(self.model.language_model, embedded, position_ids, segments, is_read, **told)
            logits = self.lm_head(states).float()
            weights = None if label_weights is None else label_weights[:, 1:][is_answer]
            loss = answer_weight * answer_loss(logits, labels[:, 1:][is_answer], weights, num_items_in_batch)
        if contrastive_weight and caption_ids is not None and caption_mask is not None:
            texts = self.model.language_model(input_ids=caption_ids, attention_mask=caption_mask, use_cache=False)
            text = masked_mean(texts.last_hidden_state, caption_mask)
            loss = loss + contrastive_weight * info_nce(images.mean(dim=1), text)
        if grounding_weight and grounding is not None and self.grounding is not None:
            grounding = grounding.to(images.device)
            words = masked_mean(self.get_input_embeddings()(grounding.term_ids), grounding.term_mask)
            loss = loss + grounding_weight * self.grounding(images, words, grounding)
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; with gated cross-attention the image's keys are worked out once for all steps."""
        if self.model.gated_blocks and (pixel_values := kwargs.pop("pixel_values", None)) is not None:
            images = self.model.project(self.model.tower_features(pixel_values))
            kwargs["image_keys"] = cross_attention.image_keys(self.model.gated_blocks, images)
        return super().generate(inputs, *args, **kwargs)

    def _embedded(self, input_ids: Tensor | None, images: Tensor, region_boxes: Tensor | None) -> Tensor:
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


def answer_loss(logits: Tensor, targets: Tensor, weights: Tensor | None, num_items: Tensor | int | None) -> Tensor:
    """Cross-entropy of answer tokens: weighted sum over `num_items`, or over the weights' own sum when None.

    Args:
        logits: (answers, vocabulary). targets, weights: (answers,).
    """
    if targets.numel() == 0:
        raise ModelInputError(
            "no position of the batch is marked as answer, so there is nothing to learn from; the chat template lacks "
            "generation marks, or every dialogue was cut before its answer (raise max_length)"
        )
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    if weights is None:
        weights = torch.ones_like(losses)
    divisor = weights.sum() if num_items is None else num_items
    return (losses * weights).sum() / divisor


def info_nce(images: Tensor, texts: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric contrastive loss between (pairs, width) image and text vectors (CLIP, Radford et al. 2021)."""
    images = nn.functional.normalize(images.float(), dim=-1)
    texts = nn.functional.normalize(texts.float(), dim=-1)
    similarity = images @ texts.T / temperature
    order = torch.arange(len(images), device=images.device)
    return (nn.functional.cross_entropy(similarity, order) + nn.functional.cross_entropy(similarity.T, order)) / 2


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions where `mask` is 1: (rows, length, width) to (rows, width)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def compose(
    vision: PartConfig,
    language: PartConfig,
    connector: ConnectorConfig,
    *,
    vocabulary: int,
    image_token_id: int,
    image_size_px: int,
    feature_layer: int,
    pad_token_id: int,
    eos_token_id: int,
    second: SecondTower | None = None,
    second_path: str | None = None,
) -> GastroVLForConditionalGeneration:
    """A model from its parts; parts with a `path` bring their weights, the others start at random (torch's seed).

    Raises:
        ConfigError: A part that plain LLaVA cannot hold with a `linear` or `mlp` connector, or an unknown tower.
    """
    vision_config = part_hf_config(vision)
    vision_config.image_size = image_size_px
    text_config = part_hf_config(language)
    text_config.vocab_size = max(vocabulary, text_config.vocab_size if language.path else 0)
    text_config.pad_token_id, text_config.eos_token_id = pad_token_id, eos_token_id
    # Published weights are often bfloat16; a part built in that would not meet the others, and training keeps float32.
    vision_config.dtype = text_config.dtype = torch.float32
    shape = tower_shape(vision_config, image_size_px)
    if shape.is_convolutional and feature_layer != -1:
        raise ConfigError(f"feature_layer {feature_layer}: a convolutional tower gives its last map only; set it to -1")
    if connector.kind in PLAIN_CONNECTORS:
        _check_plain(
            connector, vision_config.model_type, shape, text_config.model_type if language.path else "", second
        )
    config = _llava_config(vision_config, text_config, connector, shape, image_token_id, feature_layer, second)
    model = GastroVLForConditionalGeneration(config)
    if connector.kind == "linear":
        _make_identity(model.model.multi_modal_projector.linear_2)
    if vision.path:
        model.model.vision_tower.load_state_dict(load_tower(vision.path).state_dict())
    if second_path:
        model.model.vision_tower_2.load_state_dict(load_tower(second_path).state_dict())
    if language.path:
        _take_language_weights(model, language.path)
    return model


def _check_plain(
    connector: ConnectorConfig, tower: str, shape: TowerShape, pretrained_language: str, second: SecondTower | None
) -> None:
    """Refuse what plain LLaVA would read wrongly or not at all."""
    reason = ""
    if shape.is_convolutional:
        reason = f"the convolutional tower {tower!r}: its maps carry no positions"
    elif shape.prefix > 1:
        reason = f"the tower {tower!r}: its register tokens would be taken for patches"
    elif pretrained_language in _BIASED_HEADS:
        reason = f"the weights of a {pretrained_language!r} model: the bias of its output layer would be lost"
    elif second:
        reason = "a second tower"
    if reason:
        raise ConfigError(
            f"connector {connector.kind!r} makes a plain LLaVA model, which cannot hold {reason}; "
            "use connector `pool`, `query` or `attention`"
        )


def _llava_config(
    vision_config: Any,
    text_config: Any,
    connector: ConnectorConfig,
    shape: TowerShape,
    image_token_id: int,
    layer: int,
    second: SecondTower | None,
) -> LlavaConfig:
    fields: dict[str, Any] = {
        "vision_config": vision_config,
        "text_config": text_config,
        "image_token_index": image_token_id,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": "default" if shape.prefix == 1 else "full",
        "tie_word_embeddings": bool(text_config.tie_word_embeddings),
    }
    if connector.kind in PLAIN_CONNECTORS:
        activation = "linear" if connector.kind == "linear" else "gelu"
        return LlavaConfig(**fields, image_seq_length=shape.tokens, projector_hidden_act=activation)
    tokens = sum(side * side for side in connector.grids) if connector.kind == "pool" else connector.queries
    return GastroVLConfig(
        **fields,
        image_seq_length=1 if connector.gated_every else tokens,
        connector_kind=connector.kind,
        connector_grids=list(connector.grids),
        connector_queries=connector.queries,
        region_tokens=connector.regions,
        head_bias=text_config.model_type in _BIASED_HEADS,
        connector_depth=connector.depth,
        gated_every=connector.gated_every,
        second_tower=second.model_dump() if second else None,
    )


def _second_tower(config: LlavaConfig) -> SecondTower | None:
    told = config.second_tower if isinstance(config, GastroVLConfig) else None
    return SecondTower.model_validate(told) if told else None


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


def _make_identity(layer: Any) -> None:
    """LLaVA's projector has two layers; a single linear one is that with an identity behind it, which never trains."""
    with torch.no_grad():
        layer.weight.copy_(torch.eye(layer.in_features))
        layer.bias.zero_()


def _take_language_weights(model: GastroVLForConditionalGeneration, path: str) -> None:
    donor = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True)
    vocabulary = model.lm_head.out_features
    if donor.get_input_embeddings().num_embeddings < vocabulary:
        donor.resize_token_embeddings(vocabulary)
    model.model.language_model.load_state_dict(donor.get_decoder().state_dict())
    model.lm_head.load_state_dict(donor.get_output_embeddings().state_dict())
