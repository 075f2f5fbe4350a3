"""Random models of published families, a few thousand weights each, as snapshot folders in the published layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = (
    "What does the image show? Name every finding. Where is the polyp? Locate the gastric ulcer. What lies in "
    "[125,250,500,750]? Name the region. Describe the image. Write a short note. The image shows esophagitis, cancer. "
    "polyp gastric ulcer esophagitis cancer user assistant model USER ASSISTANT User Assistant 0123456789"
)
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TOWER = SIZES | {"image_size": 32, "patch_size": 8}
QWEN_VISION = {"depth": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}

# Written for these tests: the marks and the order of each family's own template, in other words.
EACH = "{% for said in messages %}"
IMAGES = "{% for part in said.content if part.type == 'image' %}"
TEXTS = "{% for part in said.content if part.type == 'text' %}"
END, LINE, ASKS = "{% endfor %}", "{{ '\\n' }}", "{% if add_generation_prompt %}"
TEMPLATES = {
    "llava": (
        f"{EACH}{{{{ said.role | upper }}}}: {IMAGES}<image>{LINE}{END}{TEXTS}{{% generation %}}{{{{ part.text }}}} "
        f"{{% endgeneration %}}{END}{END}{ASKS}ASSISTANT:{{% endif %}}"
    ),
    "qwen": (
        f"<|im_start|>system{LINE}Be brief.<|im_end|>{LINE}{EACH}<|im_start|>{{{{ said.role }}}}{LINE}"
        f"{IMAGES}<|vision_start|><|image_pad|><|vision_end|>{END}{TEXTS}{{{{ part.text }}}}{END}<|im_end|>{LINE}{END}"
        f"{ASKS}<|im_start|>assistant{LINE}{{% endif %}}"
    ),
    "gemma": (
        f"{{{{ bos_token }}}}{EACH}<start_of_turn>{{{{ 'model' if said.role == 'assistant' else said.role }}}}{LINE}"
        f"{IMAGES}<start_of_image>{END}{TEXTS}{{{{ part.text | trim }}}}{END}<end_of_turn>{LINE}{END}"
        f"{ASKS}<start_of_turn>model{LINE}{{% endif %}}"
    ),
    "smolvlm": (
        f"<|im_start|>{EACH}{{{{ said.role | capitalize }}}}:{{% if said.content[0].type == 'text' %}} {{% endif %}}"
        f"{IMAGES}<image>{END}{TEXTS}{{{{ part.text }}}}{END}<end_of_utterance>{LINE}{END}"
        f"{ASKS}Assistant:{{% endif %}}"
    ),
}


def pieces(special: list[str], is_byte_level: bool) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a small BPE over WORDS in which every digit stands alone."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=not is_byte_level))
    around = pre_tokenizers.ByteLevel(add_prefix_space=False) if is_byte_level else pre_tokenizers.Metaspace()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), around])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if is_byte_level else []
    bytes_alone = [] if is_byte_level else [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=560, special_tokens=special + bytes_alone, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 3, trainer)
    content = json.loads(tokenizer.to_str())["model"]
    return content["vocab"], [tuple(pair) for pair in content["merges"]]


def llama_words() -> Any:
    vocabulary, merges = pieces(["<unk>", "<s>", "</s>"], is_byte_level=False)
    tokenizer = transformers.LlamaTokenizer(vocab=vocabulary, merges=merges, pad_token="<pad>")
    tokenizer.add_tokens(["<image>", "<pad>"], special_tokens=True)
    return tokenizer


def qwen_words() -> Any:
    vocabulary, merges = pieces([], is_byte_level=True)
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges, eos_token="<|im_end|>")
    names = ["im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]
    tokenizer.add_tokens([f"<|{name}|>" for name in names], special_tokens=True)
    return tokenizer


def gemma_words() -> Any:
    vocabulary, merges = pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], is_byte_level=False)
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = transformers.GemmaTokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=named)
    tokenizer.add_tokens(["<start_of_turn>", "<end_of_turn>", *named.values()], special_tokens=True)
    return tokenizer


def smollm_words() -> Any:
    vocabulary, merges = pieces([], is_byte_level=True)
    tokenizer = transformers.GPT2Tokenizer(
        vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    names = ["<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer.add_tokens(names, special_tokens=True)
    return tokenizer


def llava(tokenizer: Any) -> tuple[Any, Any, dict[str, Any]]:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER | {"num_hidden_layers": 3}),
        text_config=transformers.LlamaConfig(**SIZES, vocab_size=len(tokenizer) + 3),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    pixels = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    pixels |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    return config, "CLIPImageProcessor", pixels | {"resample": 3, "processor_class": "LlavaProcessor"}


def qwen(tokenizer: Any, second: bool = True) -> tuple[Any, Any, dict[str, Any]]:
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")
    }
    ids |= {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    text = SIZES | {"vocab_size": len(tokenizer) + 3, "num_key_value_heads": 1, "rope_parameters": ROPE}
    text |= {"bos_token_id": None, "eos_token_id": ids["vision_start_token_id"] - 1}
    if second:
        vision = QWEN_VISION | {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        config: Any = transformers.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids)
    else:
        vision = QWEN_VISION | {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(vision_config=vision, text_config=text, **ids)
    pixels = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    return config, "Qwen2VLImageProcessor", pixels | {"processor_class": "Qwen2_5_VLProcessor"}


def gemma(tokenizer: Any) -> tuple[Any, Any, dict[str, Any]]:
    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=transformers.Gemma3TextConfig(
            **SIZES,
            vocab_size=len(tokenizer) + 3,
            num_key_value_heads=1,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    pixels = {
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.5] * 3,
        "do_pan_and_scan": None,
        "image_seq_length": 4,
    }
    return config, "Gemma3ImageProcessor", pixels | {"processor_class": "Gemma3Processor"}


def idefics(tokenizer: Any, name: str = "SmolVLM") -> tuple[Any, Any, dict[str, Any]]:
    config = getattr(transformers, f"{name}Config")(
        vision_config=TOWER,
        text_config=transformers.LlamaConfig(**SIZES, vocab_size=len(tokenizer) + 3),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
    )
    pixels = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": True}
    return config, f"{name}ImageProcessor", pixels | {"processor_class": f"{name}Processor"}


# Words, model, template, the tokens that the generation config stops at.
MAKERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], str, list[str]]] = {
    "llava": (llama_words, llava, "llava", ["</s>"]),
    "qwen2_5_vl": (qwen_words, qwen, "qwen", ["<|im_end|>", "<|endoftext|>"]),
    "qwen2_vl": (qwen_words, lambda words: qwen(words, second=False), "qwen", ["<|im_end|>", "<|endoftext|>"]),
    "gemma3": (gemma_words, gemma, "gemma", ["<eos>", "<end_of_turn>"]),
    "smolvlm": (smollm_words, idefics, "smolvlm", ["<end_of_utterance>"]),
    "idefics3": (smollm_words, lambda words: idefics(words, "Idefics3"), "smolvlm", ["<end_of_utterance>"]),
}
SIDES = {"qwen2_5_vl": 112, "qwen2_vl": 112}  # the others' towers see 32 px only
TOKENS = {"llava": 16, "qwen2_5_vl": 16, "qwen2_vl": 16, "gemma3": 4, "smolvlm": 4, "idefics3": 4}


def write_snapshot(folder: Path, family: str) -> Path:
    """A random model of a family, written as its publisher writes it: weights, config, tokenizer, processor files."""
    words, model, template, stops = MAKERS[family]
    tokenizer = words()
    config, image_processor, pixels = model(tokenizer)
    torch.manual_seed(7)
    whole = transformers.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():  # a fresh Gemma projects every image to zero, which no trained one does
        for parameter in whole.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    whole.generation_config = transformers.GenerationConfig(eos_token_id=tokenizer.convert_tokens_to_ids(stops))
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels |= {"image_processor_type": image_processor, "do_rescale": True, "rescale_factor": 0.00392156862745098}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATES[template]}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`snapshot("llava")` is the folder of a random model of that family; do not write into it."""
    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = write_snapshot(tmp_path_factory.mktemp("snapshots") / family, family)
        return made[family]

    return folder_of


@pytest.fixture(scope="session")
def side_of() -> dict[str, int]:
    """Side of the square, in pixels, where a family leaves the choice."""
    return SIDES


@pytest.fixture(scope="session")
def tokens_of() -> dict[str, int]:
    """Image tokens of each family's tiny model."""
    return TOKENS
