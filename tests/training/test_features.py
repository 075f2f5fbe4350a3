"""A frozen tower runs once per image, and nothing changes by it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from gastrovl.core.types import Task
from gastrovl.model.checkpoint import build_model
from gastrovl.training.config import StageConfig
from gastrovl.training.dataset import Collator, RowDataset, load_conversations
from gastrovl.training.featurecache import FeatureCache
from gastrovl.training.features import FeatureFiller
from gastrovl.training.images import ImageStore

STAGE = StageConfig(name="s", tasks=tuple(Task)[:4], trains=("projector",), learning_rate=1, steps=1)


@pytest.mark.parametrize(("connector", "tower"), [("mlp", "siglip"), ("pool", "resnet")])
def test_kept_features_give_the_loss_and_gradients_of_the_pixels(tiny_model, tiny_data, tmp_path, connector, tower):
    model, processor = build_model(tiny_model(connector, tower), seed=1)
    file = tiny_data(images=2)
    store = ImageStore(file.parent, processor.image_size_px, processor)
    conversations = load_conversations(file)
    model.eval()  # as the trainer keeps a frozen tower: running statistics are used, and do not move
    losses, gradients = [], []
    for is_kept in (False, True):
        rows = RowDataset(
            conversations, store, processor, STAGE, seed=1, max_length=512, augment=None, is_training=False
        )
        if is_kept:
            cache = FeatureCache(tmp_path / "cache", 10**9)
            filler = FeatureFiller(model, processor, cache, precision=nullcontext(), dtype=torch.float32)
            rows.features = filler.fill(rows, "tower")
        batch = Collator(processor, None)([rows[0], rows[1]])
        assert ("tower_features" in batch) == is_kept
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(next(model.model.multi_modal_projector.linear_1.parameters()).grad.clone())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-8)
