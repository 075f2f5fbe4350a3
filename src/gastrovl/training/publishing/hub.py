"""A finished checkpoint to a repository of the Hugging Face Hub: the model's own files and its card, nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gastrovl.core.errors import CheckpointError, MissingExtraError, OutputError

# What is sent.
_SENT = re.compile(
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|config\.json|generation_config\.json|"
    r"gastrovl\.json|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|"
    r"merges\.txt|chat_template\.jinja|preprocessor_config\.json|processor_config\.json|README\.md|training\.png"
)
# What a run leaves beside it: settings with paths of this machine, questions, replies and logs. It stays here.
_STAYS = ("run.json", "training.json", "manifest.json", "log.jsonl", "mlflow.db")
_STAYS_FOLDERS = ("tensorboard", "wandb", "validation", "mlruns")
_NEEDED = ("config.json", "gastrovl.json", "tokenizer.json")
_CARD = "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w")


@dataclass(frozen=True)
class Parcel:
    """What would be sent.

    Attributes:
        files: Names and sizes in bytes, sorted.
        stays: What lies in the folder and is not sent.
    """

    folder: Path
    repository: str
    files: tuple[tuple[str, int], ...]
    stays: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.files)

    def lines(self, is_private: bool) -> list[str]:
        """What is sent where, a line each, for a person to agree to."""
        kind = "private" if is_private else "PUBLIC, everybody can read it"
        return [
            f"to {self.repository} ({kind}), {len(self.files)} files, {_size(self.size_bytes)}:",
            *(f"  {name:<40} {_size(size):>10}" for name, size in self.files),
            *([f"stays here: {', '.join(self.stays)}"] if self.stays else []),
        ]


def pack(folder: Path, repository: str) -> Parcel:
    """Look through a checkpoint folder and say what would be sent; opens no connection.

    Raises:
        CheckpointError: The folder is no finished checkpoint, has no card, or holds something that is not known: an
            image, conversations, optimiser states, a pickle. Nothing is sent then.
        OutputError: `repository` is no "owner/name".
    """
    folder = Path(folder)
    if not _REPOSITORY.fullmatch(repository):
        raise OutputError(f"repository {repository!r}; expected the owner and a name, e.g. my-clinic/gastrovl-nano")
    names, stays = sent_files(folder)
    return Parcel(folder, repository, tuple((name, (folder / name).stat().st_size) for name in names), stays)


def sent_files(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a checkpoint's own files, and of what else a run left there; both sorted.

    Raises:
        CheckpointError: As `pack`.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    names = {entry.name for entry in entries}
    has_weights = any(name.endswith(".safetensors") for name in names)
    if missing := [name for name in _NEEDED if name not in names] + ([] if has_weights else ["model.safetensors"]):
        raise CheckpointError(f"{folder}: no {missing[0]} there; expected the folder of a finished `gastrovl train`")
    if _CARD not in names or not (folder / _CARD).read_text(encoding="utf-8").startswith("---\n"):
        raise CheckpointError(
            f"{folder / _CARD}: no model card with its YAML head; a model without a card is not sent. "
            "`gastrovl train` writes one at the end of a run"
        )
    files, stays, unknown = [], [], []
    for entry in entries:
        is_plain_file = entry.is_file() and not entry.is_symlink()
        if is_plain_file and _SENT.fullmatch(entry.name):
            files.append(entry.name)
        elif (is_plain_file and entry.name in _STAYS) or (entry.is_dir() and entry.name in _STAYS_FOLDERS):
            stays.append(entry.name)
        else:
            unknown.append(entry.name)
    if unknown:
        raise CheckpointError(
            f"{folder}: holds {', '.join(unknown[:5])}{' and more' if len(unknown) > 5 else ''}, which is no part of a "
            "checkpoint; nothing was sent. Move it elsewhere first: what was sent by mistake cannot be fetched back"
        )
    return tuple(files), tuple(stays)


def send(parcel: Parcel, *, is_private: bool = True, endpoint: str | None = None) -> str:
    """Create the repository where it is not there yet, and upload in one commit; returns its address.

    The token is the one you logged in to the Hub with. A repository that exists keeps its visibility.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        OutputError: The Hub refuses or cannot be reached, or a repository that should be private is public.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError as error:
        raise MissingExtraError('huggingface_hub is not installed: pip install "gastrovl[train]"') from error
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(parcel.repository, private=is_private, exist_ok=True, repo_type="model")
        if is_private and api.repo_info(parcel.repository, repo_type="model").private is False:
            raise OutputError(
                f"{parcel.repository} exists and is public; nothing was sent. Make it private there, name another one, "
                "or pass --public"
            )
        commit = api.upload_folder(
            repo_id=parcel.repository,
            folder_path=parcel.folder,
            allow_patterns=[name for name, _ in parcel.files],
            commit_message="Upload a GastroVL checkpoint",
            repo_type="model",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        raise OutputError(
            f"{parcel.repository}: the Hub did not take it ({str(error).strip().splitlines()[0]}); check the name and "
            "your rights there, and log in with `hf auth login`"
        ) from error
    return str(commit.repo_url)


def push(
    folder: Path, repository: str, *, is_private: bool, agrees: Callable[[], bool], say: Callable[[str], None]
) -> str | None:
    """Show what would be sent, ask, and send; None when the answer was no.

    Raises:
        As `pack` and `send`.
    """
    parcel = pack(folder, repository)
    for line in parcel.lines(is_private):
        say(line)
    return send(parcel, is_private=is_private) if agrees() else None


def _size(size_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"
