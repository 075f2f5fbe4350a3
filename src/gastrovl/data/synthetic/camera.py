"""The endoscope: its picture size, black frame, colours and lamp, and the step from a scene to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from gastrovl.data.synthetic.canvas import Field, Scene, noise, positions, resize, smoothstep

SIZES_WH = ((320, 288), (288, 288), (336, 272), (304, 304), (352, 288), (320, 256))
FRAMES: tuple[Literal["octagon", "circle", "rounded"], ...] = ("octagon", "circle", "rounded")
GRID_POINTS = 30_000  # of the coarse grid scenes are drawn on; more costs time, fewer blur the lesions' edges


@dataclass(frozen=True, slots=True)
class Camera:
    """Everything the frames of one examination share.

    Attributes:
        gains: White balance, one factor a channel.
        exposure: Factor on the brightness; gamma: exponent after it.
        lamp: Offset of the lamp from the optical axis, scene units.
        blur_px: Standard deviation of the lens blur in output pixels.
        vignette: Share of light lost in the corners, 0 to 1.
    """

    size_wh: tuple[int, int]
    frame: Literal["octagon", "circle", "rounded"]
    frame_size: float
    gains: tuple[float, float, float]
    exposure: float
    gamma: float
    lamp: tuple[float, float]
    blur_px: float
    vignette: float

    @property
    def grid_wh(self) -> tuple[int, int]:
        width, height = self.size_wh
        scale = min(1.0, float(np.sqrt(GRID_POINTS / (width * height))))
        return round(width * scale), round(height * scale)

    def visible(self, x: Field, y: Field) -> Field:
        """Below 1 inside the black frame, above 1 outside it; x and y in scene units."""
        width, height = self.size_wh
        half_x, half_y = width / min(self.size_wh), height / min(self.size_wh)
        across, down = np.abs(x) / np.float32(half_x), np.abs(y) / np.float32(half_y)
        if self.frame == "circle":
            level: Field = np.hypot(x, y) / np.float32(np.sqrt(half_x * half_y))
        elif self.frame == "octagon":
            level = np.maximum(np.maximum(across, down), (across + down) / np.float32(1.5))
        else:
            across, down = across * across, down * down
            level = np.sqrt(np.sqrt(across**2 + down**2))
        return level / np.float32(self.frame_size)


def draw_camera(rng: np.random.Generator, size_wh: tuple[int, int] | None = None) -> Camera:
    """A camera at random; colours and exposure vary more than between real processors, so that hue tells little."""
    return Camera(
        size_wh=size_wh or SIZES_WH[int(rng.integers(len(SIZES_WH)))],
        frame=FRAMES[int(rng.integers(len(FRAMES)))],
        frame_size=float(rng.uniform(0.94, 1.02)),
        gains=(
            float(np.exp(rng.normal(0, 0.09))),
            float(np.exp(rng.normal(0, 0.10))),
            float(np.exp(rng.normal(0, 0.16))),
        ),
        exposure=float(rng.uniform(0.82, 1.25)),
        gamma=float(rng.uniform(0.8, 1.15)),
        lamp=(float(rng.normal(0, 0.35)), float(rng.normal(0, 0.35))),
        blur_px=float(rng.choice((0.0, 0.0, 0.6, 0.9))),
        vignette=float(rng.uniform(0.1, 0.4)),
    )


def render(scene: Scene, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The frame the camera takes, (height, width, 3)."""
    lit, glint = _light(scene, camera, rng)
    colour = np.clip(scene.albedo * np.asarray(camera.gains, np.float32) * (camera.exposure * lit)[..., None], 0, 1)
    colour = colour ** np.float32(camera.gamma)
    colour += glint[..., None] * (1 - colour)
    picture = Image.fromarray((colour * 255).astype(np.uint8)).resize(camera.size_wh, Image.Resampling.BICUBIC)
    if camera.blur_px:
        picture = picture.filter(ImageFilter.GaussianBlur(camera.blur_px))
    return _expose(np.asarray(picture), camera, rng)


def _light(scene: Scene, camera: Camera, rng: np.random.Generator) -> tuple[Field, Field]:
    """Diffuse light and specular glints of the relief, lit by a lamp beside the lens (Phong's model)."""
    step = 2.0 / min(scene.x.shape)
    slope_y, slope_x = np.gradient(scene.height, step)
    to_lamp_x = np.float32(camera.lamp[0]) - 0.45 * scene.x
    to_lamp_y = np.float32(camera.lamp[1]) - 0.45 * scene.y
    steepness = 1 + slope_x**2 + slope_y**2
    facing = (1 - slope_x * to_lamp_x - slope_y * to_lamp_y) / np.sqrt(steepness * (1 + to_lamp_x**2 + to_lamp_y**2))
    lit = scene.light * (0.25 + 0.8 * np.clip(facing, 0, 1.2))
    lit *= 1 - np.float32(camera.vignette) * smoothstep(0.5, 1.5, np.hypot(scene.x, scene.y))
    wet = noise(rng, scene.x.shape, 22) + 0.5 * noise(rng, scene.x.shape, 45)
    glint = smoothstep(0.96, 1.0, facing + 0.035 * (wet - 0.9)) * smoothstep(0.75, 1.15, wet + 0.3 * scene.light)
    return lit, np.clip(0.95 * glint * scene.gloss * scene.light, 0, 1)


def _expose(pixels: NDArray[np.uint8], camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sensor noise and the black frame."""
    height, width = pixels.shape[:2]
    grain = rng.integers(-4, 5, (height, width, 1), dtype=np.int16)
    noisy = np.clip(pixels.astype(np.int16) + grain, 0, 255)
    noisy[~seen(camera)] = 4
    return np.asarray(noisy, np.uint8)


@lru_cache(maxsize=4)
def seen(camera: Camera) -> NDArray[np.bool_]:
    """True at the output pixels inside the black frame, (height, width)."""
    return np.asarray(camera.visible(*positions(camera.size_wh)) <= 1)


def lesion_mask(level: Field, camera: Camera) -> NDArray[np.bool_]:
    """The lesion at output resolution, cut at the frame; `level` is below 1 inside the lesion, on the coarse grid."""
    fine = resize(np.minimum(level, np.float32(3.0)), camera.size_wh)
    return np.asarray((fine < 1) & seen(camera))
