"""`gastrovl data`: image collections to a dataset folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gastrovl.cli.data_audit import audit
from gastrovl.cli.data_caption import caption
from gastrovl.cli.data_draw import draw
from gastrovl.cli.progress import progress_bar

app = typer.Typer(help="Build datasets: many sources to one set of records and conversations.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Build datasets: many sources to one set of records and conversations."""


def build(
    config: Annotated[Path, typer.Argument(help="YAML of the build, e.g. configs/data/real.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Dataset folder to make.")],
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder that the sources' roots are relative to.  [default: $GASTROVL_DATA]"),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting, e.g. --set seed=8; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier dataset in OUTPUT.")] = False,
    engine: Annotated[
        str, typer.Option(help="local, or ray: Ray Data, on the cluster that $RAY_ADDRESS names or on this machine.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=0, help="Processes at a time; 0: as many as there are cores.")] = 0,
) -> None:
    """Read the sources of CONFIG, check and divide them, and write records, conversations, images and a data card.

    Stopped or killed, it goes on when the same command is given again.
    """
    from gastrovl.core.config import load_config
    from gastrovl.core.files import partial_folder
    from gastrovl.data.build import BuildConfig, build_dataset
    from gastrovl.data.engines import Engine, usable_cores

    settings = load_config(config, BuildConfig, tuple(overrides or ()))
    chosen = Engine(engine, workers or usable_cores())
    try:
        with progress_bar() as show:
            build_dataset(settings, output, data_root=data_root, is_replaced=overwrite, engine=chosen, progress=show)
    except BaseException:
        if (partial := partial_folder(output)).is_dir():
            said = f"Kept: {partial} (what is done so far; the same command goes on from it, or delete it)"
            Console(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)
        raise
    _report(output, Console())


def sources(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
    template: Annotated[
        Path | None, typer.Option(help="Write the commented description of a private set to this YAML file and stop.")
    ] = None,
) -> None:
    """List the datasets whose descriptions come with the package: images, licence, access, and what can be fetched."""
    from gastrovl.data.catalogue import list_sources, write_template

    if template is not None:
        typer.echo(f"Description to fill in: {write_template(template)}")
        return
    rows = list_sources()
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table("name", "images", "licence", "access", "fetchable", title="Packaged sources")
    for row in rows:
        images = "" if row["images"] is None else f"{row['images']:,}"
        table.add_row(row["name"], images, row["licence"], row["access"], row["fetchable"])
    Console().print(table)


def fetch(
    name: Annotated[str, typer.Argument(help="A packaged source (`gastrovl data sources`), or the path of a YAML.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to fetch to; the `root` of a build config.")],
    accept_licence: Annotated[
        str, typer.Option(help="The source's name again, after reading its licence; without a terminal it is needed.")
    ] = "",
    keep_archives: Annotated[bool, typer.Option(help="Keep archives in OUTPUT/.downloads after unpacking.")] = False,
) -> None:
    """Download a source with resume and checksum, after its licence was confirmed; interrupted, run it again."""
    from gastrovl.data.fetch import fetch_source
    from gastrovl.data.source import load_source

    console = Console()
    description, _ = load_source(name)
    for line in (description.title, f"licence: {description.licence}", f"cite: {description.citation}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if description.downloads and not accept_licence and sys.stdin.isatty():
        asked = f"Do you accept this licence ({description.url or 'no page given'})?"
        accept_licence = description.name if typer.confirm(asked) else ""
    with progress_bar() as show:
        places = fetch_source(
            description, output, accepted_licence_of=accept_licence, progress=show, keeps_archives=keep_archives
        )
    for place in places:
        console.print(f"Fetched: {place}", markup=False, highlight=False, soft_wrap=True)
    if description.by_hand:
        console.print(f"Still to do by hand: {description.by_hand}", markup=False, highlight=False, soft_wrap=True)


def export(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder that `data build` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    format_name: Annotated[
        str,
        typer.Option(
            "--format", help="coco, voc, yolo, llava, coloninst, parquet, webdataset, lmms-eval or vlmevalkit."
        ),
    ],
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a file of parquet and webdataset, about.")] = 400,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in OUTPUT.")] = False,
) -> None:
    """Write DATASET in the format of another tool, with a source.yaml that reads it back, or in shards for training."""
    from gastrovl.data.exporters import export_dataset

    export_dataset(dataset, format_name, output, is_replaced=overwrite, shard_bytes=shard_mb * 10**6)
    said = "source.yaml reads it back" if (output / "source.yaml").is_file() else "README.md says how to read it"
    Console().print(f"Export: {output} ({said})", markup=False, highlight=False, soft_wrap=True)


def embed(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder that `data build` wrote.")],
    encoder: Annotated[Path, typer.Option(help="Folder of a Hugging Face vision encoder (SigLIP, CLIP, DINOv2, ViT).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.npy to write; the ids go to NAME.json.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    device: Annotated[str, typer.Option(help="As torch names it, e.g. cuda.")] = "cpu",
) -> None:
    """Embed the images of DATASET with a local encoder, so that a build can tie those that mean the same.

    Then build again with `quality: {embeddings: {file: NAME.npy}}`.
    """
    from gastrovl.core.records import read_records
    from gastrovl.core.types import Sample
    from gastrovl.data.formats.textlines import inside
    from gastrovl.inference.embed import embed_images, write_embeddings

    samples = list(read_records(dataset / "records.jsonl", Sample))
    paths = [inside(dataset, sample.image.path) for sample in samples]
    with progress_bar() as show:
        found = embed_images(
            paths,
            encoder,
            batch_size=batch_size,
            device=device,
            progress=lambda done, total: show("embedding images", done, total),
        )
    write_embeddings(output, [sample.id for sample in samples], found)
    said = f"Embeddings: {output} ({len(samples):,} images; quality.embeddings.file of a build)"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)


def frames(
    source: Annotated[Path, typer.Argument(help="Video or DICOM file, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    every: Annotated[float, typer.Option(help="Seconds between frames; 0 keeps all.")] = 1.0,
    as_jpeg: Annotated[bool, typer.Option("--jpeg", help="Write JPEG (quality 95) in the place of PNG.")] = False,
    allow_burned_in: Annotated[
        bool, typer.Option("--allow-burned-in", help="Take DICOM files that say text is burned into the pixels.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier frames in OUTPUT.")] = False,
) -> None:
    """Write frames of videos and DICOM files as images, with frames.csv: image, video, group, seconds, frame."""
    from gastrovl.data.frames import extract_frames

    with progress_bar() as show:
        done = extract_frames(
            source,
            output,
            every_seconds=every or None,
            image_format="jpg" if as_jpeg else "png",
            is_burned_in_allowed=allow_burned_in,
            is_replaced=overwrite,
            progress=show,
        )
    console = Console()
    if done.others:
        left_out = f"left out: {len(done.others):,} files that are no video and no DICOM, e.g. {done.others[0]}"
        console.print(left_out, markup=False, highlight=False, soft_wrap=True)
    said = f"Frames: {output} ({done.n_frames:,} of {done.n_inputs:,} files, listed in frames.csv)"
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def _report(folder: Path, console: Console) -> None:
    counts: dict[str, Any] = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    quality: dict[str, Any] = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    labels: list[dict[str, Any]] = json.loads((folder / "harmonised.json").read_text(encoding="utf-8"))["labels"]
    tasks = list(counts["table_1"]["train"])
    table = Table("split", "images", "groups", "boxes", *tasks, title="Images and conversations")
    for split, row in counts["splits"].items():
        numbers = [row["images"], row["groups"], row["boxes"], *(counts["table_1"][split][task] for task in tasks)]
        table.add_row(split, *(f"{number:,}" for number in numbers))
    console.print(table)
    for line in _left_out(quality, labels):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for split, row in counts["splits"].items():
        if not row["images"]:
            console.print(f"note: split {split} is empty: too few groups for its share", markup=False, highlight=False)
    console.print(
        f"Dataset: {folder} (read {folder / 'README.md'} first)", markup=False, highlight=False, soft_wrap=True
    )


def _left_out(quality: dict[str, Any], labels: list[dict[str, Any]]) -> list[str]:
    """One line for each kind of image that was left out."""
    lines = []
    for source, names in quality["excluded"].items():
        if names:
            found = [f"{row['label']} {row['images']:,}" for row in labels if row["source"] == source and row["reason"]]
            lines.append(f"left out: {source}: {len(names):,} images with excluded labels only ({', '.join(found)})")
    for source, names in quality["unannotated"].items():
        if names:
            lines.append(f"left out: {source}: {len(names):,} images without any annotation, e.g. {names[0]}")
    if quality["broken"]:
        first = quality["broken"][0]["path"]
        lines.append(f"left out: {len(quality['broken']):,} broken images, e.g. {first} (quality.json lists them)")
    if quality["excluded_by_fault"]:
        count = len(quality["excluded_by_fault"])
        lines.append(f"left out: {count:,} images by `quality.faults` (quality.jsonl says which and why)")
    if quality["dropped_by_official_split"]:
        count = len(quality["dropped_by_official_split"])
        lines.append(f"left out: {count:,} images whose group the official split parts (quality.json lists them)")
    return lines


for command in (sources, fetch, draw, frames, build, audit, caption, embed, export):  # in the order of the work
    app.command()(command)
