"""One drawn frame: a site, its lesions at random places, a camera; the boxes are those of the drawn masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.errors import LabelError
from gastrovl.core.geometry import from_mask
from gastrovl.core.types import Box
from gastrovl.data.synthetic.camera import Camera, draw_camera, lesion_mask, render
from gastrovl.data.synthetic.canvas import Scene
from gastrovl.data.synthetic.lesions import DRAW_LESION, Place
from gastrovl.data.synthetic.sites import DRAW_SITE

_STOMACH = ("gastric_polyp", "gastric_ulcer", "early_gastric_cancer")
SITES: dict[str, tuple[str, ...]] = {
    "esophagus": ("esophageal_varices", "barretts_esophagus", "esophagitis"),
    "z_line": ("esophageal_varices", "esophagitis"),
    "pylorus": _STOMACH,
    "antrum": _STOMACH,
    "middle_upper_body_antegrade": _STOMACH,
    "fundus_cardia_retroflexed": _STOMACH,
}
LESIONS = tuple(DRAW_LESION)
MIN_REACH, MAX_REACH = 0.33, 0.58  # half-length of a lesion in scene units (1 is half the shorter image side)
_APART = 1.1  # of the sum of two reaches, along x or y: then their boxes lie beside each other, not one in the other
_ALONG_THE_TUBE = {"esophageal_varices", "barretts_esophagus", "esophagitis"}


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """A drawn frame and what is in it.

    Attributes:
        pixels: RGB, uint8, (height, width, 3).
        site: Term id. A bare esophagus is "normal_esophagus", one with a lesion "lower_esophagus".
        lesions: Term id and tight box of each lesion; boxes of one image do not overlap.
        masks: Where each lesion is, (height, width).
    """

    pixels: NDArray[np.uint8]
    site: str
    lesions: tuple[tuple[str, Box], ...]
    masks: tuple[NDArray[np.bool_], ...] = ()


def draw_image(
    rng: np.random.Generator,
    site: str,
    lesions: Sequence[str] = (),
    size_wh: tuple[int, int] | None = None,
    camera: Camera | None = None,
) -> DrawnImage:
    """Draw `site` with `lesions`; with an equal `rng` the scene around the lesions is the same whatever they are.

    Args:
        site: A key of `SITES`.
        lesions: Up to two of `LESIONS`, in any order, equal or not.
        size_wh: Picture size in pixels; None draws one of the usual sizes. Ignored when `camera` is given.
        camera: Shared by the frames of one examination; None draws one.

    Raises:
        LabelError: `site` or a lesion is not one that can be drawn.
    """
    _check(site, lesions)
    for_camera, for_site, for_lesions, for_light = rng.spawn(4)
    camera = camera or draw_camera(for_camera, size_wh)
    scene = DRAW_SITE[site](for_site, camera.grid_wh)
    places = _places(for_lesions, scene, camera, lesions)
    drawn, masks = [], []
    for term, place in places:
        level = DRAW_LESION[term](for_lesions, scene, place)
        masks.append(lesion_mask(level, camera))
        drawn.append((term, from_mask(masks[-1])))
    name = ("lower_esophagus" if drawn else "normal_esophagus") if site == "esophagus" else site
    return DrawnImage(render(scene, camera, for_light), name, tuple(drawn), tuple(masks))


def _check(site: str, lesions: Sequence[str]) -> None:
    if site not in DRAW_SITE:
        raise LabelError(f"site {site!r} cannot be drawn; choose one of {', '.join(DRAW_SITE)}")
    unknown = [term for term in lesions if term not in DRAW_LESION]
    if unknown:
        raise LabelError(f"lesion {unknown[0]!r} cannot be drawn; choose of {', '.join(LESIONS)}")


def _places(rng: np.random.Generator, scene: Scene, camera: Camera, lesions: Sequence[str]) -> list[tuple[str, Place]]:
    """A free place for each lesion: inside the frame, clear of lumen, shaft and each other."""
    taken: list[tuple[float, float, float]] = []
    places = []
    for term in lesions:
        reach = rng.uniform(MIN_REACH, MAX_REACH if len(lesions) == 1 else 0.7 * MAX_REACH)
        for attempt in range(200):
            reach = max(reach * 0.98, 0.15) if attempt > 20 else reach
            centre = (float(rng.uniform(-1.2, 1.2)), float(rng.uniform(-1.2, 1.2)))
            if _is_free(centre, reach, scene, camera, taken):
                break
        taken.append((*centre, reach))
        turn = rng.uniform(0, 2 * np.pi)
        if term in _ALONG_THE_TUBE:
            turn = np.arctan2(centre[1] - scene.pole[1], centre[0] - scene.pole[0]) + rng.normal(0, 0.25)
        places.append((term, Place(centre, reach, float(turn))))
    return places


def _is_free(
    centre: tuple[float, float],
    reach: float,
    scene: Scene,
    camera: Camera,
    taken: list[tuple[float, float, float]],
) -> bool:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    rim_x = (centre[0] + reach * np.cos(angles)).astype(np.float32)
    rim_y = (centre[1] + reach * np.sin(angles)).astype(np.float32)
    if camera.visible(rim_x, rim_y).max() > 0.97:
        return False
    x, y = centre
    is_clear = all(np.hypot(x - kx, y - ky) > kr + 0.8 * reach for kx, ky, kr in scene.keep_out)
    return is_clear and all(max(abs(x - tx), abs(y - ty)) > _APART * (tr + reach) for tx, ty, tr in taken)
