"""GastroVL: one vision-language model for upper-GI endoscopy. Research software; a physician decides."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("gastrovl")

_PUBLIC = {
    "Box": "gastrovl.core.types",
    "Conversation": "gastrovl.core.types",
    "Finding": "gastrovl.core.types",
    "Prediction": "gastrovl.core.types",
    "Sample": "gastrovl.core.types",
    "Score": "gastrovl.core.types",
    "Task": "gastrovl.core.types",
    "Turn": "gastrovl.core.types",
    "Taxonomy": "gastrovl.clinical.taxonomy",
    "build_dataset": "gastrovl.data.build",
    "train": "gastrovl.training.train",
    "Predictor": "gastrovl.inference.predictor",
    "evaluate": "gastrovl.evaluation.evaluate",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gastrovl' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
