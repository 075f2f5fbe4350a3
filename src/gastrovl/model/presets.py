"""Named models: two that train from random weights, and the shapes of ColonGPT, Qwen3 and Llama."""

from __future__ import annotations

from gastrovl.core.errors import ConfigError
from gastrovl.model.config import ConnectorConfig, LoraConfig, ModelConfig, PartConfig
from gastrovl.model.tokenizer import SHIPPED

# 30 M parameters at most, all from random weights; a convolutional tower because it learns from few images.
NANO = ModelConfig(
    vision=PartConfig(
        config={
            "model_type": "resnet",
            "embedding_size": 64,
            "hidden_sizes": [64, 128, 256],
            "depths": [2, 2, 2],
            "layer_type": "basic",
        }
    ),
    language=PartConfig(
        config={
            "model_type": "llama",
            "hidden_size": 192,
            "intermediate_size": 576,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        }
    ),
    connector=ConnectorConfig(kind="pool", grids=(8,), regions=True),
    feature_layer=-1,
    tokenizer=SHIPPED,
    chat_template="gastrovl",
    image_size_px=128,
)

# Between the two: a plain LLaVA model whose step takes a second on two cores, with a vocabulary of the usual size.
SMALL = ModelConfig(
    vision=PartConfig(
        config={
            "model_type": "siglip_vision_model",
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 3,
            "image_size": 224,
            "patch_size": 16,
        }
    ),
    language=PartConfig(
        config={
            "model_type": "llama",
            "vocab_size": 32000,
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        }
    ),
    connector=ConnectorConfig(kind="mlp"),
    lora=LoraConfig(rank=16, alpha=32, dropout=0.05),
    feature_layer=-1,
    tokenizer=SHIPPED,
    chat_template="gastrovl",
    image_size_px=224,
)

# The parts of the next presets, as published; a folder with their weights takes the place of each.
_SIGLIP_SO400M = PartConfig(
    config={
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 378,
        "patch_size": 14,
    }
)
_PHI15 = PartConfig(
    config={
        "model_type": "phi",
        "vocab_size": 51200,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 2048,
    }
)
_SIGLIP2_BASE = PartConfig(
    config={
        "model_type": "siglip_vision_model",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 256,
        "patch_size": 16,
    }
)
_QWEN3 = PartConfig(
    config={
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }
)
_CLIP_L = PartConfig(
    config={
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
)
_LLAMA32 = PartConfig(
    config={
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    }
)

# ColonGPT's shapes (Ji et al. 2024): SigLIP-so400m-384, 729 tokens pooled to 14x14 + 7x7 + 1 = 246, Phi-1.5 with LoRA.
PHI15_SIGLIP = ModelConfig(
    vision=_SIGLIP_SO400M,
    language=_PHI15,
    connector=ConnectorConfig(kind="pool", grids=(14, 7, 1)),
    lora=LoraConfig(rank=128, alpha=256, dropout=0.05),
    feature_layer=-2,
    tokenizer=SHIPPED,
    chat_template="vicuna",
    image_size_px=378,
)

QWEN3_SIGLIP2 = ModelConfig(
    vision=_SIGLIP2_BASE,
    language=_QWEN3,
    connector=ConnectorConfig(kind="mlp"),
    lora=LoraConfig(rank=64, alpha=128, dropout=0.05),
    feature_layer=-2,
    tokenizer=SHIPPED,
    chat_template="chatml",
    image_size_px=256,
)

LLAMA_CLIP = ModelConfig(
    vision=_CLIP_L,
    language=_LLAMA32,
    connector=ConnectorConfig(kind="mlp"),
    lora=LoraConfig(rank=64, alpha=128, dropout=0.05),
    feature_layer=-2,
    tokenizer=SHIPPED,
    chat_template="llama3",
    image_size_px=336,
)

# SigLIP 2 at its so400m size has SigLIP's shape, so `phi15-siglip` takes its weights; this is the base size, pooled to
# 8x8 + 4x4 + 1 = 81 tokens as in ColonGPT's ablation.
PHI15_SIGLIP2 = PHI15_SIGLIP.model_copy(
    update={
        "vision": _SIGLIP2_BASE,
        "connector": ConnectorConfig(kind="pool", grids=(8, 4, 1)),
        "image_size_px": 256,
    }
)

# LLaVA-1.5's tower before a small Qwen.
QWEN3_CLIP = QWEN3_SIGLIP2.model_copy(update={"vision": _CLIP_L, "image_size_px": 336})

PRESETS = {
    "nano": NANO,
    "small": SMALL,
    "phi15-siglip": PHI15_SIGLIP,
    "phi15-siglip2": PHI15_SIGLIP2,
    "qwen3-siglip2": QWEN3_SIGLIP2,
    "qwen3-clip": QWEN3_CLIP,
    "llama-clip": LLAMA_CLIP,
}


def resolve(config: ModelConfig) -> ModelConfig:
    """The config with its preset's parts filled in; what the config says itself wins.

    Raises:
        ConfigError: The preset is unknown, or a part is missing without one.
    """
    if config.huggingface is not None:
        return config
    if config.preset is not None and config.preset not in PRESETS:
        raise ConfigError(f"model.preset {config.preset!r} is unknown; known: {', '.join(sorted(PRESETS))}")
    base = PRESETS[config.preset] if config.preset else ModelConfig()
    said = {name: getattr(config, name) for name in config.model_fields_set}
    if config.language is not None and config.language.path is not None:
        said.setdefault("tokenizer", config.language.path)  # another's ids would mean other words to these weights
    merged = base.model_copy(update=said)
    needed = ("vision", "language", "connector", "feature_layer", "tokenizer", "chat_template", "image_size_px")
    missing = [name for name in needed if getattr(merged, name) is None]
    if missing:
        raise ConfigError(
            f"model: {', '.join(missing)} missing; name a preset ({', '.join(sorted(PRESETS))}) or give them"
        )
    return merged
