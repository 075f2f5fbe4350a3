"""A training view to the same view with one more lesion in it: of a rare term, cut by its mask from another image.

Copy-paste (Ghiasi et al., CVPR 2021) between frames of one source, where the frame is known not to show the term.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from gastrovl.core import geometry
from gastrovl.core.types import Box, Conversation, Task
from gastrovl.model.grounding import UNKNOWN
from gastrovl.training.config import AugmentConfig
from gastrovl.training.rows.augment import View, draw_view
from gastrovl.training.rows.grounding import RowTargets, TermIndex, cells_inside
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.perception import MOST_PAIRS, RowPerception

TRIES = 20  # places for a lesion, before another one is drawn
DONORS = 4  # lesions, before a frame is left as it is
SMALLEST = (
    0.5  # of a lesion's side, as a share of what it was: many fill their own frame, and few frames have such room
)
LARGEST = 0.25  # of a pasted box, as a share of the frame
RING = 4  # pixels around a lesion whose mean colour is that of the mucosa it lies in
DARK = 30  # brightest channel of a pixel that shows no mucosa: the black around a frame, a lumen
MOST_DARK = 0.02  # share of such pixels in a lesion and around it, and where it is pasted
MOST_SHIFT = 35.0  # levels of a colour channel: beyond, two frames are lit too differently to share a lesion

Pixels = NDArray[np.uint8]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Donor:
    """A lesion that may be pasted.

    Attributes:
        term: Its number.
        image, mask: Files.
        box: The only one of its term in the image.
        beside: Other terms that the same place may show, too: those whose boxes it touches, and those without boxes.
    """

    term: int
    image: str
    mask: str
    box: Box
    beside: tuple[int, ...]


@dataclass(frozen=True)
class Pasted:
    """What came into a view: the pixels of the whole, where the lesion is, bool (side, side), and its box."""

    pixels: Pixels
    mask: Flags
    box: Box
    donor: Donor


class Donors:
    """The lesions of a training set that have masks and a single box, by source; rare terms are drawn more often."""

    def __init__(self, known: Sequence[Sequence[Conversation]], terms: TermIndex, images: ImageStore) -> None:
        self.images = images
        self._found: dict[str, dict[int, list[Donor]]] = defaultdict(lambda: defaultdict(list))
        seen: set[str] = set()
        for group in known:
            if group[0].image.path not in seen:  # an epoch may hold an image several times
                seen.add(group[0].image.path)
                for donor in _donors_of(group, terms):
                    self._found[group[0].source][donor.term].append(donor)

    def draw(self, rng: np.random.Generator, source: str, absent: Flags) -> Donor | None:
        """A lesion of that source whose term is among the `absent` ones: each term in inverse proportion to its count.

        Args:
            absent: Whether the frame is known not to show each term, (terms,).
        """
        fitting = {term: of for term, of in sorted(self._found.get(source, {}).items()) if absent[term]}
        if not fitting:
            return None
        weights = np.array([1 / len(of) for of in fitting.values()])
        of = list(fitting.values())[int(rng.choice(len(weights), p=weights / weights.sum()))]
        return of[int(rng.integers(len(of)))]

    def into(
        self,
        pixels: Pixels,
        view: View,
        source: str,
        absent: Flags,
        present: Sequence[Box],
        augment: AugmentConfig | None,
        rng: np.random.Generator,
    ) -> Pasted | None:
        """The first of some lesions drawn, see `draw`, that fits into a view, see `paste`."""
        for _ in range(DONORS):
            donor = self.draw(rng, source, absent)
            pasted = self.paste(donor, pixels, view, present, augment, rng) if donor else None
            if donor is None or pasted:
                return pasted
        return None

    def paste(
        self,
        donor: Donor,
        pixels: Pixels,
        view: View,
        present: Sequence[Box],
        augment: AugmentConfig | None,
        rng: np.random.Generator,
    ) -> Pasted | None:
        """A lesion in a view that `pixels` show: in a view of its own and the colours of this one.

        Args:
            present: The boxes in the view; nothing is pasted over them.

        Returns:
            None where there is no room for it, or the two frames are too unlike.
        """
        side = pixels.shape[0]
        drawn = draw_view(rng, [donor.box], augment) if augment else View()
        moving = tuple(one for one in drawn.operations if one.moves_boxes)
        shape = View(drawn.window, drawn.is_mirrored_x, drawn.is_mirrored_y, operations=moving)
        colours = tuple(one for one in view.operations if not one.moves_boxes)
        look = replace(shape, gains=view.gains, contrast=view.contrast, operations=(*moving, *colours))
        small = round(side * rng.uniform(SMALLEST, 1.0))
        box, mask = shape.move(donor.box), shape.render(self.images.square(donor.mask), small)[..., 0] >= 128
        if box is None or box.area * (small / side) ** 2 > LARGEST or not mask.any() or _is_at_edge(mask):
            return None
        box = Box(**{name: value * small / side for name, value in box.model_dump().items()})
        mask = np.pad(mask, (0, side - small))
        lesion = np.zeros_like(pixels)
        lesion[:small, :small] = look.render(self.images.square(donor.image), small)
        if _is_dark(lesion)[_grown(mask, RING)].mean() > MOST_DARK:
            return None
        for across, down in _places(rng, mask):
            moved = np.roll(mask, (down, across), axis=(0, 1))
            place = _shifted(box, across / side, down / side)
            if place is None or any(geometry.iou(place, other) > 0 for other in present):
                continue
            ring = _grown(moved, RING) & ~_grown(moved, 1)
            if _is_dark(pixels)[moved | ring].mean() > MOST_DARK:
                continue
            laid = np.roll(lesion, (down, across), axis=(0, 1))
            shift = pixels[ring].mean(axis=0) - laid[ring].mean(axis=0)
            if np.abs(shift).max() > MOST_SHIFT:
                continue
            share = _soft(moved)[..., None]
            whole = (share * (laid + shift) + (1 - share) * pixels).clip(0, 255).round().astype(np.uint8)
            return Pasted(whole, moved, place, donor)
        return None


def perceived_with(told: RowPerception, pasted: Pasted, side: int) -> RowPerception:
    """What the perception head is to say of the view with the lesion in it, with `side` fine cells a side.

    Nothing is said any longer of terms that its place may show besides.
    """
    term, beside = pasted.donor.term, pasted.donor.beside
    kept = [pair for pair in told.pairs if pair[0] != term and pair[0] not in beside]
    small = Image.fromarray(pasted.mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BILINEAR)
    mask = np.asarray(small, dtype=np.float32) / np.float32(255)
    pairs = [(term, mask, (pasted.box,), ""), *kept][:MOST_PAIRS]
    return RowPerception(tuple(pairs), _known_with(told.known, pasted), (*told.regions, (term, pasted.box)))


def grounded_with(told: RowTargets, pasted: Pasted, grid_side: int) -> RowTargets:
    """The same of the grounding head."""
    inside = cells_inside(pasted.box, grid_side)
    cell_terms, cell_boxes = told.cell_terms.copy(), told.cell_boxes.copy()
    for other in pasted.donor.beside:
        cell_terms[inside & (cell_terms[:, other] == 0), other] = UNKNOWN
    cell_terms[inside, pasted.donor.term] = 1.0
    cell_boxes[inside] = pasted.box.xyxy
    return RowTargets(_known_with(told.image_terms, pasted), cell_terms, cell_boxes)


def _known_with(known: NDArray[np.float32], pasted: Pasted) -> NDArray[np.float32]:
    found = known.copy()
    for other in pasted.donor.beside:
        if found[other] == 0:
            found[other] = UNKNOWN
    found[pasted.donor.term] = 1.0
    return found


def _donors_of(group: Sequence[Conversation], terms: TermIndex) -> list[Donor]:
    located = {one.target.terms[0]: one for one in group if one.task == Task.REC and one.target.boxes}
    shown = {term for one in group if one.task in (Task.CLS, Task.REC, Task.REG) for term in one.target.terms}
    shown -= {one.target.terms[0] for one in group if one.task == Task.REC and not one.target.boxes}
    found = []
    for term, one in located.items():
        place = terms.place(term)
        if place is None or one.target.mask is None or len(one.target.boxes) != 1:
            continue
        (box,) = one.target.boxes
        beside = [
            other
            for other in sorted(shown - {term})
            if other not in located or any(geometry.iou(box, there) > 0 for there in located[other].target.boxes)
        ]
        numbers = tuple(number for other in beside if (number := terms.place(other)) is not None)
        found.append(Donor(place, one.image.path, one.target.mask, box, numbers))
    return found


def _places(rng: np.random.Generator, mask: Flags) -> list[tuple[int, int]]:
    """How far a mask moves across and down, in pixels, so that it and the ring around it stay inside the frame."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    side = len(mask)
    across = rng.integers(RING - columns[0], side - RING - columns[-1], size=TRIES)
    down = rng.integers(RING - rows[0], side - RING - rows[-1], size=TRIES)
    return list(zip(across.tolist(), down.tolist(), strict=True))


def _shifted(box: Box, across: float, down: float) -> Box | None:
    corners = (box.x0 + across, box.y0 + down, box.x1 + across, box.y1 + down)
    is_inside = min(corners) >= -0.01 and max(corners) <= 1.01  # a box may be a pixel wider than its mask
    return geometry.clip(*corners) if is_inside else None


def _is_at_edge(mask: Flags) -> bool:
    """Whether the frame cuts the lesion or the ring around it off straight."""
    inside = mask[RING + 1 : -RING - 1, RING + 1 : -RING - 1]
    return int(inside.sum()) < int(mask.sum())


def _is_dark(pixels: Pixels) -> Flags:
    dark: Flags = pixels.max(axis=-1) < DARK
    return dark


def _grown(mask: Flags, steps: int) -> Flags:
    """The mask and everything within `steps` pixels of it."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    grown: Flags = np.asarray(image.filter(ImageFilter.MaxFilter(2 * steps + 1))) > 0
    return grown


def _soft(mask: Flags) -> NDArray[np.float64]:
    """How much of the lesion shows in each pixel: all of it inside, less over some pixels around its edge."""
    blurred = Image.fromarray(_grown(mask, 1).astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1.5))
    return np.asarray(blurred, dtype=np.float64) / 255
