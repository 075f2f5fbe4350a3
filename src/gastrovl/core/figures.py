"""The look that all figures share, and figures to picture files of the same bytes each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gastrovl.core.errors import MissingExtraError
from gastrovl.core.files import atomic_path

TEAL = "#0b6e75"
RUST = "#c2571a"
OCHRE = "#9a7b1f"
PURPLE = "#7a4f9a"
GREY = "#6b7280"
INK = "#1f2937"
RULE = "#e5e7eb"  # grid lines
_DPI = 110


def new_figure(width: float, height: float, *, extra: str) -> Any:
    """An empty figure of that size in inches, apart from any global plotting state.

    Args:
        extra: The extra of this package that brings matplotlib to the caller.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f'matplotlib is not installed; figures need it: pip install "gastrovl[{extra}]"'
        ) from error
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path, kinds: Sequence[Literal["png", "svg"]] = ("png",)) -> list[Path]:
    """Write a figure to `path` with each kind as its ending; nothing in the files tells when or by what."""
    from matplotlib import rc_context

    hidden: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    written = []
    for kind in kinds:
        written.append(path.with_name(f"{path.name}.{kind}"))
        with atomic_path(written[-1]) as temporary, rc_context({"svg.hashsalt": "gastrovl"}):
            figure.savefig(temporary, format=kind, metadata=hidden[kind])
    return written


def hide_frame(axes: Any) -> None:
    """Take the upper and right edge of a chart away."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
