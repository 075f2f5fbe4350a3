"""What is known of a finished run to README.md in its checkpoint, a model card in the form of the Hugging Face Hub.

The card is written from files of the folder alone: run.json, training.json, manifest.json, config.json, gastrovl.json
and log.jsonl. What they do not tell is said to be unknown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from gastrovl.core.boxcoding import BoxCoding, BoxCodingConfig
from gastrovl.core.errors import CheckpointError
from gastrovl.core.files import sha256_file, write_text
from gastrovl.core.frontmatter import PAPER, licence_fields, yaml_block
from gastrovl.core.manifest import Manifest, read_manifest
from gastrovl.core.trainlog import by_stage, read_log, series_of
from gastrovl.core.types import Box, Conversation, Score
from gastrovl.model.config import PartConfig
from gastrovl.training.config import TrainConfig
from gastrovl.training.watching.picture import NAME as PICTURE

CARD, FACTS = "README.md", "training.json"
NOTICE = "Research software. This is no medical device: it drafts, a physician decides."
UNKNOWN = "unknown"
# Scores that the Hub shows beside the model, with its own names for them; the card's table has all.
_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "acc@0.5": "acc@0.5",
    "mean_iou": "mean_iou",
    "bleu4": "bleu",
    "rougeL": "rouge",
    "exact_match": "exact_match",
}
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_CACHED = re.compile(r"models--([\w.-]+)--([\w.-]+)")  # how the Hub's cache names the folder of a model


def write_facts(folder: Path, config: TrainConfig, files: dict[str, Sequence[Conversation]], hardware: str) -> None:
    """Keep in `training.json` what only the run itself knows: its data files with their licences, and its hardware.

    Args:
        files: Conversations that were used of each file.
    """
    data = [
        {
            "file": Path(path).name,
            "sha256": sha256_file(Path(path)),
            "conversations": len(some),
            "images": len({one.image.path for one in some}),
            "sources": sorted({one.source for one in some}),
        }
        for path, some in files.items()
    ]
    parts = {"vision": config.model.vision, "vision_2": config.model.vision_2, "language": config.model.language}
    if config.model.huggingface is not None:
        parts = dict.fromkeys(parts, PartConfig(path=config.model.huggingface))
    facts = {
        "hardware": hardware,
        "data": data,
        "licences": _licences(Path(config.train).parent) if config.train else {},
        "base_models": {
            role: base for role, part in parts.items() if part and part.path and (base := _base(part.path))
        },
    }
    write_text(folder / FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def write_model_card(folder: Path, scores: Sequence[Score] = (), *, measured: datetime | None = None) -> Path:
    """Write `folder/README.md`.

    Args:
        folder: A finished run.
        scores: Of this model, each over all questions of a task; other datasets are left out.
        measured: When the scores were measured.

    Raises:
        CheckpointError: The folder lacks a file that a finished run leaves.
    """
    folder = Path(folder)
    missing = [name for name in ("run.json", FACTS, "manifest.json", "config.json") if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: no {missing[0]} there; expected the folder of a finished `gastrovl train`")
    config = TrainConfig.model_validate_json((folder / "run.json").read_text(encoding="utf-8"))
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    is_plain = not architecture.startswith("GastroVL")
    manifest, shown = read_manifest(folder), [score for score in scores if score.dataset == "all"]
    sections = [
        f"# {config.name}",
        f"**{NOTICE}**",
        _model(folder, config, facts, is_plain),
        _use(),
        _loading(architecture if is_plain else None, _coding(folder)),
        _training(folder, config, facts, manifest),
        _scores(shown, measured),
        _limits(),
        _licensing(config, facts),
        _citation(),
    ]
    text = _head(config, facts, shown, is_plain) + "\n\n".join(section.strip("\n") for section in sections) + "\n"
    write_text(folder / CARD, text)
    return folder / CARD


def _head(config: TrainConfig, facts: dict[str, Any], scores: Sequence[Score], is_plain: bool) -> str:
    bases = sorted({base for base in facts["base_models"].values() if _HUB_ID.match(base)})
    sources = sorted({source for file in facts["data"] for source in file["sources"]})
    results = [
        {
            "task": {"type": "image-text-to-text", "name": f"{score.task}, {score.metric}"},
            "dataset": {"type": "unknown", "name": f"{', '.join(sources)} ({score.split}, n={score.n})"},
            "metrics": [
                {
                    "type": _METRICS[score.metric],
                    "name": f"{score.task} {score.metric}",
                    "value": round(score.value, 4),
                }
            ],
        }
        for score in scores
        if score.value is not None and score.metric in _METRICS
    ]
    return yaml_block(
        {
            "language": ["en"],
            **licence_fields([config.licence or ""]),
            "library_name": "transformers" if is_plain else "gastrovl",
            "pipeline_tag": "image-text-to-text",
            "tags": ["medical", "endoscopy", "gastroscopy", "vision-language", "gastrovl"],
            **({"base_model": bases} if bases else {}),
            **({"datasets": sources} if sources else {}),
            **({"model-index": [{"name": config.name, "results": results}]} if results else {}),
        }
    )


def _model(folder: Path, config: TrainConfig, facts: dict[str, Any], is_plain: bool) -> str:
    card = json.loads((folder / "gastrovl.json").read_text(encoding="utf-8"))
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tower, language = about["vision_config"]["model_type"], about["text_config"]["model_type"]
    base = facts["base_models"]
    layout = f"`{about['model_type']}` layout, loads in plain transformers" if is_plain else "layout of this package"
    rows = [
        ["parameters", f"{_parameters(folder):,}"],
        ["vision encoder", f"{tower}, from {_from(config.start_from, base.get('vision'))}"],
        *_second_tower(about, config, base),
        ["language model", f"{language}, from {_from(config.start_from, base.get('language'))}"],
        ["image", f"{card['image_size_px']} x {card['image_size_px']} px, {card['image_tokens']} tokens"],
        ["files", f"safetensors, {layout}"],
    ]
    return (
        "## Model\n\nA vision-language model for upper-GI endoscopy, made with GastroVL. It answers questions about "
        f"one image at a time, in English.\n\n{_table(['', ''], rows)}"
    )


def _use() -> str:
    return (
        "## Intended use\n\nResearch on models that read endoscopic images: naming findings, finding them, describing "
        "images. Not for diagnosis, triage or any decision about a patient, and not for finding out who a patient is."
    )


def _coding(folder: Path) -> BoxCodingConfig:
    said = json.loads((folder / "gastrovl.json").read_text(encoding="utf-8"))
    return BoxCodingConfig.model_validate(said.get("box_coding", {}))


def _loading(plain: str | None, coding: BoxCodingConfig) -> str:
    own = (
        "```python\nfrom pathlib import Path\n\nfrom gastrovl.inference.predictor import Predictor\n\n"
        'predictor = Predictor.load(Path("this-folder"))\n'
        'print(predictor.ask(Path("image.jpg"), "What does the image show?").text)\n```'
    )
    ask = '`gastrovl ask this-folder image.jpg "What does the image show?"`'
    parts = [f"## How to load\n\nWith GastroVL, on the command line {ask}, or:", own]
    if plain:
        parts += [
            "With plain transformers:",
            f"```python\nfrom transformers import AutoProcessor, {plain}\n\n"
            f'model = {plain}.from_pretrained("this-folder")\n'
            'processor = AutoProcessor.from_pretrained("this-folder")\n```',
        ]
    else:
        parts.append("Its connector changes the number of image tokens, so plain transformers cannot load it.")
    parts.append(
        "A box in a question or an answer is `[x0,y0,x1,y1]` in steps from 0 to 999 of the image as it was before any "
        "resizing."
    )
    if coding != BoxCodingConfig():
        written = BoxCoding(coding).write_box(Box(x0=0.25, y0=0.5, x1=0.75, y1=1.0), (640, 480))
        parts.append(
            f"Inside the model boxes are written as {coding.kind}, which GastroVL translates: the middle of the lower "
            f"half of a picture of 640x480 px would be `{written}`. Other software meets them so."
        )
    return "\n\n".join(parts)


def _training(folder: Path, config: TrainConfig, facts: dict[str, Any], manifest: Manifest) -> str:
    log = folder / "log.jsonl"
    took = by_stage(read_log(log).entries) if log.is_file() else {}
    rows = []
    for number, stage in enumerate(config.stages, start=1):
        seconds = series_of(took.get(stage.name, []), ("train_runtime",)).get("train_runtime")
        rows.append(
            [
                f"{number} {stage.name}",
                ", ".join(stage.tasks),
                ", ".join(stage.trains),
                f"{stage.learning_rate:.1e}",
                f"{stage.epochs:g} epochs" if stage.epochs else f"{stage.steps} steps",
                f"{stage.global_images_per_step or stage.images_per_step * stage.accumulation}",
                f"{seconds[-1][1]:,.0f}" if seconds else UNKNOWN,
            ]
        )
    data = [
        [file["file"], file["conversations"], file["images"], ", ".join(file["sources"]), f"`{file['sha256'][:16]}`"]
        for file in facts["data"]
    ]
    settings = config.model_dump(mode="json", include={"augment", "seed", "precision", "max_length"})
    parts = [
        "## Training",
        _table(["stage", "tasks", "trains", "rate", "length", "images a step and device", "seconds"], rows),
        "Seconds are those of the last session of a stage; one that was interrupted took longer.",
        f"Hardware: {facts['hardware']}. {manifest.platform}; "
        f"{', '.join(f'{name} {version}' for name, version in manifest.libraries.items())}. "
        f"GastroVL {manifest.version}, finished {manifest.created}.",
        _table(["data", "conversations", "images", "sources", "SHA-256 begins"], data),
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```",
        f"SHA-256 of the whole configuration: `{hashlib.sha256((folder / 'run.json').read_bytes()).hexdigest()}`.",
    ]
    if (folder / f"{PICTURE}.png").is_file():
        parts.append(f"![Losses, validation scores and learning rate of the run]({PICTURE}.png)")
    return "\n\n".join(parts)


def _scores(scores: Sequence[Score], measured: datetime | None) -> str:
    if not scores:
        return "## Scores\n\nUnknown: no reply of this model was scored when this card was written."
    rows = []
    for score in scores:
        value = f"undefined: {score.reason or 'no reason given'}" if score.value is None else f"{100 * score.value:.1f}"
        if score.low is not None and score.high is not None:
            value += f" ({100 * score.low:.1f} to {100 * score.high:.1f})"
        rival = UNKNOWN if score.baseline is None else f"{100 * score.baseline:.1f} ({score.baseline_name})"
        if score.metric == "unparsed" or score.value is None:
            rival = "-"
        rows.append([score.task, score.metric, score.split, value, rival, score.n])
    when = f"Measured {measured.date().isoformat()}. " if measured else "Date of measurement: unknown. "
    return "\n\n".join(
        [
            "## Scores",
            f"{when}In percent; in brackets the 95 % interval, where one was made. Beside each stands the best trivial "
            "baseline, which looks at no image, or at a tiny copy only. `unparsed` is the share of replies that could "
            "not be read; they count as wrong. Scores of the validation split were watched during training.",
            _table(["task", "metric", "split", "score", "baseline", "n"], rows),
        ]
    )


def _limits() -> str:
    lines = [
        "The model can be wrong with a sure voice; its confidence is not calibrated.",
        "It may reproduce what it was trained on, and what its training data lacks it does not know.",
        "Unless a score above says so, it was not tested on other centres, devices or patients than those of its data.",
        f"How it does by age, sex and origin of patients: {UNKNOWN}.",
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licensing(config: TrainConfig, facts: dict[str, Any]) -> str:
    lines = [f"- weights: {config.licence or UNKNOWN + ', its maker did not say'}"]
    lines += [
        f"- base model {base}: {UNKNOWN} here; see its own card" for base in sorted(facts["base_models"].values())
    ]
    lines += [f"- data `{name}`: {licence or UNKNOWN}" for name, licence in sorted(facts["licences"].items())]
    if not facts["licences"]:
        lines.append(f"- training data: {UNKNOWN}, no manifest stands beside it")
    return "## Licences\n\nThe licences of data and base models may bind these weights.\n\n" + "\n".join(lines)


def _citation() -> str:
    return (
        "## Citation\n\nCite the sources of the data, as their own cards ask, and the paper whose tasks these are:\n\n"
        f"```bibtex\n{PAPER}\n```"
    )


def _licences(data: Path) -> dict[str, str]:
    """Sources and licences as the dataset's own manifest has them; empty where there is none."""
    try:
        content = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
        return {str(name): str(text) for name, text in content["licences"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _base(folder: str) -> str:
    """The Hub id of a local model, where its cache folder or its config tells one, else the folder's own name."""
    path = Path(folder)
    if cached := _CACHED.search(path.resolve().as_posix()):
        return f"{cached.group(1)}/{cached.group(2)}"
    try:
        named = json.loads((path / "config.json").read_text(encoding="utf-8")).get("_name_or_path", "")
    except (OSError, ValueError, AttributeError):
        named = ""
    return named if isinstance(named, str) and _HUB_ID.match(named) else path.name


def _second_tower(about: dict[str, Any], config: TrainConfig, base: dict[str, str]) -> list[list[str]]:
    told = about.get("second_tower")
    if not told:
        return []
    kind = told["config"]["model_type"]
    return [["second vision encoder", f"{kind}, from {_from(config.start_from, base.get('vision_2'))}"]]


def _from(start: str | None, base: str | None) -> str:
    if start:
        return f"the checkpoint `{Path(start).name}`"
    return f"`{base}`" if base else "random weights"


def _parameters(folder: Path) -> int:
    total = 0
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  the file is no mapping
                size = 1
                for side in tensors.get_slice(name).get_shape():
                    size *= side
                total += size
    return total


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
