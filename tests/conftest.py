"""What every test may rely on: no network, one thread, fixed seeds, real images if somebody put them, tiny models."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before any test module can import PyTorch or transformers, which read these once.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    MPLBACKEND="agg",
)

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from gastrovl.core.boxtext import encode_box
from gastrovl.core.files import sha256_file
from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Conversation, ImageRef, Split, Target, Task, Turn

from .modelserver import served as served

if TYPE_CHECKING:  # torch is imported by the tests that need it only
    from gastrovl.model.config import ModelConfig

REPOSITORY = Path(__file__).resolve().parents[1]
SEED = 7

# Derandomised: the same examples in every run. No deadline: the first call of a function may import a library.
settings.register_profile("gastrovl", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("gastrovl")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Global generators start alike in each test; our own code takes its randomness as an argument all the same."""
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(SEED)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """The folder of real image sets (`edd2020/`, `hyperkvasir/`): $GASTROVL_DATA, or `../shared/data`."""
    named = os.environ.get("GASTROVL_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real images: {root} does not exist; set GASTROVL_DATA to a folder that holds them")
    return root


LESIONS = (  # name, colour, box
    ("polyp", (220, 40, 40), Box(x0=1 / 8, y0=2 / 8, x1=4 / 8, y1=6 / 8)),
    ("gastric ulcer", (40, 60, 220), Box(x0=4 / 8, y0=4 / 8, x1=7 / 8, y1=7 / 8)),
    ("esophagitis", (40, 200, 60), Box(x0=3 / 8, y0=0 / 8, x1=5 / 8, y1=3 / 8)),
    ("cancer", (230, 220, 40), Box(x0=0 / 8, y0=5 / 8, x1=6 / 8, y1=8 / 8)),
)


def draw_lesion(path: Path, number: int, size_wh: tuple[int, int] = (64, 64)) -> ImageRef:
    """A grey picture with one coloured rectangle, the `number`-th lesion."""
    _, colour, box = LESIONS[number % len(LESIONS)]
    pixels = np.full((size_wh[1], size_wh[0], 3), 128, dtype=np.uint8)
    columns = slice(round(box.x0 * size_wh[0]), round(box.x1 * size_wh[0]))
    pixels[round(box.y0 * size_wh[1]) : round(box.y1 * size_wh[1]), columns] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return ImageRef(path=path.name, width_px=size_wh[0], height_px=size_wh[1], sha256=sha256_file(path))


def four_conversations(image: ImageRef, number: int) -> list[Conversation]:
    """One question of each task about the `number`-th lesion; each question has a second wording."""
    name, _, box = LESIONS[number % len(LESIONS)]
    place = encode_box(box)
    said = {
        Task.CLS: (("What does the image show?", "Name every finding."), name),
        Task.REC: ((f"Where is the {name}?", f"Locate the {name}."), place),
        Task.REG: ((f"What lies in {place}?", f"Name the region {place}."), name),
        Task.CAP: (("Describe the image.", "Write a short note."), f"The image shows {name}."),
    }
    return [
        Conversation(
            id=f"tiny/{number}#{task}",
            sample_id=f"tiny/{number}",
            task=task,
            image=image,
            source="tiny",
            group=f"g{number}",
            split=Split.TRAIN,
            turns=(
                Turn(role="user", text=questions[0], alternatives=questions[1:]),
                Turn(role="assistant", text=answer),
            ),
            target=Target(terms=(name.replace(" ", "_"),), boxes=(box,) if task in (Task.REC, Task.REG) else ()),
        )
        for task, (questions, answer) in said.items()
    ]


def write_data(folder: Path, images: int, name: str = "train") -> Path:
    """Draw images and write four conversations about each; returns the JSONL file."""
    drawn = [(draw_lesion(folder / f"{number}.png", number), number) for number in range(images)]
    write_records(folder / f"{name}.jsonl", [one for pair in drawn for one in four_conversations(*pair)])
    return folder / f"{name}.jsonl"


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Path]:
    """`drawn(folder, images=2)`: as `tiny_data`, into a folder of the caller's, for what is made once a session."""
    return write_data


@pytest.fixture
def tiny_data(tmp_path: Path) -> Callable[..., Path]:
    """`tiny_data(images=2)` draws images, writes four conversations about each and returns their JSONL file."""

    def write(images: int = 2, name: str = "train") -> Path:
        return write_data(tmp_path / "data", images, name)

    return write


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer trained on the words of the tiny conversations."""
    from gastrovl.model.tokenizer import train_tokenizer

    image = ImageRef(path="0.png", width_px=64, height_px=64, sha256="0" * 64)
    turns = [turn for number in range(4) for one in four_conversations(image, number) for turn in one.turns]
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([text for turn in turns for text in (turn.text, *turn.alternatives)], 400).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Path) -> Callable[..., ModelConfig]:
    """`tiny_model("mlp")` describes a SigLIP tower with that connector, `tiny_model("pool", "resnet")` a ResNet one.

    Width 32, two layers each, images of 32 px; any other key of ModelConfig may be given. There are 16 image tokens
    (4 x 4 cells), 17 with `pool`, which takes regions, 4 with `query`.
    """
    from gastrovl.model.config import ConnectorConfig, ModelConfig, PartConfig

    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    towers: dict[str, dict[str, Any]] = {
        "siglip": {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8, **shape},
        "clip": {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8, **shape},
        "resnet": {
            "model_type": "resnet",
            "embedding_size": 16,
            "hidden_sizes": [16, 32],
            "depths": [1, 1],
            "layer_type": "basic",
        },
    }

    def describe(connector: str = "mlp", tower: str = "siglip", **others: Any) -> ModelConfig:
        fields: dict[str, Any] = {
            "vision": PartConfig(config=towers[tower]),
            "language": PartConfig(config={"model_type": "llama", "max_position_embeddings": 512, **shape}),
            "connector": ConnectorConfig.model_validate(
                {"kind": connector, "grids": (4, 1), "queries": 4, "regions": connector == "pool"}
            ),
            "feature_layer": -1,
            "tokenizer": str(tiny_tokenizer),
            "chat_template": "gastrovl",
            "image_size_px": 32,
        }
        return ModelConfig(**(fields | others))

    return describe


FUSIONS = ("attention", "attention-7", "query-2", "gated", "gated-query", "two-towers", "two-towers-gated")


@pytest.fixture(scope="session")
def tiny_fusion(tiny_model: Callable[..., ModelConfig]) -> Callable[[str], ModelConfig]:
    """`tiny_fusion("gated")` describes a `tiny_model` that joins image and text in the way named (see FUSIONS)."""
    from gastrovl.model.config import ConnectorConfig

    connectors: dict[str, dict[str, Any]] = {
        "attention": {"kind": "attention", "queries": 4},
        "attention-7": {"kind": "attention", "queries": 7},
        "query-2": {"kind": "query", "queries": 4, "depth": 2},
        "gated": {"kind": "pool", "grids": (4,), "gated_every": 1},
        "gated-query": {"kind": "query", "queries": 3, "gated_every": 2},
        "two-towers": {"kind": "pool", "grids": (4, 1), "regions": True},
        "two-towers-gated": {"kind": "attention", "queries": 5, "gated_every": 2},
    }

    def describe(name: str) -> ModelConfig:
        config = tiny_model("pool", "siglip")
        changes: dict[str, Any] = {"connector": ConnectorConfig.model_validate(connectors[name])}
        if name.startswith("two-towers"):
            changes["vision_2"] = tiny_model("pool", "resnet").vision
        return config.model_copy(update=changes)

    return describe


@pytest.fixture
def open_fusion(tiny_fusion: Callable[[str], ModelConfig]) -> Callable[[str], tuple[Any, Any]]:
    """`open_fusion("gated")` builds that model, in evaluation mode, with gates as training would leave them."""
    import torch

    from gastrovl.model.checkpoint import build_model

    def build(name: str) -> tuple[Any, Any]:
        model, processor = build_model(tiny_fusion(name), seed=1)
        with torch.no_grad():
            for block in model.model.gated_blocks:
                block.gate_attention.fill_(0.7)
                block.gate_feed.fill_(-0.4)
        return model.eval(), processor

    return build


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., ModelConfig]) -> tuple[Path, Path]:
    """A checkpoint that knows eight conversations by heart, and their JSONL file (do not write into either folder)."""
    from gastrovl.training.config import TrainConfig
    from gastrovl.training.train import train

    folder = tmp_path_factory.mktemp("learnt")
    conversations = write_data(folder / "data", images=2)
    stage = {
        "name": "instruct",
        "tasks": ["CLS", "REC", "REG", "CAP"],
        "trains": ["vision", "projector", "language"],
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "warmup": 0.1,
        "steps": 90,
        "images_per_step": 2,
    }
    content = {"name": "learnt", "model": tiny_model("mlp"), "train": str(conversations), "stages": [stage]}
    train(TrainConfig.model_validate(content), folder / "model", show_bar=False, say=lambda _: None)
    return folder / "model", conversations
