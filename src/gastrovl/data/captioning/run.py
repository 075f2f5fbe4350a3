"""A dataset folder and a model that describes images to captions.jsonl: checked, asked again, resumable at any moment.

Every finished caption is a line of `<output>.partial` before the next one begins. Killed, the same command reads those
lines and asks for the others only; the finished file is in order of sample ids and says nothing of time.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO

from PIL import Image
from pydantic import Field

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import records
from gastrovl.core.config import Config
from gastrovl.core.endpoint import UnusableReplyError
from gastrovl.core.errors import EndpointError, OutputError, RecordError
from gastrovl.core.images import open_image
from gastrovl.core.types import Caption, Sample, Split, Verdict
from gastrovl.data.captioning.check import CheckOptions, check_caption
from gastrovl.data.captioning.facts import Facts
from gastrovl.data.captioning.prompts import Template, request_prompt, retry_prompt
from gastrovl.data.formats.textlines import inside

MOST_UNANSWERED = 20  # in a row; then something is wrong with the model and not with the images
Describe = Callable[[Image.Image, str], str]


class CaptionOptions(Config):
    """What is asked for, and how often.

    Attributes:
        splits: Whose images are captioned. A build words training captions only by a model: a test is not scored
            against another model's words.
        attempts: How often a model is asked about one image, the first time included; each later prompt says what was
            wrong.
        most_side_px: Images are scaled down to this longer side before they are shown.
        limit: At most so many images, the first by id.
        check: What counts as wrong.
        gives_up: Write images without a usable reply as rejected, in the place of stopping before the file is written.
    """

    splits: tuple[Split, ...] = (Split.TRAIN,)
    attempts: int = Field(default=2, ge=1, le=8)
    most_side_px: int = Field(default=1024, ge=64)
    limit: int | None = Field(default=None, ge=1)
    check: CheckOptions = CheckOptions()
    gives_up: bool = False


@dataclass(frozen=True)
class CaptionRun:
    """What a run did.

    Attributes:
        captions: All lines of the file.
        asked: Images that were asked about now; the others had been before.
        unanswered: Sample ids and why there was no reply, written as rejected.
    """

    captions: tuple[Caption, ...]
    asked: int
    unanswered: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    sample: Sample
    prompt: str
    request_sha256: str


@dataclass(frozen=True)
class _Asker:
    """Everything that is the same for all images."""

    root: Path
    describe: Describe
    model: str
    template: Template
    taxonomy: Taxonomy
    options: CaptionOptions

    def caption(self, job: _Job) -> Caption:
        """Ask until a caption passes, or the attempts are over.

        Raises:
            UnusableReplyError, EndpointError, ImageError, SourceError: As `describe` and the image give cause.
        """
        sample, options = job.sample, self.options
        if not Facts.of(sample, self.taxonomy).stated:
            return self.rejected(job, "missing finding: the record states nothing", 0)
        image = open_image(inside(self.root, sample.image.path))
        image.thumbnail((options.most_side_px, options.most_side_px), Image.Resampling.LANCZOS)
        prompt = job.prompt
        attempts = 0
        while True:
            attempts += 1
            reply = self.describe(image, prompt)
            checked = check_caption(reply, sample, self.taxonomy, options.check)
            reasons = tuple(dict.fromkeys(str(one) for one in checked.found))
            if checked.verdict is not Verdict.REJECTED or attempts == options.attempts:
                return self._line(job, checked.verdict, checked.text, reasons, attempts)
            prompt = retry_prompt(self.template, sample, self.taxonomy, reply, reasons)

    def rejected(self, job: _Job, reason: str, attempts: int) -> Caption:
        return self._line(job, Verdict.REJECTED, None, (reason,), attempts)

    def _line(self, job: _Job, verdict: Verdict, text: str | None, reasons: tuple[str, ...], attempts: int) -> Caption:
        return Caption(
            sample_id=job.sample.id,
            image_sha256=job.sample.image.sha256,
            text=text,
            verdict=verdict,
            reasons=reasons,
            attempts=attempts,
            model=self.model,
            template=self.template.name,
            template_sha256=self.template.sha256,
            request_sha256=job.request_sha256,
        )


def caption_dataset(
    dataset: Path,
    output: Path,
    describe: Describe,
    *,
    model: str,
    template: Template,
    options: CaptionOptions | None = None,
    sampling: Mapping[str, int | str] | None = None,
    workers: int = 1,
    is_replaced: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CaptionRun:
    """Caption the images of a built dataset; interrupted, the same call goes on where it stopped.

    A file that is there already serves as a cache: what was asked in the same words is not asked again.

    Args:
        describe: An RGB image and a prompt to a reply; called by `workers` threads at once.
        model: Its name, for the file.
        sampling: Further settings that change a reply, such as a seed; other values, another request.
        is_replaced: Drop captions of `output` that this run does not ask for.
        progress: Called with (captions done, captions in all).

    Raises:
        OutputError: `output` holds captions that this run would drop, or another run is writing it.
        RecordError: The dataset has no records or a line is broken; or the partial file is.
        EndpointError: The model cannot be reached, or some images got no usable reply. What was done is kept.
        ImageError, SourceError: An image is broken, or lies outside the dataset.
    """
    options, output, taxonomy = options or CaptionOptions(), Path(output), Taxonomy.load()
    asker = _Asker(Path(dataset), describe, model, template, taxonomy, options)
    jobs = _jobs(asker, dict(sampling or {}))
    done = _known(output, {job.request_sha256 for job in jobs}, is_replaced=is_replaced)
    partial = output.with_name(output.name + ".partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a", encoding="utf-8") as stream:
        _lock(stream, partial)
        try:
            done |= _read_partial(partial)
            left = [job for job in jobs if job.request_sha256 not in done]
            unanswered = _ask_all(asker, left, done, stream, workers, len(jobs), progress)
        finally:
            if not partial.stat().st_size:
                partial.unlink()
    if unanswered and not options.gives_up:
        sample, reason = next(iter(unanswered.items()))
        raise EndpointError(
            f"{len(unanswered)} of {len(jobs)} images got no usable reply, e.g. {sample}: {reason}. The others are "
            f"kept in {partial}: run the same command again, or pass --give-up to write these as rejected"
        )
    for job in jobs:
        if job.sample.id in unanswered:
            done[job.request_sha256] = asker.rejected(job, f"no reply: {unanswered[job.sample.id]}", options.attempts)
    captions = tuple(done[job.request_sha256] for job in jobs)
    records.write_records(output, captions)
    partial.unlink(missing_ok=True)
    return CaptionRun(captions, len(left), unanswered)


def _jobs(asker: _Asker, sampling: dict[str, int | str]) -> list[_Job]:
    """What is to be asked, in order of sample ids; each sample's request has a hash of its own."""
    path = asker.root / "records.jsonl"
    options = asker.options
    samples = sorted(records.read_records(path, Sample), key=lambda one: one.id)
    chosen = [sample for sample in samples if sample.split in options.splits][: options.limit]
    if not chosen:
        raise RecordError(f"{path}: holds no record of the splits {', '.join(options.splits)}; choose another --split")
    twice = next((a.id for a, b in pairwise(chosen) if a.id == b.id), None)
    if twice is not None:
        raise RecordError(f"{path}: sample {twice!r} stands there twice; build the dataset again")
    same = {
        "model": asker.model,
        "template": asker.template.sha256,
        "sampling": sampling,
        "options": options.model_dump(mode="json", include={"attempts", "most_side_px", "check"}),
    }
    jobs = []
    for sample in chosen:
        prompt = request_prompt(asker.template, sample, asker.taxonomy)
        parts = {**same, "sample": sample.id, "image": sample.image.sha256, "prompt": prompt}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        jobs.append(_Job(sample, prompt, digest))
    return jobs


def _known(output: Path, wanted: set[str], *, is_replaced: bool) -> dict[str, Caption]:
    """Captions of an earlier, finished file, by request."""
    if not output.exists():
        return {}
    found = {caption.request_sha256: caption for caption in records.read_records(output, Caption)}
    dropped = [caption.sample_id for request, caption in found.items() if request not in wanted]
    if dropped and not is_replaced:
        raise OutputError(
            f"{output}: holds {len(dropped)} captions that this run does not ask for (another model, prompt, record or "
            f"choice of images), e.g. of {dropped[0]}; choose another -o, or pass --overwrite to drop them"
        )
    return {request: caption for request, caption in found.items() if request in wanted}


def _lock(stream: IO[str], partial: Path) -> None:
    """Hold the partial file until it is closed or the process dies, so that two runs do not ask for the same images."""
    try:
        import fcntl
    except ImportError:  # Windows, where nothing holds it
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{partial}: another run is writing it; wait for its end, or choose another -o") from error
    except OSError:  # a file system without locks
        return


def _read_partial(partial: Path) -> dict[str, Caption]:
    """Captions of an interrupted run, by request; a last line that was cut in the middle is removed from the file."""
    if not partial.is_file():
        return {}
    content = partial.read_bytes()  # cut first, decoded then: the cut may lie within a letter
    whole = content[: content.rfind(b"\n") + 1]
    found = {}
    for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], start=1):
        caption = records.from_line(line, Caption, f"{partial}:{number}")
        found[caption.request_sha256] = caption
    if whole != content:
        partial.write_bytes(whole)
    return found


def _ask_all(
    asker: _Asker,
    jobs: Iterable[_Job],
    done: dict[str, Caption],
    stream: IO[str],
    workers: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Fill `done` and the partial file; the sample ids that got no usable reply, with the reason."""
    jobs = list(jobs)
    lock = threading.Lock()

    def work(job: _Job) -> Caption:
        caption = asker.caption(job)
        with lock:  # written where it was made, so that nothing finished waits for another thread
            stream.write(records.to_line(caption) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        return caption

    unanswered: dict[str, str] = {}
    in_a_row, before = 0, total - len(jobs)
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                job = futures[future]
                try:
                    done[job.request_sha256] = future.result()
                    in_a_row = 0
                except UnusableReplyError as error:
                    unanswered[job.sample.id] = str(error)
                    in_a_row += 1
                    if in_a_row >= MOST_UNANSWERED:
                        raise EndpointError(
                            f"{in_a_row} images in a row got no usable reply, the last one: {error}. Mend the model or "
                            "its server, then run the same command again; it goes on where it stopped"
                        ) from error
                if progress:
                    progress(before + number, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return dict(sorted(unanswered.items()))
