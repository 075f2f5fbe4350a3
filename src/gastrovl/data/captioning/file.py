"""captions.jsonl to the captions that a build may use, and to what its card says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.records import read_records
from gastrovl.core.types import Caption, Sample, Split, Verdict
from gastrovl.data.captioning.check import CheckOptions, check_caption
from gastrovl.data.statistics import markdown_table


class Use(StrEnum):
    """What a build makes of the caption of one sample."""

    USED = "used"
    REJECTED = "rejected when it was written"
    CHANGED_IMAGE = "of another image"  # same sample id, other bytes
    CHANGED_RECORD = "no longer true to its record"  # checked again
    NOT_TRAINING = "not a training image"  # val and test keep the grammar captions
    NONE = "no caption"


def load_captions(path: Path) -> dict[str, Caption]:
    """Captions by sample id.

    Raises:
        RecordError: The file is missing, a line is broken, or a sample has two captions.
    """
    found: dict[str, Caption] = {}
    for caption in read_records(path, Caption):
        if caption.sample_id in found:
            raise RecordError(
                f"{path}: two captions of {caption.sample_id!r}; expected one. Write the file again with "
                "`gastrovl data caption`, or remove one"
            )
        found[caption.sample_id] = caption
    return found


def caption_for(
    sample: Sample, captions: Mapping[str, Caption], taxonomy: Taxonomy, options: CheckOptions | None = None
) -> tuple[str | None, Use]:
    """The caption of a sample, if it may be used; it is checked again, since record or check may have changed."""
    caption = captions.get(sample.id)
    if sample.split is not Split.TRAIN:
        return None, Use.NOT_TRAINING if caption else Use.NONE
    if caption is None:
        return None, Use.NONE
    if caption.text is None:
        return None, Use.REJECTED
    if caption.image_sha256 != sample.image.sha256:
        return None, Use.CHANGED_IMAGE
    if check_caption(caption.text, sample, taxonomy, options).verdict is not Verdict.ACCEPTED:
        return None, Use.CHANGED_RECORD
    return caption.text, Use.USED


def caption_statistics(captions: Iterable[Caption], uses: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Counts of verdicts, of reasons (captions with at least one of the kind), of attempts, and of what was used.

    Args:
        uses: Samples of a build by what became of their caption (`Use`).
    """
    captions = list(captions)
    verdicts = Counter(caption.verdict for caption in captions)
    kinds = Counter(kind for caption in captions for kind in {one.partition(":")[0] for one in caption.reasons})
    attempts = Counter(caption.attempts for caption in captions)
    made = Counter((one.model, one.template, one.template_sha256) for one in captions)
    return {
        "schema": "gastrovl/caption_statistics/1",
        "captions": len(captions),
        "verdicts": {verdict.value: verdicts[verdict] for verdict in Verdict},
        "reasons": dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))),
        "attempts": {str(number): count for number, count in sorted(attempts.items())},
        "made_by": [
            {"model": model, "template": template, "template_sha256": digest, "captions": count}
            for (model, template, digest), count in sorted(made.items())
        ],
        "uses": {use.value: number for use in Use if (number := (uses or {}).get(use.value))},
    }


def caption_section(statistics: Mapping[str, Any]) -> str:
    """The part of a data card about captions by a model, from `caption_statistics`."""
    total = statistics["captions"]
    share = {verdict: f"{count / total:.1%}" if total else "" for verdict, count in statistics["verdicts"].items()}
    parts = [
        "## Captions by a model",
        "First wording of CAP in training, where a caption passed the check against its record; the captions of the "
        "grammar stay as other wordings, and are all there is in val and test. The check reads terms, denials, sides "
        "and numbers. It sees no image: what a caption says of colour and surface is the model's word alone.",
        markdown_table(
            ["verdict", "captions", "share"],
            [[verdict, count, share[verdict]] for verdict, count in statistics["verdicts"].items()],
        ),
    ]
    if statistics["reasons"]:
        parts += [
            "Why captions were repaired or rejected (a caption may count twice):",
            markdown_table(["reason", "captions"], [[kind, count] for kind, count in statistics["reasons"].items()]),
        ]
    if statistics["uses"]:
        parts += [
            "What this build made of them:",
            markdown_table(
                ["sample's caption", "samples"], [[use, count] for use, count in statistics["uses"].items()]
            ),
        ]
    made = [
        f"- `{row['model']}`, template `{row['template']}` ({row['template_sha256'][:12]}): {row['captions']:,}"
        for row in statistics["made_by"]
    ]
    return "\n\n".join([*parts, "\n".join(made)] if made else parts)
