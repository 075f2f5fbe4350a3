"""What a dataset is to the metadata that the Hugging Face Hub reads at the head of a README.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from gastrovl.core.types import Split, Task

# Licences that the Hub knows by an id; any other wording, also one with a remark, is "other" with its words.
HUB_LICENCES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc0": "cc0-1.0",
    "cc0 1.0": "cc0-1.0",
    **{
        f"cc {kind} {version}": f"cc-{kind}-{version}"
        for kind in ("by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd")
        for version in ("2.0", "3.0", "4.0")
        if (kind, version) != ("by-nd", "3.0") and (kind, version) != ("by-nd", "2.0")
    },
}
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
    return "---\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110) + "---\n\n"


def without_front_matter(text: str) -> str:
    """A page without the YAML block at its head, if it has one."""
    return re.sub(r"\A---\n.*?\n---\n+", "", text, count=1, flags=re.DOTALL)


def licence_fields(licences: Iterable[str]) -> dict[str, str]:
    """`license` as the Hub has it; several, or one that it does not know, are "other", and the card tells them."""
    stated = sorted({licence.strip() for licence in licences if licence.strip()})
    if len(stated) == 1 and stated[0].lower() in HUB_LICENCES:
        return {"license": HUB_LICENCES[stated[0].lower()]}
    slug = re.sub(r"[^a-z0-9.]+", "-", " and ".join(stated).lower()).strip("-.")
    return {"license": "other", "license_name": slug[:96].strip("-.") or "not-stated", "license_link": "README.md"}


def size_category(number: int) -> str:
    """The Hub's name for a dataset of so many images."""
    return next((name for name, limit in _SIZES if number < limit), "10M<n<100M")


def hub_split(name: str) -> str:
    """A file's name as the Hub names its split: "val" is "validation" there; what follows is kept."""
    return re.sub(f"^{Split.VAL}(?=_|$)", "validation", name)
