"""The split that a source publishes, from a table's column, lists of names or the path, in our three words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Split
from gastrovl.data.formats.textlines import numbered_rows, require_file
from gastrovl.data.images import ImageFile
from gastrovl.data.source import OfficialSplit


def official_splits(
    images: Sequence[ImageFile], said: Sequence[str | None], rule: OfficialSplit | None, root: Path
) -> list[Split | None]:
    """The official split of each image, or None where the source gives none.

    Args:
        said: What a split column of the annotations says of each image.
        rule: The source's `official_split`.
        root: The source's folder, in which lists of names lie.

    Raises:
        SourceError: A list is missing, an image is in two lists, or a word for a split is not known.
    """
    rule = rule or OfficialSplit()
    listed = _read_lists(rule, root)
    splits: list[Split | None] = []
    for image, word in zip(images, said, strict=True):
        where = str(image.path)
        if word is None and rule.pattern:
            match = re.search(rule.pattern, image.name)
            word = match.groupdict().get("split") if match else None
        if word is not None:
            splits.append(_translate(word, rule, where))
        else:
            splits.append(listed.get(image.name) or listed.get(image.key) or listed.get(image.stem))
    return splits


def _read_lists(rule: OfficialSplit, root: Path) -> dict[str, Split]:
    listed: dict[str, Split] = {}
    for split, file in rule.lists.items():
        for where, name in numbered_rows(require_file(root / file)):
            for key in {name, str(PurePosixPath(name).with_suffix(""))}:
                if listed.get(key, split) is not split:
                    raise SourceError(
                        f"{where}: {name!r} is also listed for {listed[key].value}; expected each image in one split. "
                        "Delete one of the two lines"
                    )
                listed[key] = split
    return listed


def _translate(word: str, rule: OfficialSplit, where: str) -> Split:
    if word in rule.names:
        return rule.names[word]
    try:
        return Split(word.lower())
    except ValueError as error:
        raise SourceError(
            f"{where}: found split {word!r}, expected train, val or test; add it to `official_split.names` in the "
            f"source description, e.g. `{word}: val`"
        ) from error
