"""Replies and a judge model to judgements on disk: rated one by one, or two models' replies compared, each both ways.

Everything the judge says is a line of `asked.jsonl` in the output folder before it counts; killed, the same command
reads those lines and asks for the rest. All other files of the folder follow from that one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.endpoint import ChatEndpoint, UnusableReplyError, image_part, text_part
from gastrovl.core.errors import ImageError, OutputError
from gastrovl.core.files import sha256_file
from gastrovl.core.images import open_image
from gastrovl.core.manifest import read_manifest, write_manifest
from gastrovl.core.records import write_records
from gastrovl.core.types import Judgement, Rating, Task
from gastrovl.evaluation.judging.asking import Ask, Outcome, Request, ask_all
from gastrovl.evaluation.judging.cases import Case, Rule, by_rules, choose, read_cases, with_dialogue
from gastrovl.evaluation.judging.judged import Judged
from gastrovl.evaluation.judging.prompts import compare_prompt, rate_prompt
from gastrovl.evaluation.judging.report import write_report
from gastrovl.evaluation.judging.rubric import Rubric, rubrics_of
from gastrovl.evaluation.judging.summary import summarise
from gastrovl.evaluation.judging.verdicts import UnusableVerdictError, read_preference, read_scores

CACHE = "asked.jsonl"
Progress = Callable[[str, int, int], None]


class JudgeOptions(Config):
    """What is judged.

    Attributes:
        tasks: None: those with free text.
        questions: Of each task at most so many, drawn by `seed` in proportion to the datasets.
        repeats: How often each thing is asked in each order.
        with_image: The judge sees the image, scaled down to `most_side_px` on its longer side.
        resamples: Draws of the bootstrap behind the intervals.
    """

    tasks: tuple[Task, ...] | None = None
    questions: int = Field(default=100, ge=1)
    repeats: int = Field(default=1, ge=1, le=20)
    seed: int = 7
    with_image: bool = False
    most_side_px: int = Field(default=1024, ge=64)
    resamples: int = Field(default=1000, ge=0)


@dataclass(frozen=True)
class JudgeModel:
    """A model that judges.

    Attributes:
        ask_of: Repeat to a function from image (or None) and prompt to words; called by several threads.
        sampling: What else decides its replies, such as the seed and the longest reply.
    """

    name: str
    ask_of: Callable[[int], Ask]
    sampling: Mapping[str, int | str]


@dataclass(frozen=True)
class _Job:
    case: Case
    rubric: Rubric
    models: tuple[str, ...]
    is_swapped: bool
    request: Request


def through_endpoint(endpoint: ChatEndpoint) -> Ask:
    """A server as a function from image (or None) and prompt to words."""

    def ask(image: Image.Image | None, prompt: str) -> str:
        parts = [*([] if image is None else [image_part(image)]), text_part(prompt)]
        reply = endpoint.chat([{"role": "user", "content": parts}])
        if reply.is_cut:
            raise UnusableReplyError("the reply was cut at the token limit; raise --max-tokens")
        return reply.text

    return ask


def judge_predictions(
    predictions: Path,
    conversations: Path,
    output: Path,
    model: JudgeModel,
    *,
    against: Path | None = None,
    rubrics: Sequence[Rubric] = (),
    options: JudgeOptions | None = None,
    ratings: Sequence[Rating] = (),
    rule: Rule = by_rules,
    workers: int = 1,
    retries_failures: bool = False,
    is_replaced: bool = False,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> Judged:
    """Rate a model's replies, or compare them with those of `against`, and write what was found.

    Writes asked.jsonl (the cache), judgements.jsonl, judged.json, judged.md, plots/*.png and manifest.json.

    Args:
        rubrics: Your own, in the place of the packaged ones for their tasks.
        ratings: Of people, to compare the judge with; those of other replies are left out.
        rule: What the rules say of a reply, in [0, 1], to compare the judge with.
        retries_failures: Ask again where an earlier run got nothing usable.
        is_replaced: Replace the results of another choice of options in `output`; its cache stays.

    Raises:
        RecordError, PredictionError: A file is missing or broken, or replies do not fit the questions.
        ConfigError: A rubric is malformed, or there is none for a task.
        EndpointError: The judge cannot be reached; what was done is kept.
        OutputError: `output` holds something else, or another run is writing it.
        MissingExtraError: matplotlib is not installed.
    """
    options, output = options or JudgeOptions(), Path(output)
    files = [Path(predictions), *([Path(against)] if against else [])]
    every = read_cases(files, conversations, rule=rule)
    chosen = choose(every, tasks=options.tasks, most=options.questions, seed=options.seed)
    cases = with_dialogue(chosen, conversations)
    by_task = rubrics_of(tuple(rubrics), {one.task for one in cases})
    jobs = _jobs(cases, by_task, Path(conversations).parent, model, options)
    config = _config(files, conversations, by_task, model, options)
    _claim(output, config, is_replaced=is_replaced)
    outcomes, _ = ask_all(
        [job.request for job in jobs],
        output / CACHE,
        model.ask_of,
        workers=workers,
        retries_failures=retries_failures,
        show=lambda path: _shown(path, options.most_side_px),
        progress=None if progress is None else lambda done, total: progress("judging", done, total),
    )
    judgements = [_judgement(job, outcomes[job.request.sha256], model.name) for job in jobs]
    write_records(output / "judgements.jsonl", judgements)
    replies = {case.id: case.replies for case in cases}
    judged = summarise(
        judgements,
        [one for one in ratings if one.model in replies.get(one.conversation_id, ())],
        criteria=next(iter(by_task.values())).criteria,
        group_of={case.id: case.group for case in every},
        task_of={case.id: case.task for case in every},
        rules={(case.id, name): found for case in cases for name, found in case.rules.items()},
        resamples=options.resamples,
        seed=options.seed,
    )
    write_report(output, judged)
    inputs = {f"{role}: {path.name}": sha256_file(path) for role, path in _roles(files, conversations).items()}
    write_manifest(output, stage="judge", config=config, seed=options.seed, inputs=inputs, now=now)
    return judged


def _jobs(
    cases: Sequence[Case], rubrics: Mapping[Task, Rubric], root: Path, model: JudgeModel, options: JudgeOptions
) -> list[_Job]:
    """All that is to be asked: every case in both orders, as often as is wanted."""
    jobs = []
    for case in cases:
        names = tuple(case.replies)
        groups = [names] if len(names) == 2 else [(name,) for name in names]
        for models in groups:
            for is_swapped in (False, True):
                for repeat in range(options.repeats):
                    request = _request(case, rubrics[case.task], models, is_swapped, repeat, root, model, options)
                    jobs.append(_Job(case, rubrics[case.task], models, is_swapped, request))
    return jobs


def _request(
    case: Case,
    rubric: Rubric,
    models: tuple[str, ...],
    is_swapped: bool,
    repeat: int,
    root: Path,
    model: JudgeModel,
    options: JudgeOptions,
) -> Request:
    about = rubric, case.question, case.reference
    replies = [case.replies[name] for name in models]
    if len(replies) == 2:
        pair = (replies[0], replies[1])
        prompt = compare_prompt(*about, pair, is_swapped=is_swapped, has_image=options.with_image)
    else:
        prompt = rate_prompt(*about, replies[0], is_swapped=is_swapped, has_image=options.with_image)
    parts = {
        "prompt": prompt,
        "rubric": rubric.tag,
        "judge": model.name,
        "sampling": dict(model.sampling),
        "repeat": repeat,
        "image": [case.image_sha256, options.most_side_px] if options.with_image else None,
    }

    def fault_of(text: str) -> str | None:
        try:
            _read(text, rubric, len(models))
        except UnusableVerdictError as error:
            return f"unusable: {error}"
        return None

    return Request(
        sha256=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        prompt=prompt,
        repeat=repeat,
        image=_inside(root, case.image) if options.with_image else None,
        fault_of=fault_of,
    )


def _read(text: str, rubric: Rubric, models: int) -> dict[str, Any]:
    """The fields of a judgement that a reply of the judge gives."""
    if models == 2:
        better, reason = read_preference(text)
        return {"better": better, "comment": reason}
    scores, reason = read_scores(text, rubric)
    return {"scores": scores, "comment": reason}


def _judgement(job: _Job, outcome: Outcome, judge: str) -> Judgement:
    found = {"failure": outcome.failure} if outcome.failure else _read(outcome.text, job.rubric, len(job.models))
    return Judgement(
        conversation_id=job.case.id,
        models=job.models,
        judge=judge,
        rubric=job.rubric.tag,
        is_swapped=job.is_swapped,
        repeat=job.request.repeat,
        request_sha256=job.request.sha256,
        **found,
    )


def _shown(path: Path, most_side_px: int) -> Image.Image:
    image = open_image(path)
    image.thumbnail((most_side_px, most_side_px), Image.Resampling.LANCZOS)
    image.info.clear()  # a JPEG's comment would be sent along, and may hold a name
    return image


def _inside(root: Path, path: str) -> Path:
    found = (root / path).resolve()
    if not found.is_relative_to(root.resolve()):
        raise ImageError(f"{path}: leads out of {root}; expected an image of the dataset folder. Build it again")
    return found


def _roles(files: Sequence[Path], conversations: Path) -> dict[str, Path]:
    named = {"predictions": files[0], "conversations": Path(conversations)}
    return named | ({"against": files[1]} if len(files) > 1 else {})


def _config(
    files: Sequence[Path],
    conversations: Path,
    rubrics: Mapping[Task, Rubric],
    model: JudgeModel,
    options: JudgeOptions,
) -> dict[str, Any]:
    """All that decides the results, in the form in which a manifest keeps it."""
    return {
        **{role: path.name for role, path in _roles(files, conversations).items()},
        "judge": model.name,
        "sampling": dict(model.sampling),
        "rubrics": {task.value: rubric.tag for task, rubric in sorted(rubrics.items())},
        **options.model_dump(mode="json"),
    }


def _claim(output: Path, config: dict[str, Any], *, is_replaced: bool) -> None:
    """Refuse a folder that holds something else than an earlier start of this very run.

    Raises:
        OutputError: It does.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; expected a folder. Choose another -o")
    if (output / "manifest.json").is_file():
        earlier = read_manifest(output).config
        changed = sorted(key for key in earlier.keys() | config.keys() if earlier.get(key) != config.get(key))
        if changed and not is_replaced:
            raise OutputError(
                f"{output} holds judgements of a run with another {', '.join(changed)}; choose another -o, or pass "
                "--overwrite to replace them (replies of the judge are kept, and none is asked for twice)"
            )
    elif output.is_dir() and any(output.iterdir()) and not (output / CACHE).is_file():
        raise OutputError(f"{output} holds files that are not of `gastrovl judge`; choose another -o")
