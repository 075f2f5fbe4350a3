"""What a dataset is to the metadata that the Hugging Face Hub reads at the head of a README.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gastrovl.core.frontmatter import licence_fields, yaml_block
from gastrovl.core.types import Split, Task

TASK_CATEGORIES = {
    Task.CLS: "image-classification",
    Task.REC: "object-detection",
    Task.REG: "visual-question-answering",
    Task.CAP: "image-to-text",
    Task.VQA: "visual-question-answering",
    Task.REPORT: "image-to-text",
}
_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))


def front_matter(
    *,
    sources: Sequence[str],
    licences: Iterable[str],
    n_images: int,
    tasks: Iterable[Task],
    configs: Sequence[Mapping[str, Any]],
    dataset_info: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The YAML block between two `---` lines, with an empty line after it.

    Args:
        configs: What the Hub loads: `config_name` and `data_files`, each a split with its path.
        dataset_info: How many rows each split of a config has.
    """
    named = ", ".join(sources) if len(sources) <= 4 else f"{len(sources)} sources"
    content = {
        "pretty_name": f"Upper-GI endoscopy conversations ({named})",
        "language": ["en"],
        **licence_fields(licences),
        "size_categories": [size_category(n_images)],
        "task_categories": sorted({TASK_CATEGORIES[task] for task in tasks}),
        "annotations_creators": ["found"],  # the sources' own labels
        "language_creators": ["machine-generated"],
        "multilinguality": ["monolingual"],
        "source_datasets": ["extended"],
        "tags": ["medical", "endoscopy", "gastroscopy", "vision-language", "gastrovl"],
        **({"configs": [dict(config) for config in configs]} if configs else {}),
        **({"dataset_info": [dict(info) for info in dataset_info]} if dataset_info else {}),
    }
    return yaml_block(content)


def size_category(number: int) -> str:
    """The Hub's name for a dataset of so many images."""
    return next((name for name, limit in _SIZES if number < limit), "10M<n<100M")


def hub_split(name: str) -> str:
    """A file's name as the Hub names its split: "val" is "validation" there; what follows is kept."""
    return re.sub(f"^{Split.VAL}(?=_|$)", "validation", name)
