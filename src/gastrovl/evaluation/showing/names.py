"""The names of metrics in results to how they are shown: words, unit, range and direction."""

from __future__ import annotations

from dataclasses import dataclass

from gastrovl.clinical.statements import KINDS
from gastrovl.core.types import Kind
from gastrovl.evaluation.measures import facts
from gastrovl.evaluation.measures.directions import is_better_low
from gastrovl.evaluation.measures.localisation import SIZES
from gastrovl.evaluation.measures.shortanswers import EXACT, metric_of

NO_VALUE = "–"
_SHARE_ENDS = ("accuracy", "precision", "recall", "f1", "rate", "share", "credit")  # of names that are not listed


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        name: In tables and figures.
        meaning: In one line, for who does not know the name.
        low, high: What it can be; None where there is no bound.
        is_percent: Shown as a percentage with one decimal, otherwise as a number with three.
    """

    name: str
    meaning: str
    low: float | None = 0.0
    high: float | None = 1.0
    is_percent: bool = True

    @property
    def is_count(self) -> bool:
        """Whether it begins at a number and has no end, so that it fits on no axis of shares."""
        return self.low is not None and self.high is None

    @property
    def unit(self) -> str:
        """ "%", the range of a number, or nothing where there is no bound."""
        if self.is_percent or self.low is None:
            return "%" if self.is_percent else ""
        return f"{self.low:g} or more" if self.high is None else f"{self.low:g} to {self.high:g}"


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "share of answers whose set of labels is exactly the true one"),
    "balanced_accuracy": Metric("balanced accuracy", "mean over the true labels of the share that was recognised"),
    "macro_f1": Metric("macro F1", "mean over labels of the F1 of each"),
    "mcc": Metric("Matthews correlation", "correlation of truth and answer; 0 for blind guesses", -1.0, 1.0, False),
    "hierarchical_credit": Metric("credit by taxonomy distance", "a near miss in the vocabulary earns a part"),
    "hierarchical_precision": Metric("hierarchical precision", "of all labels answered and their parents, share true"),
    "hierarchical_recall": Metric("hierarchical recall", "of all true labels and their parents, share answered"),
    "hierarchical_f1": Metric("hierarchical F1", "harmonic mean of hierarchical precision and recall"),
    "accuracy_level1": Metric("accuracy at level 1", "right up to the broadest level of the vocabulary"),
    "accuracy_level2": Metric("accuracy at level 2", "right up to the middle level of the vocabulary"),
    "mean_ap": Metric("mean AP", "mean over labels of the average precision of their probabilities"),
    "macro_auroc": Metric(
        "AUROC, mean of classes", "chance that a case of the label gets more probability than another"
    ),
    **{f"acc@{t}": Metric(f"acc@IoU {t}", f"every box found with IoU >= {t}") for t in ("0.3", "0.5", "0.75")},
    "acc@0.5_single": Metric("acc@IoU 0.5, one true box", "questions with one true box only"),
    "acc@0.5_hull": Metric("acc@IoU 0.5, hull of all boxes", "hulls of true and given boxes compared"),
    "acc@0.5_largest": Metric("acc@IoU 0.5, largest box", "largest true and largest given box compared"),
    "mean_iou": Metric("mean IoU", "mean overlap over union, boxes paired one to one"),
    "giou": Metric("mean GIoU", "overlap that also tells a near miss from a far one", -1.0, 1.0, False),
    **{f"acc@0.5_{s}": Metric(f"acc@IoU 0.5, one {s} box", f"one true box, which is {s}") for s in SIZES},
    **{f"mean_iou_{s}": Metric(f"mean IoU, one {s} box", f"one true box, which is {s}") for s in SIZES},
    "centre_hit": Metric("centre hit", "the centre of the answer lies in the true box"),
    "box_recall@0.5": Metric("box recall, IoU 0.5", "share of all true boxes that were found"),
    "box_f1@0.5": Metric("box F1, IoU 0.5", "harmonic mean of the shares of true boxes found and given boxes true"),
    "presence_recall": Metric("present: answered with a box", "whatever the box"),
    "absence_rejection": Metric('absent: answered "absent"', "questions about what the image does not show"),
    "presence_balanced": Metric("present and absent, mean", "mean of the two shares"),
    EXACT: Metric("exact match", "the short answer, or a wording as good"),
    **{metric_of(k): Metric(f"exact match, {k.value.replace('_', ' ')}", "of this kind of question") for k in Kind},
    "bleu4": Metric("BLEU-4", "runs of one to four words shared with the true text"),
    "rouge1": Metric("ROUGE-1", "words shared with the true text"),
    "rouge2": Metric("ROUGE-2", "pairs of words shared with the true text"),
    "rougeL": Metric("ROUGE-L", "longest common run of words, gaps allowed"),
    "bertscore_precision": Metric("BERTScore, precision", "how near the reply's words lie to some true one"),
    "bertscore_recall": Metric("BERTScore, recall", "how near the true words lie to some of the reply"),
    "bertscore_f1": Metric("BERTScore, F1", "harmonic mean of both, of one conversation; high for any two texts"),
    facts.PRECISION: Metric("fact precision", "share of the facts stated in replies that the true texts state"),
    facts.RECALL: Metric("fact recall", "share of the facts stated in the true texts that the replies state"),
    facts.F1: Metric("fact F1", "harmonic mean of fact precision and recall"),
    facts.LENIENT: Metric("fact F1, lenient", "a lesion or site counts also where one text names it more broadly"),
    **{f"{facts.F1}_{kind}": Metric(f"fact F1, {kind}", "of facts of this kind alone") for kind in KINDS},
    facts.NEGATION: Metric(
        "negation accuracy", "of things named in both texts or denied by the true one, share with the same status"
    ),
    facts.CONTRADICTIONS: Metric(
        "contradictions a text", "things that one text states and the other denies", high=None, is_percent=False
    ),
    "ece": Metric("ECE, equal width", "mean gap between confidence and accuracy, 15 bins of equal width"),
    "ece_adaptive": Metric("ECE, equal mass", "mean gap between confidence and accuracy, 15 bins of equal counts"),
    "brier": Metric("Brier score", "mean squared gap between confidence and being right", is_percent=False),
    "aurc": Metric("AURC", "area under the risk-coverage curve", is_percent=False),
    "e_aurc": Metric("excess AURC", "AURC above that of the best order of the same answers", is_percent=False),
    "confidence_auroc": Metric("AUROC, right against wrong", "chance that a right answer is surer than a wrong one"),
    "coverage@risk0.05": Metric("coverage at 5 % risk", "share of answers kept when 5 % of the kept may be wrong"),
    "coverage@risk0.1": Metric("coverage at 10 % risk", "share of answers kept when 10 % of the kept may be wrong"),
    "consistency": Metric("same answer to other wordings", "over pairs of wordings of one question"),
    "flip_rate": Metric("right in some wordings only", "share of questions"),
    "right_in_all_wordings": Metric("right in all wordings", "share of questions"),
    "worst_wording_accuracy": Metric("accuracy, worst wording", "accuracy under the wording that does worst"),
    "accuracy_spread": Metric("accuracy, best minus worst wording", "what the choice of wording is worth"),
    "coloninst_accuracy": Metric("accuracy as in ColonINST", "the predecessor's own scorer, for comparison only"),
    "coloninst_mean_iou": Metric("mean IoU as in ColonINST", "the predecessor's own scorer, for comparison only"),
    "coloninst_recall": Metric("recall as in ColonINST, a quarter", "divided by four there, by mistake"),
}


def metric(key: str) -> Metric:
    """How a metric is shown; one that is not listed is shown by its own name, as a share where its name ends so."""
    if key in METRICS:
        return METRICS[key]
    is_share = key.replace("_", " ").split(" ")[-1].split("@")[0] in _SHARE_ENDS
    low, high = (0.0, 1.0) if is_share else (None, None)
    return Metric(key.replace("_", " "), "", low=low, high=high, is_percent=is_share)


def metric_name(key: str) -> str:
    """The name of a metric in words."""
    return metric(key).name


def name_with_unit(key: str) -> str:
    """The name with its unit or range, and an arrow where less is better: "ECE, equal width (%, lower is better)"."""
    found = metric(key)
    parts = [found.unit] * bool(found.unit) + ["lower is better"] * is_better_low(key)
    return f"{found.name} ({', '.join(parts)})" if parts else found.name


def shown(key: str, value: float | None) -> str:
    """A value of a metric in its unit: "91.4" for a share, "0.831" for another number, a dash for none."""
    if value is None:
        return NO_VALUE
    return percent(value) if metric(key).is_percent else f"{value:.3f}"


def shown_difference(key: str, value: float | None) -> str:
    """A difference of a metric in its unit, with its sign: "+6.1" points of a share, "-0.021" of another number."""
    if value is None:
        return NO_VALUE
    return f"{100 * value:+.1f}" if metric(key).is_percent else f"{value:+.3f}"


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal."""
    return NO_VALUE if value is None else f"{100 * value:.1f}"


def is_better(key: str, value: float, rival: float) -> bool:
    """Whether a value is strictly better than a rival's."""
    return value < rival if is_better_low(key) else value > rival
