"""`gastrovl gate`: the results of a new model against those of the last good one, for a team's own CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from gastrovl.evaluation.comparing.gate import GateReport, Replies

REGRESSION = 1


def gate(
    results: Annotated[Path, typer.Argument(help="results.json of the new model, as `gastrovl evaluate` writes it.")],
    baseline: Annotated[Path, typer.Option(help="results.json of the last good model.")],
    config: Annotated[
        Path | None, typer.Option(help="Rules, as in configs/evaluate/gate.yaml.  [default: just those]")
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help="Replies behind RESULTS, to test drops.")] = None,
    baseline_predictions: Annotated[Path | None, typer.Option(help="Replies behind BASELINE.")] = None,
    conversations: Annotated[Path | None, typer.Option(help="The questions that both answer.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the checks as JSON.")] = None,
) -> None:
    """Fail where a score fell, vanished or lies under its trivial baseline.

    Exit code: 0 passed, 1 failed, 2 wrong input.
    """
    from gastrovl.core.config import load_config
    from gastrovl.evaluation.comparing.gate import GateConfig
    from gastrovl.evaluation.comparing.gate import gate as run_gate
    from gastrovl.evaluation.comparing.gatefiles import write_json, write_junit
    from gastrovl.evaluation.results import read_results

    rules = GateConfig() if config is None else load_config(config, GateConfig)
    replies = _replies(predictions, baseline_predictions, conversations)
    report = run_gate(read_results(results), read_results(baseline), rules, replies)
    _print(report, Console())
    if junit is not None:
        write_junit(junit, report)
    if as_json is not None:
        write_json(as_json, report)
    if not report.has_passed:
        raise typer.Exit(REGRESSION)


def _replies(predictions: Path | None, baseline_predictions: Path | None, conversations: Path | None) -> Replies | None:
    """The three files that a test of drops takes, or None when none of them is given.

    Raises:
        ConfigError: Only some of them are given.
    """
    from gastrovl.core.errors import ConfigError
    from gastrovl.evaluation.comparing.gate import Replies

    if predictions and baseline_predictions and conversations:
        return Replies(predictions, baseline_predictions, conversations)
    if predictions or baseline_predictions or conversations:
        raise ConfigError(
            "a test of drops takes --predictions, --baseline-predictions and --conversations together; name all three, "
            "or none to let the size of a drop decide"
        )
    return None


def _print(report: GateReport, console: Console) -> None:
    table = Table("check", "of", "", "found")
    colours = {"passed": "green", "failed": "red", "skipped": "yellow"}
    for one in report.checks:
        status = f"[{colours[one.status]}]{one.status}[/]"
        table.add_row(escape(one.what), escape(one.subject), status, escape(one.message))
    console.print(table)
    for one in report.failures:
        console.print(
            f"failed: {one.what}: {one.subject}: {one.message}", markup=False, highlight=False, soft_wrap=True
        )
    verdict = "passed" if report.has_passed else f"FAILED: {len(report.failures)} of {len(report.checks)} checks"
    console.print(f"gate {verdict}", markup=False, highlight=False)
