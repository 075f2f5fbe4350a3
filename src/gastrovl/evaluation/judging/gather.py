"""Files of people's ratings and of judgements, of one or several judges, to one summary in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from gastrovl.core.errors import RecordError
from gastrovl.core.files import sha256_file, whole_folder
from gastrovl.core.manifest import write_manifest
from gastrovl.core.records import read_records
from gastrovl.core.types import Judgement, Rating
from gastrovl.evaluation.judging.cases import Rule, by_rules, read_cases, read_places
from gastrovl.evaluation.judging.judged import Judged
from gastrovl.evaluation.judging.report import write_report
from gastrovl.evaluation.judging.rubric import Rubric, rubrics_of
from gastrovl.evaluation.judging.summary import summarise


def summarise_files(
    conversations: Path,
    output: Path,
    *,
    ratings: Sequence[Path] = (),
    judgements: Sequence[Path] = (),
    predictions: Sequence[Path] = (),
    rubrics: Sequence[Rubric] = (),
    rule: Rule = by_rules,
    resamples: int = 1000,
    seed: int = 7,
    is_replaced: bool = False,
    now: datetime | None = None,
) -> Judged:
    """Write judged.json, judged.md, plots/*.png and manifest.json.

    Args:
        predictions: The replies that were rated, to compare ratings with the rules; may be left out.
        rubrics: Your own, as they were used.

    Raises:
        RecordError: A file is missing or broken, nothing was rated, or somebody rated a reply twice.
        ConfigError: There is no rubric for a task.
        MissingExtraError: matplotlib is not installed.
        OutputError: `output` cannot be written or holds something else.
    """
    people = [one for path in ratings for one in read_records(path, Rating)]
    judged_by = [one for path in judgements for one in read_records(path, Judgement)]
    if not people and not judged_by:
        raise RecordError("no rating and no judgement; give --ratings, --judgements, or both")
    _check_single(people, judged_by)
    groups, tasks = read_places(conversations)
    rated = {one.conversation_id for one in people} | {one.conversation_id for one in judged_by}
    by_task = rubrics_of(tuple(rubrics), {tasks[name] for name in rated if name in tasks})
    cases = read_cases(predictions, conversations, rule=rule) if predictions else []
    with whole_folder(Path(output), is_replaced=is_replaced) as folder:
        judged = summarise(
            judged_by,
            people,
            criteria=next(iter(by_task.values())).criteria if by_task else (),
            group_of=groups,
            task_of=tasks,
            rules={(case.id, name): found for case in cases for name, found in case.rules.items()},
            resamples=resamples,
            seed=seed,
        )
        write_report(folder, judged)
        roles = {"conversations": [conversations], "ratings": ratings, "judgements": judgements}
        files = [(role, Path(path)) for role, paths in (roles | {"predictions": predictions}).items() for path in paths]
        write_manifest(
            folder,
            stage="rate summary",
            config={"resamples": resamples, "rubrics": list(judged.rubrics)},
            seed=seed,
            inputs={f"{role} {number}: {path.name}": sha256_file(path) for number, (role, path) in enumerate(files)},
            now=now,
        )
    return judged


def _check_single(people: Sequence[Rating], judged_by: Sequence[Judgement]) -> None:
    """Nobody may count twice for the same reply, as when a file is given twice."""
    seen: set[tuple[object, ...]] = set()
    for one in people:
        key: tuple[object, ...] = (one.rater, one.conversation_id, one.model, one.is_repeat)
        if key in seen:
            raise RecordError(
                f"{one.rater} rated {one.model!r} on {one.conversation_id!r} twice in these files; give each file "
                "once, and let raters of different exports have different names"
            )
        seen.add(key)
    for judgement in judged_by:
        key = (judgement.judge, judgement.conversation_id, judgement.models, judgement.is_swapped, judgement.repeat)
        if key in seen:
            raise RecordError(
                f"{judgement.judge} judged {judgement.conversation_id!r} twice in these files in the same order; give "
                "each file once, and runs with other settings one at a time"
            )
        seen.add(key)
