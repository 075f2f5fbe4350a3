"""`gastrovl data audit`: folders of images to a verdict on leaks, and a page of the worst pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gastrovl.cli.progress import progress_bar

if TYPE_CHECKING:
    from gastrovl.data.audit import AuditReport

LEAK_FOUND = 1


def audit(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Made by `data build`, or any folder of images.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make, with audit.html and audit.json.")
    ] = None,
    likeness: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=1.0, help="Least likeness of two images that counts as a copy; the result names the default."
        ),
    ] = None,
    masks: Annotated[
        bool, typer.Option("--masks", help="Also take pictures in folders named masks, annotations and the like.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option(help="Show small copies of the images on the page; --no-pictures names them only.")
    ] = True,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="Exit with code 1 when a leak is found.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print audit.json instead of tables.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier audit in OUTPUT.")] = False,
) -> None:
    """Find images that are copies of each other, and say which of them leak from one split or folder into another.

    A folder with records.jsonl is read by its records. In any other, the names of folders are read:
    train, val and test (or alike) are splits, and the folder next to an image is its label.
    """
    from gastrovl.core.files import whole_folder
    from gastrovl.core.manifest import write_manifest
    from gastrovl.data.audit import audit_folders, report_json, write_audit
    from gastrovl.data.audit.folders import title_of
    from gastrovl.data.audit.run import digests
    from gastrovl.data.copies import CopyOptions

    options = CopyOptions() if likeness is None else CopyOptions(likeness=likeness)
    with progress_bar() as show:
        if output is None:
            report, _ = audit_folders(folders, options=options, takes_annotations=masks, progress=show)
        else:
            with whole_folder(output, is_replaced=overwrite) as made:
                report, images = audit_folders(folders, options=options, takes_annotations=masks, progress=show)
                write_audit(made, report, images, title=title_of(folders), has_pictures=pictures, progress=show)
                config = {
                    "folders": [str(folder) for folder in folders],
                    "copies": options.model_dump(mode="json"),
                    "masks": masks,
                    "pictures": pictures,
                }
                write_manifest(made, stage="data audit", config=config, seed=None, inputs=digests(images))
    if as_json:
        typer.echo(report_json(report), nl=False)
    else:
        _print(report, output, Console())
    if fail_on_leak and report.has_leak:
        raise typer.Exit(LEAK_FOUND)


def _print(report: AuditReport, output: Path | None, console: Console) -> None:
    table = Table("place", title="Images and copies")
    for name in ("images", "with a copy inside", "with a copy elsewhere"):
        table.add_column(name, justify="right")
    for one in report.places:
        table.add_row(one.name, *(f"{n:,}" for n in (one.images, one.copies_inside, one.copies_elsewhere)))
    console.print(table)
    lines = [f"note: {note}" for note in report.notes]
    if report.unread:
        first = report.unread[0]
        lines.append(f"not read: {len(report.unread):,} file(s), e.g. {first.path}: {first.reason}")
    if report.pairs_labelled_differently:
        lines.append(f"labels: {report.pairs_labelled_differently:,} pairs of copies are labelled differently")
    lines.append(report.verdict)
    page = "-o FOLDER writes a page of the pairs to look at" if output is None else f"Page: {output / 'audit.html'}"
    for line in (*lines, page):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
