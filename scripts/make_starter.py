"""A finished run of configs/run/starter.yaml to the folder that the package carries as `starter`: halved, and its card.

python scripts/make_starter.py RUN [RESULTS]      # RESULTS: a results.json of other data, for the card

The folder is src/gastrovl/starter, and must not be there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from gastrovl.core.files import write_text
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.results import read_results
from gastrovl.training.publishing.half import write_half

MOST_BYTES = 4_950_000  # the repository takes no file above five million, and this is the whole folder
FOLDER = Path(__file__).resolve().parents[1] / "src" / "gastrovl" / "starter"
SHOWN = {  # of the split that was held out: what its card says first
    (Task.REC, "acc@0.5", "hyperkvasir"): "polyps, boxes right (IoU of 0.5 or more)",
    (Task.REC, "mean_iou", "hyperkvasir"): "polyps, mean IoU",
    (Task.REC, "presence_recall", "hyperkvasir"): "polyp frames in which a polyp is said to be there",
    (Task.REC, "absence_rejection", "hyperkvasir"): "other colon frames in which it is said to be absent",
    (Task.REC, "presence_balanced", "hyperkvasir"): "the mean of these two",
    (Task.REC, "acc@0.5", "edd2020"): "polyps of EDD2020, boxes right",
    (Task.REC, "mean_iou", "edd2020"): "polyps of EDD2020, mean IoU",
    (Task.REC, "presence_balanced", "edd2020"): "there or absent in EDD2020, the mean of both kinds of frame",
    (Task.REC, "acc@0.5", "drawn"): "drawn findings, boxes right",
    (Task.CLS, "accuracy", "drawn"): "drawn frames, all labels right",
}
ABOUT = """## What this is for

The starter model comes with GastroVL, so that a person can see each command answer before any model was trained:
`gastrovl ask starter frame.jpg --locate polyp --draw boxes.png`. It is small, from random weights, and knows two
things: where a polyp of the colon lies, and the drawn frames of `gastrovl data draw`.

**It is not for upper-GI work and not for patients.** In particular:

- Its real findings are polyps of the colon. Of the esophagus it has seen some thirty real frames (z-line, four of
  esophagitis), of the stomach and the duodenum none; gastric polyps, ulcers and varices it knows from drawings only.
- Asked for a polyp, it also boxes folds, bubbles, stool and light where there is none, and it misses flat and small
  ones. Whether there is one at all it tells no better than the nearest neighbour by a tiny copy of the frame.
- It was trained on frames of one source, and does worse on those of another, below.
- Nearly all frames without a polyp had a black square at the lower left, and about half of those with one: a shortcut
  that it may have taken in part.
- No patient or video is named in HyperKvasir. Near copies were kept on one side of the division; frames of one person
  may still stand on both, so figures for new people will be lower.
- Its confidences are not calibrated, it does not notice pictures that are no endoscopy, and its captions follow a
  pattern.

## Figures on what was held out

One eighth of the frames, by groups of near copies, was kept out of this training; the recipe comes from earlier runs
on other divisions of the same frames. Percent, with 95 % intervals from a bootstrap over groups; the baseline is the
best of those that never look at the image, or of the nearest neighbour by a tiny copy. Always "there" or always
"absent" is right in one kind of frame for nothing, so the mean of both is what counts. One division, one seed.
EDD2020 is another source, of which it has never seen a frame.

{figures}

## Licence and attribution

These weights are licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); the code around them is
Apache-2.0. They were trained on frames and masks of HyperKvasir, which its repository states to be CC BY 4.0: Borgli
et al., HyperKvasir, a comprehensive multi-class image and video dataset for gastrointestinal endoscopy, Scientific
Data 7:283 (2020), doi:10.1038/s41597-020-00622-y. Changes: frames scaled down, mirrored, turned, cropped and
recoloured in training; no frame is part of this folder. Whoever passes these weights on names that work and these
changes. The drawn frames are this package's own.
"""
_PICTURE = re.compile(r"\n*!\[[^\]]*\]\(training\.png\)\n*")


def make_starter(run: Path, others: Sequence[Path] = (), folder: Path = FOLDER) -> int:
    """Write `folder` from a run's `train/`, the scores of its test split and other results; returns its size in bytes.

    Raises:
        CheckpointError, OutputError: As `write_half`.
        RecordError: The run was not evaluated.
    """
    files = [run / "evaluation" / "test" / "results.json", *others]
    scores = [score for file in files for score in read_results(file).scores]
    write_half(run / "train", folder, most_bytes=MOST_BYTES)
    (folder / "training.png").unlink(missing_ok=True)
    card = folder / "README.md"
    write_text(card, with_section(card.read_text(encoding="utf-8"), ABOUT.format(figures=table_of(scores))))
    return sum(file.stat().st_size for file in folder.iterdir())


def with_section(card: str, section: str) -> str:
    """A model card with `section` before its own first one, and without the picture that is left out."""
    card = _PICTURE.sub("\n\n", card)
    before, mark, after = card.partition("## Model\n")
    if not mark:
        raise SystemExit("the run's model card has no section Model; was it written by this version?")
    return before + section + "\n" + mark + after


def table_of(scores: Sequence[Score]) -> str:
    """The rows of SHOWN that were scored, as Markdown."""
    lines = ["| held out | percent | 95 % interval | n | best trivial baseline |", "|---|---|---|---|---|"]
    for (task, metric, dataset), words in SHOWN.items():
        for score in scores:
            if (score.task, score.metric, score.dataset, score.split) != (task, metric, dataset, Split.TEST):
                continue
            if score.value is None or score.low is None or score.high is None or score.baseline is None:
                raise SystemExit(f"{task} {metric} of {dataset} has no value, interval or baseline: {score.reason}")
            interval = f"{100 * score.low:.1f} to {100 * score.high:.1f}" + ("\\*" if score.reason else "")
            baseline = f"{100 * score.baseline:.1f} ({score.baseline_name})"
            lines.append(f"| {words} | {100 * score.value:.1f} | {interval} | {score.n} | {baseline} |")
    return "\n".join(lines) + "\n\n\\* from a few groups of frames only, so too narrow."


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    size = make_starter(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]])
    print(f"{size:,} bytes in {FOLDER}")
