"""The model: vision tokens stand where the image tokens are, the language model answers, only answers carry loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.models.llava.modeling_llava import (
    LlavaModel,
    LlavaMultiModalProjector,
    LlavaPreTrainedModel,
)

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model.answerloss import answer_loss, answer_scores
from gastrovl.model.config import PLAIN_CONNECTORS, ConnectorConfig, GastroVLConfig, PartConfig, part_hf_config
from gastrovl.model.contrastive import ContrastiveHead
from gastrovl.model.grounding import GroundingHead, GroundingTargets
from gastrovl.model.projector import PooledProjector, QueryProjector, pool_regions
from gastrovl.model.shared_prefix import Backend, answering_states
from gastrovl.model.vision import TowerShape, load_tower, tower_shape, tower_tokens

IGNORED = -100  # label of positions without loss, as everywhere in transformers
_BIASED_HEADS = ("phi",)  # language models whose output layer has a bias


@dataclass
class TrainingOutput(ModelOutput):
    """What the model says of labels.

    Attributes:
        loss: The weighted losses, a scalar.
        token_losses: Cross-entropy of each answer token, row by row, (answers,); only when asked for.
        guesses: The token that greedy decoding would have said in its place, (answers,); only when asked for.
    """

    loss: Tensor | None = None
    token_losses: Tensor | None = None
    guesses: Tensor | None = None


class GastroVLModel(LlavaModel):
    """LLaVA's trunk with any tower and any connector."""

    def __init__(self, config: LlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.shape = tower_shape(config.vision_config, config.vision_config.image_size)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.arrange_tower()
        self.multi_modal_projector = _connector(config, self.shape)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def arrange_tower(self) -> None:
        """Lay out a convolutional tower's weights as CPUs and tensor cores want them; reading weights undoes it."""
        if self.shape.is_convolutional:
            self.vision_tower.to(memory_format=torch.channels_last)

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
        """What the tower says of normalised images, (images, 3, side, side) to (images, grid cells, tower width)."""
        return tower_tokens(self.vision_tower, self.shape, pixel_values, self.config.vision_feature_layer)

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
        if not (isinstance(self.config, GastroVLConfig) and self.config.region_tokens and self.config.connector_grids):
            raise ModelInputError("region_boxes are given, but the model's connector was built without `regions`")
        if len(boxes) != len(images):
            raise ModelInputError(f"region_boxes of {len(boxes)} images are given for {len(images)}; expected one each")
        boxes = boxes.to(images.device)
        pooled = pool_regions(images, boxes.nan_to_num(), self.config.connector_grids[0])
        is_there = torch.cat([boxes.new_ones(images.shape[:2]), ~boxes.isnan().any(dim=-1)], dim=1).bool()
        return torch.cat([images, pooled], dim=1)[is_there]


class GastroVLForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with a choice of connectors, several dialogues a row, and a head that runs on answer positions only.

    With a `linear` or `mlp` connector, config and weights are plain LLaVA; with `pool` or `query` the config is a
    GastroVLConfig and needs this package.
    """

    def __init__(self, config: LlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = GastroVLModel(config)
        has_bias = isinstance(config, GastroVLConfig) and config.head_bias
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=has_bias)
        self.grounding: GroundingHead | None = None
        self.packed_attention = Backend.AUTO
        self.contrast: ContrastiveHead | None = None
        self.post_init()

    def add_grounding_head(self) -> None:
        """Give the model the training-time head; `drop_grounding_head` takes it away before a checkpoint is written.

        Raises:
            ConfigError: The connector's tokens form no grid.
        """
        config, side = self.config, self.model.shape.grid_side
        if isinstance(config, GastroVLConfig) and config.connector_kind == "query":
            raise ConfigError(
                "grounding_weight needs image tokens on a grid; connector `query` has none, use mlp or pool"
            )
        if isinstance(config, GastroVLConfig) and config.connector_grids:
            side = config.connector_grids[0]
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
        num_items_in_batch: Tensor | int | None = None,
        caption_ids: Tensor | None = None,
        caption_mask: Tensor | None = None,
        caption_rows: Tensor | None = None,
        contrastive_weight: float = 0.0,
        grounding: GroundingTargets | None = None,
        grounding_weight: float = 0.0,
        answer_weight: float = 1.0,
        with_guesses: bool = False,
        use_cache: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
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
            num_items_in_batch: Divisor of the summed loss (the weights' sum over all accumulated batches).
            caption_ids, caption_mask: (rows, caption length), texts to contrast with the rows' images.
            caption_rows: Which rows those are; all when left out. May be empty, with one caption that is not read, so
                that a process without captions still takes part when processes exchange them.
            contrastive_weight: Weight of that term (see `contrastive`).
            grounding, grounding_weight: Targets and weight of the grounding head's loss.
            answer_weight: Weight of the answers' cross-entropy; at 0 the language model does not run at all.
            with_guesses: Score each answer token besides; for validation.
            others: Without labels, what plain LLaVA takes; the cache has another name in each version of transformers.

        Returns:
            With labels a TrainingOutput, else what plain LLaVA gives.

        Raises:
            ModelInputError: `labels` mark no answer at all (a silent NaN otherwise).
        """
        del return_dict, cache_position  # `generate` may pass them; the language model works both out itself
        if labels is None:
            if pixel_values is not None:
                images = self.model.project(self.model.tower_features(pixel_values))
                inputs_embeds = self._embedded(input_ids, images, region_boxes)
                input_ids = None
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
        loss, token_losses, guesses = images.sum() * 0.0, None, None
        if answer_weight:
            embedded = self._embedded(input_ids, images, region_boxes)
            is_answer = labels[:, 1:] != IGNORED
            is_read = nn.functional.pad(is_answer, (0, 1))  # each token is said by the position before it
            states = answering_states(
                self.model.language_model, embedded, position_ids, segments, is_read, self.packed_attention
            )
            targets = labels[:, 1:][is_answer]
            weights = None if label_weights is None else label_weights[:, 1:][is_answer]
            loss = answer_weight * answer_loss(states, self.lm_head, targets, weights, num_items_in_batch)
            if with_guesses:
                token_losses, guesses = answer_scores(states, self.lm_head, targets)
        if contrastive_weight and caption_ids is not None and caption_mask is not None:
            shown = images if caption_rows is None else images[caption_rows]
            loss = loss + contrastive_weight * self._contrast(shown.mean(dim=1), caption_ids, caption_mask)
        if grounding_weight and grounding is not None and self.grounding is not None:
            grounding = grounding.to(images.device)
            words = masked_mean(self.get_input_embeddings()(grounding.term_ids), grounding.term_mask)
            loss = loss + grounding_weight * self.grounding(images, words, grounding)
        return TrainingOutput(loss=loss, token_losses=token_losses, guesses=guesses)

    def _contrast(self, images: Tensor, caption_ids: Tensor, caption_mask: Tensor) -> Tensor:
        """The contrastive loss of (pairs, width) image vectors and the first `pairs` captions."""
        if self.contrast is None:
            raise ModelInputError("contrastive_weight needs add_contrastive_head() first; the model has no head for it")
        hidden = self.model.language_model(input_ids=caption_ids, attention_mask=caption_mask, use_cache=False)
        texts = masked_mean(hidden.last_hidden_state, caption_mask)[: len(images)]
        return self.contrast(images, texts, ((caption_ids + 1) * caption_mask)[: len(images)])

    def _embedded(self, input_ids: Tensor | None, images: Tensor, region_boxes: Tensor | None) -> Tensor:
        """Words, image tokens and regions in their places, (rows, length, width)."""
        if input_ids is None:
            raise ModelInputError("images need input_ids that say where they stand")
        words = self.get_input_embeddings()(input_ids)
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
    reads_weights: bool = True,
) -> GastroVLForConditionalGeneration:
    """A model from its parts; parts with a `path` bring their weights, the others start at random (torch's seed).

    Without `reads_weights` nothing but config files is read; call it under `torch.device("meta")` for the shape alone.

    Raises:
        ConfigError: A part that plain LLaVA cannot hold with a `linear` or `mlp` connector, or an unknown tower.
    """
    vision_config = part_hf_config(vision)
    vision_config.image_size = image_size_px
    text_config = part_hf_config(language)
    is_stated = language.path is not None or "vocab_size" in (language.config or {})
    text_config.vocab_size = max(vocabulary, text_config.vocab_size if is_stated else 0)
    text_config.pad_token_id, text_config.eos_token_id = pad_token_id, eos_token_id
    # Published weights are often bfloat16; a part built in that would not meet the others, and training keeps float32.
    vision_config.dtype = text_config.dtype = torch.float32
    shape = tower_shape(vision_config, image_size_px)
    if shape.is_convolutional and feature_layer != -1:
        raise ConfigError(f"feature_layer {feature_layer}: a convolutional tower gives its last map only; set it to -1")
    if connector.kind in PLAIN_CONNECTORS:
        _check_plain(connector, vision_config.model_type, shape, text_config.model_type if language.path else "")
    config = _llava_config(vision_config, text_config, connector, shape, image_token_id, feature_layer)
    model = GastroVLForConditionalGeneration(config)
    if not reads_weights:
        return model
    if connector.kind == "linear":
        _make_identity(model.model.multi_modal_projector.linear_2)
    if vision.path:
        model.model.vision_tower.load_state_dict(load_tower(vision.path).state_dict())
    if language.path:
        _take_language_weights(model, language.path)
    return model


def _check_plain(connector: ConnectorConfig, tower: str, shape: TowerShape, pretrained_language: str) -> None:
    """Refuse what plain LLaVA would read wrongly or not at all."""
    reason = ""
    if shape.is_convolutional:
        reason = f"the convolutional tower {tower!r}: its maps carry no positions"
    elif shape.prefix > 1:
        reason = f"the tower {tower!r}: its register tokens would be taken for patches"
    elif pretrained_language in _BIASED_HEADS:
        reason = f"the weights of a {pretrained_language!r} model: the bias of its output layer would be lost"
    if reason:
        raise ConfigError(
            f"connector {connector.kind!r} makes a plain LLaVA model, which cannot hold {reason}; "
            "use connector `pool` or `query`"
        )


def _llava_config(
    vision_config: Any, text_config: Any, connector: ConnectorConfig, shape: TowerShape, image_token_id: int, layer: int
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
    tokens = connector.queries if connector.kind == "query" else sum(side * side for side in connector.grids)
    return GastroVLConfig(
        **fields,
        image_seq_length=tokens,
        connector_kind=connector.kind,
        connector_grids=list(connector.grids),
        connector_queries=connector.queries,
        region_tokens=connector.regions,
        head_bias=text_config.model_type in _BIASED_HEADS,
    )


def _connector(config: LlavaConfig, shape: TowerShape) -> nn.Module:
    text_width = config.text_config.hidden_size
    if not isinstance(config, GastroVLConfig):
        return LlavaMultiModalProjector(config)
    if config.connector_kind == "query":
        return QueryProjector(shape.width, text_width, shape.grid_side, config.connector_queries)
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
