"""What cards for the Hugging Face Hub share: the YAML block at their head, licences by the Hub's ids, the paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

PAPER = """@inproceedings{he2025foundational,
  title = {Foundational Multi-Task Multimodal Model for Upper {GI} Endoscopy},
  author = {He, Yuxuan and Chen, Qilei and Liu, Benyuan and Cao, Yu},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV) Workshops},
  pages = {6612--6621},
  year = {2025}
}"""
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


def yaml_block(content: Mapping[str, Any]) -> str:
    """The YAML block between two `---` lines, with an empty line after it."""
    return "---\n" + yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=110) + "---\n\n"


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
