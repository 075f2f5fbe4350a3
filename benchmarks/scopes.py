"""How well pictures out of scope are told from endoscopic ones that were never trained on, beside the mean colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance
from PIL.ImageFilter import GaussianBlur

from gastrovl.core.images import open_image
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Task
from gastrovl.inference.belief.calibrating import summaries
from gastrovl.inference.belief.scope import Floats, fit_scope, tower_summary, unreadable
from gastrovl.inference.predictor import Predictor

LOWER = ("normal-cecum", "bbps-0-1", "bbps-2-3", "impacted-stool")
SEED, DRAWN = 7, 40


def frames(data: Path, split: str) -> list[Conversation]:
    """The first conversation about each image; CLS first, which lower-GI frames do not have."""
    found: dict[str, Conversation] = {}
    for one in sorted(read_records(data / f"{split}.jsonl", Conversation), key=lambda one: one.task is not Task.CLS):
        found.setdefault(one.image.path, one)
    return [found[path] for path in sorted(found)]


def is_lower(one: Conversation) -> bool:
    """HyperKvasir's polyps are frames of the colon; all its frames with a question of CLS are of the upper tract."""
    return one.source == "hyperkvasir" and one.task is not Task.CLS


def no_endoscopy() -> dict[str, list[Image.Image]]:
    """Pages of text, gradients and noise."""
    draws = np.random.default_rng(SEED)
    pages, gradients = [], []
    for _ in range(DRAWN):
        page = Image.new("RGB", (640, 480), "white")
        for top in range(16, 464, 14):
            letters = draws.choice(list("abcdefghij klmnopqrst uvwxyz"), 90)
            ImageDraw.Draw(page).text((20, top), "".join(letters), fill="black")
        pages.append(page)
        start, end = draws.integers(0, 256, (2, 1, 1, 3))
        share = np.linspace(0, 1, 480)[:, None, None]
        gradients.append(Image.fromarray((start * (1 - share) + end * share).repeat(640, axis=1).astype(np.uint8)))
    noise = [Image.fromarray(draws.integers(0, 256, (480, 640, 3), dtype=np.uint8)) for _ in range(DRAWN)]
    return {"text page": pages, "gradient": gradients, "noise": noise}


def colours(images: Sequence[Image.Image]) -> Floats:
    """Mean colour, (images, 3)."""
    return np.stack(
        [np.asarray(image.resize((1, 1), Image.Resampling.BOX), dtype=np.float32)[0, 0] for image in images]
    )


def auroc(outside: np.ndarray, inside: np.ndarray) -> float:
    """Chance that a picture from outside scores higher, ties counting half."""
    ordered = np.sort(inside)
    below = np.searchsorted(ordered, outside, "left") + np.searchsorted(ordered, outside, "right")
    return float(below.mean() / 2 / len(inside))


def scope_table(predictor: Predictor, data: Path, lower: Path, level: float) -> dict[str, Any]:
    """AUROC against held-out upper-GI frames, by the tower and by mean colour, and what the borders let pass.

    Directions come from training frames: those of the upper tract, and the colon's polyps as examples of what is
    outside. `leave one class out` also takes three of the four other kinds of colon frames as examples and is tested on
    the fourth.
    """
    split = {name: frames(data, name) for name in ("train", "val", "test")}

    def paths(name: str, *, outside: bool) -> list[Path]:
        return [data / one.image.path for one in split[name] if is_lower(one) == outside and one.source != "drawn"]

    kinds = {name: sorted((lower / name).iterdir()) for name in LOWER}
    named = {
        "train": paths("train", outside=False),
        "train colon": paths("train", outside=True),
        "val": paths("val", outside=False),
        "test": paths("test", outside=False),
        **kinds,
    }
    pictures = no_endoscopy()
    by_tower = {name: summaries(predictor, some, name) for name, some in named.items()}
    by_colour = {name: colours([open_image(path) for path in some]) for name, some in named.items()}
    by_tower |= {name: tower_summary(predictor.model, predictor.processor, some) for name, some in pictures.items()}
    by_colour |= {name: colours(some) for name, some in pictures.items()}
    groups = [one.group for one in split["val"] if not is_lower(one) and one.source != "drawn"]
    edd = np.array([one.source == "edd2020" for one in split["test"] if not is_lower(one) and one.source != "drawn"])
    found: dict[str, Any] = {"held-out frames": len(edd), "of EDD2020": int(edd.sum())}
    for name, features in (("tower", by_tower), ("mean colour", by_colour)):
        scope = fit_scope(features["train"], features["val"], groups, features["train colon"], level)
        alone = fit_scope(features["train"], features["val"], groups, None, level)
        inside, apart = features["test"][edd], scope.discriminants
        rows: dict[str, Any] = {
            "not endoscopy, by distance": {
                kind: auroc(scope.distances(features[kind]), scope.distances(features["test"])) for kind in pictures
            },
            "colon, by distance from upper frames alone": {
                kind: auroc(alone.distances(features[kind]), alone.distances(inside)) for kind in LOWER
            },
            "colon, with polyps as examples": {kind: auroc(apart(features[kind]), apart(inside)) for kind in LOWER},
            "colon, leave one class out": {},
        }
        for kind in LOWER:
            others = [features["train colon"], *(features[other] for other in LOWER if other != kind)]
            wider = fit_scope(features["train"], features["val"], groups, np.concatenate(others), level).discriminants
            rows["colon, leave one class out"][kind] = auroc(wider(features[kind]), wider(inside))
        border = scope.limits
        rows["let through at the borders"] = {
            kind: float(((scope.distances(values) <= border.distance) & (apart(values) <= border.discriminant)).mean())
            for kind, values in features.items()
            if not kind.startswith("train")
        }
        found[name] = rows
    frames_of_test = [open_image(path) for path in named["test"]]
    spoilt = {
        "test, a tenth of the light": [ImageEnhance.Brightness(one).enhance(0.1) for one in frames_of_test],
        "test, blurred by 2 % of the width": [one.filter(GaussianBlur(one.width / 50)) for one in frames_of_test],
    }
    whole = {name: [open_image(path) for path in named[name]] for name in ("val", "test", *LOWER)}
    found["unreadable, by pixels"] = {
        name: float(np.mean([unreadable(one) is not None for one in some]))
        for name, some in (whole | spoilt | pictures).items()
    }
    for name, rows in found.items():
        print(f"scope: {name}: {rows}")
    return found
