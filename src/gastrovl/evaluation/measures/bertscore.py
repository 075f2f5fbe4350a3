"""Texts, true and predicted, to BERTScore by a model in a local folder: how near their words lie in its last layers.

Source: Zhang et al., "BERTScore: Evaluating Text Generation with BERT", ICLR 2020, as the package bert-score computes
it. The model is loaded here and handed to the package, because the package itself would ask a hub for it by name and
would take weights in any format.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gastrovl.core.errors import CheckpointError, ConfigError, MissingExtraError
from gastrovl.core.files import sha256_file
from gastrovl.evaluation.measures.measure import Floats, Measure, mean_measure

References = tuple[str, ...]
Score = tuple[float, float, float]  # precision, recall, F1
NAMES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
_AT_ONCE = 2048  # pairs whose embeddings are in memory together
_FEWEST_TOKENS = 512  # what a model is taken to read where its config does not say
_UNREADABLE = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")


@dataclass
class BertScorer:
    """A model that scores pairs of texts; open it with `open_scorer`.

    Attributes:
        signature: Model folder, layer, weighting, versions and a fingerprint of the weights: belongs beside the scores.
        known: Scores of pairs (reference, reply) so far; a pair is scored once.
        lock: Held while texts are scored: threads that share a scorer take turns.
    """

    model: Any
    tokenizer: Any
    signature: str
    idf: bool
    batch_size: int
    known: dict[tuple[str, str], Score] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def open_scorer(
    folder: Path, layer: int | None = None, *, idf: bool = False, batch_size: int = 64, device: str | None = None
) -> BertScorer:
    """Load a text encoder from a local folder; nothing is ever downloaded, and nothing is unpickled.

    Args:
        folder: With config.json, tokenizer files and weights in safetensors.
        layer: Layer whose output is compared, counted from 1; None takes the last. The package's authors chose a layer
            for each model by its agreement with people: 17 of roberta-large, 9 of bert-base-uncased.
        idf: Weigh words by their rarity among the references of one call of `measures`.
        batch_size: Texts that go through the model together.
        device: "cpu", "cuda", ...; None takes a GPU where there is one.

    Raises:
        MissingExtraError: bert-score, torch or transformers is not installed.
        CheckpointError: The folder is no folder, lacks a file, or has no weights in safetensors.
        ConfigError: The model has no such layer, or the batch is empty.
    """
    folder = Path(folder)
    weights = _weights(folder)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected 1 or more texts")
    torch, transformers, _ = _libraries()
    config = _opened(folder, lambda: transformers.AutoConfig.from_pretrained(folder, local_files_only=True))
    layers = config.num_hidden_layers
    if layer is not None and not 1 <= layer <= layers:
        raise ConfigError(f"layer is {layer}, and the model in {folder} has {layers}; expected 1 to {layers}")
    config.num_hidden_layers = layer or layers
    with _quiet(transformers):  # about the weights of the layers that are left out
        model = _opened(
            folder,
            lambda: transformers.AutoModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
            ),
        )
    # The package asks for a blank before the first word of byte-level models, in a way that transformers 5 ignores.
    tokenizer = _opened(
        folder,
        lambda: transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, add_prefix_space=True),
    )
    tokenizer.model_max_length = min(tokenizer.model_max_length, _most_tokens(config))
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return BertScorer(model, tokenizer, _signature(folder, weights, config.num_hidden_layers, idf), idf, batch_size)


def measures(references: Sequence[References], replies: Sequence[str | None], scorer: BertScorer) -> list[Measure]:
    """Mean precision, recall and F1 over conversations, not rescaled by a baseline; in [-1, 1], in practice above 0.

    Several references: the one with the best F1 counts, with all three scores. A reply that is None or blank scores 0;
    a conversation whose references are all blank is left out. Texts longer than the model reads are cut.
    """
    wanted = [tuple(text for text in texts if text.strip()) for texts in references]
    given = [(reply or "").strip() for reply in replies]
    with scorer.lock:
        table = _table(wanted, given, scorer)
    applies = np.array([bool(texts) for texts in wanted], dtype=np.bool_)
    return [mean_measure(name, table[:, place], applies, "no reference has words") for place, name in enumerate(NAMES)]


def _table(wanted: Sequence[References], given: Sequence[str], scorer: BertScorer) -> Floats:
    """Scores of each conversation, (conversations, 3); 0 where a side has no words."""
    pairs = [(text, reply) for texts, reply in zip(wanted, given, strict=True) if reply for text in texts]
    if scorer.idf:  # the weights are those of these references
        scorer.known.clear()
    new = [pair for pair in dict.fromkeys(pairs) if pair not in scorer.known]
    weights = _idf(scorer, [text for texts in wanted for text in texts])
    for start in range(0, len(new), _AT_ONCE):
        part = new[start : start + _AT_ONCE]
        scorer.known.update(zip(part, _scores(scorer, part, weights), strict=True))
    table: Floats = np.zeros((len(given), 3))
    for row, (texts, reply) in enumerate(zip(wanted, given, strict=True)):
        if reply and texts:
            table[row] = max((scorer.known[text, reply] for text in texts), key=lambda score: score[2])
    return table


class _Weights(dict[int, float]):
    """Of each token; one that is not listed has `other`."""

    def __init__(self, listed: dict[int, float], other: float) -> None:
        super().__init__(listed)
        self.other = other

    def __missing__(self, key: int) -> float:
        return self.other


def _idf(scorer: BertScorer, texts: Sequence[str]) -> _Weights:
    """Weights of tokens: 1 each and 0 of those that open and close a text; with idf, log((n + 1) / (df + 1)) of all."""
    if not scorer.idf:
        return _Weights(dict.fromkeys((scorer.tokenizer.cls_token_id, scorer.tokenizer.sep_token_id), 0.0), 1.0)
    limit = scorer.tokenizer.model_max_length
    seen = Counter(
        token
        for text in texts
        for token in set(scorer.tokenizer.encode(text.strip(), max_length=limit, truncation=True))
    )
    return _Weights(
        {token: math.log((len(texts) + 1) / (count + 1)) for token, count in seen.items()}, math.log(len(texts) + 1)
    )


def _scores(scorer: BertScorer, pairs: Sequence[tuple[str, str]], weights: _Weights) -> list[Score]:
    _, _, score = _libraries()
    found = score(
        scorer.model,
        [reference for reference, _ in pairs],
        [reply for _, reply in pairs],
        scorer.tokenizer,
        weights,
        device=scorer.model.device,
        batch_size=scorer.batch_size,
    )
    rows = np.clip(found.numpy().astype(np.float64), -1.0, 1.0)  # of equal texts, up to 1.0000002
    return [(row[0], row[1], row[2]) for row in np.nan_to_num(rows).tolist()]


def _weights(folder: Path) -> list[Path]:
    """Weight files of a folder that may be loaded."""
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder; BERTScore takes a model that lies on this disk (config.json, tokenizer files, "
            "*.safetensors), and downloads none"
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: has no config.json; expected a model folder in the Hugging Face layout")
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in _UNREADABLE)
        raise CheckpointError(
            f"{folder}: has no *.safetensors, only {', '.join(others) or 'no weights'}; other formats can run code "
            "when they are loaded. Save the model with `save_pretrained(folder)`, which writes safetensors"
        )
    return found


def _opened(folder: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder}: cannot be read as a text encoder ({error}); expected a model that transformers' AutoModel and "
            "AutoTokenizer can open"
        ) from error


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _most_tokens(config: Any) -> int:
    """Tokens that the model reads; RoBERTa and its kind begin to count positions behind the padding token's."""
    positions = config.to_dict().get("max_position_embeddings") or _FEWEST_TOKENS
    return int(positions) - (config.pad_token_id + 1 if "roberta" in config.model_type else 0)


def _signature(folder: Path, weights: Sequence[Path], layer: int, idf: bool) -> str:
    digest = hashlib.sha256("".join(sha256_file(path) for path in weights).encode()).hexdigest()[:12]
    versions = [f"{name}:{importlib.metadata.version(name)}" for name in ("bert-score", "transformers")]
    parts = [f"model:{folder.resolve().name}", f"layer:{layer}", f"idf:{'yes' if idf else 'no'}", "rescaled:no"]
    return "|".join((*parts, f"weights:{digest}", *versions))


def _libraries() -> tuple[Any, Any, Any]:
    """torch, transformers, and the function of bert-score that scores."""
    try:
        import torch
        import transformers
        from bert_score.utils import bert_cos_score_idf
    except ImportError as error:
        raise MissingExtraError(
            f'{error.name} is not installed; BERTScore needs it: pip install "gastrovl[bertscore]"'
        ) from error
    return torch, transformers, bert_cos_score_idf
