"""Image files of conversations to squares, decoded once as far as memory goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.errors import ImageError
from gastrovl.core.files import sha256_file
from gastrovl.core.images import open_image
from gastrovl.core.parallel import in_order
from gastrovl.model.processor import GastroVLProcessor

Told = Callable[[int, int], None]  # (done, all)


class ImageStore:
    """Images of conversation files as squares in memory, up to `memory_mb` (2^20 bytes); None keeps all.

    The first that come are kept and none is dropped for another: an epoch asks for every image once, so a store that
    dropped the oldest would never have the one that is asked for.
    """

    def __init__(self, folder: Path, side: int, processor: GastroVLProcessor, memory_mb: int | None = None) -> None:
        self.folder, self.side, self.processor = folder, side, processor
        self._most = None if memory_mb is None else memory_mb * 2**20 // (3 * side * side)
        self._squares: dict[str, NDArray[np.uint8]] = {}
        self._digests: dict[str, str] = {}

    def load(self, paths: Sequence[str], progress: Told | None = None) -> None:
        """Decode `paths`, also those that are not kept: a broken one is found now. `progress` is told (done, all)."""
        for number, _ in enumerate(in_order(self.square, paths), start=1):
            if progress:
                progress(number, len(paths))

    def hash(self, paths: Sequence[str], progress: Told | None = None) -> None:
        """Take the digests of `paths` without decoding one; `progress` is told (done, all)."""
        for number, _ in enumerate(in_order(self.digest, paths), start=1):
            if progress:
                progress(number, len(paths))

    def square(self, path: str) -> NDArray[np.uint8]:
        """The image as uint8 (side, side, 3).

        Raises:
            ImageError: It is missing or broken.
        """
        kept = self._squares.get(path)
        if kept is not None:
            return kept
        square = self.processor.square(open_image(self.folder / path), self.side)
        if self._most is None or len(self._squares) < self._most:
            self._squares[path] = square
        return square

    def digest(self, path: str) -> str:
        """SHA-256 of the file that lies there: of a scaled or masked copy not what its conversations say.

        Raises:
            ImageError: It is missing or empty.
        """
        if path not in self._digests:
            file = self.folder / path
            if not file.is_file():
                raise ImageError(f"{file}: no such image")
            if file.stat().st_size == 0:
                raise ImageError(f"{file}: the file is empty (0 bytes); copy it again from its source")
            self._digests[path] = sha256_file(file)
        return self._digests[path]
