"""A finished checkpoint to a copy in half precision: the model's own files and its card, nothing else of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gastrovl.core.errors import CheckpointError, OutputError
from gastrovl.core.files import whole_folder, write_text
from gastrovl.training.publishing.hub import sent_files

WEIGHTS = "model.safetensors"
_NARROW = {torch.float32, torch.float64, torch.bfloat16}


def write_half(folder: Path, output: Path, *, most_bytes: int | None = None) -> int:
    """Copy a checkpoint with its weights in float16; loading makes them float32 again where that is computed in.

    Integers stay as they are. Of float32's 24 bits of a weight 11 are kept, so each is off by a 2048th part at most.

    Args:
        most_bytes: Of the whole copy.

    Returns:
        Its size in bytes.

    Raises:
        CheckpointError: The folder is no finished checkpoint, its weights lie in several files, or one of them is too
            large for float16 (above 65504).
        OutputError: `output` holds files already, or the copy would be larger than `most_bytes`.
    """
    folder = Path(folder)
    names = sent_files(folder)[0]
    if WEIGHTS not in names:
        raise CheckpointError(f"{folder}: no {WEIGHTS} there; weights in several files are not halved")
    with whole_folder(Path(output)) as begun:
        for name in names:
            if name == WEIGHTS:
                _halve(folder / name, begun / name)
            elif name == "config.json":
                content = json.loads((folder / name).read_text(encoding="utf-8"))
                write_text(begun / name, json.dumps(_as_half(content), indent=2) + "\n")
            else:
                shutil.copyfile(folder / name, begun / name)
        size = sum(file.stat().st_size for file in begun.iterdir())
        if most_bytes is not None and size > most_bytes:
            raise OutputError(f"{output}: {size:,} bytes, and {most_bytes:,} are allowed; train a smaller model")
    return size


def _halve(source: Path, target: Path) -> None:
    tensors = {}
    with safe_open(source, framework="pt") as file:
        said = file.metadata()
        for name in file.keys():  # noqa: SIM118  the file is no mapping
            whole = file.get_tensor(name)
            tensors[name] = whole.to(torch.float16) if whole.dtype in _NARROW else whole
            if not torch.equal(tensors[name].isfinite(), whole.isfinite()):
                raise CheckpointError(
                    f"{source}: {name} holds {float(whole.abs().max()):.3g}, and float16 ends at 65504; keep the "
                    "checkpoint as it is"
                )
    save_file(tensors, target, metadata=said)
    target.chmod(0o644)


def _as_half(content: Any) -> Any:
    """A model's config with float16 as what its weights are stored in."""
    if isinstance(content, dict):
        halved = {"dtype": "float16", "torch_dtype": "float16"}
        return {key: halved[key] if key in halved and one else _as_half(one) for key, one in content.items()}
    return [_as_half(one) for one in content] if isinstance(content, list) else content
