"""The word `starter` in the place of a checkpoint to the folder of the small model that comes with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from gastrovl.core.errors import CheckpointError

STARTER = "starter"
REMARK = (
    "starter model, trained on colon polyps and drawn frames, to try the commands; "
    "not for upper-GI work, not for patients"
)
_NEEDED = "gastrovl.json"


def starter_folder() -> Path:
    """Where the package keeps the starter model, whether it is there or not."""
    return Path(str(resources.files("gastrovl") / STARTER))


def checkpoint_folder(given: Path) -> Path:
    """The folder that is meant: `starter` is the packaged model unless something has that name, all else itself.

    Raises:
        CheckpointError: `starter` is meant, and this installation has none.
    """
    given = Path(given)
    if given != Path(STARTER) or given.exists():
        return given
    folder = starter_folder()
    if not (folder / _NEEDED).is_file():
        raise CheckpointError(
            f"{STARTER}: there is no folder of this name here, and this installation lacks the starter model "
            f"({folder / _NEEDED}: no such file); install the package anew, or give the folder of a checkpoint"
        )
    return folder


def remark_of(given: Path) -> str | None:
    """What people have to be told of answers of the starter model; None of any other checkpoint."""
    given, own = checkpoint_folder(given), starter_folder()
    return REMARK if own.is_dir() and given.exists() and given.samefile(own) else None
