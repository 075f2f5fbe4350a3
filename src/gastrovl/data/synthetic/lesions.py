"""Six lesions: each function draws one into a scene and returns a field that is below 1 inside the lesion only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gastrovl.data.synthetic.canvas import Field, Scene, noise, periodic_noise, polar, ridge, smoothstep, turned


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lesion goes: centre and half-length in scene units, direction of its axis in radians."""

    centre: tuple[float, float]
    reach: float
    turn: float


def _outline(rng: np.random.Generator, scene: Scene, place: Place, squeeze: float, rough: float) -> Field:
    """Distance from the centre, 1 at a closed wavy outline of about `place.reach`."""
    radius, angle = polar(scene, place.centre, squeeze, place.turn)
    wavy = np.clip(periodic_noise(rng, angle, (2, 3, 5, 7), rough), -0.4, 0.3)
    return radius / np.float32(place.reach) * np.exp(wavy)


def _inside(level: Field, soft: float = 0.05) -> Field:
    return smoothstep(1.0 + soft, 1.0 - soft, level)


def polyp(rng: np.random.Generator, scene: Scene, place: Place) -> Field:
    """A raised dome, smooth or lobed, redder or paler than its surroundings, with a shadow at its foot."""
    level = _outline(rng, scene, place, rng.uniform(1.0, 1.3), rng.uniform(0.02, 0.07))
    inside = _inside(level)
    dome = np.sqrt(np.clip(1 - level**2, 0, 1))
    lobes = noise(rng, scene.x.shape, rng.uniform(1.2, 2.2) / place.reach)
    scene.light *= 1 - 0.6 * smoothstep(1.2, 1.0, level) * (1 - inside)
    scene.height *= 1 - inside
    scene.height += np.float32(0.75 * place.reach) * dome * (1 + np.float32(rng.uniform(0, 0.16)) * lobes)
    tone = (0.80, 0.27, 0.25) if rng.uniform() < 0.5 else (0.96, 0.70, 0.58)
    scene.paint(tone, 0.85 * inside)
    scene.light += inside * (np.maximum(scene.light, np.float32(0.8)) - scene.light)
    scene.paint((0.70, 0.22, 0.20), 0.35 * inside * ridge(lobes, 0.15))
    return level


def ulcer(rng: np.random.Generator, scene: Scene, place: Place) -> Field:
    """A crater: white-yellow fibrin base inside a swollen red rim."""
    level = _outline(rng, scene, place, rng.uniform(1.0, 1.5), rng.uniform(0.04, 0.10))
    inside = _inside(level)
    edge = float(rng.uniform(0.62, 0.74))
    base = smoothstep(edge + 0.05, edge - 0.05, level + 0.06 * noise(rng, scene.x.shape, 14))
    scene.height *= 1 - 0.8 * inside
    scene.height += np.float32(0.22 * place.reach) * np.exp(-(((level - 0.84) / 0.1) ** 2))
    scene.light += inside * (np.maximum(scene.light, np.float32(0.75)) - scene.light)
    scene.paint((0.72, 0.18, 0.16), 0.85 * inside)
    tone = (0.93, 0.88, 0.70) if rng.uniform() < 0.6 else (0.90, 0.82, 0.55)
    scene.paint(tone, base)
    scene.paint((0.62, 0.42, 0.25), 0.45 * base * smoothstep(0.35, 0.9, noise(rng, scene.x.shape, 12)))
    return level


def early_cancer(rng: np.random.Generator, scene: Scene, place: Place) -> Field:
    """A flat, ragged, dark red patch with a coarse nodular surface and small bleeding spots."""
    level = _outline(rng, scene, place, rng.uniform(1.0, 1.5), rng.uniform(0.12, 0.18))
    inside = _inside(level, 0.04)
    nodules = noise(rng, scene.x.shape, rng.uniform(18, 26))
    scene.height *= 1 - 0.7 * inside
    scene.height += inside * (0.045 * np.abs(nodules) + 0.02)
    scene.light += inside * (np.maximum(scene.light, np.float32(0.7)) - scene.light)
    scene.paint((0.66, 0.21, 0.20), 0.8 * inside)
    scene.paint((0.88, 0.52, 0.45), 0.7 * inside * smoothstep(0.25, 0.7, nodules))
    scene.paint((0.40, 0.05, 0.06), 0.9 * inside * smoothstep(0.45, 0.8, -nodules))
    return level


def varices(rng: np.random.Generator, scene: Scene, place: Place) -> Field:
    """One to three bluish, winding, beaded columns side by side."""
    along, across = turned(scene, place.centre, place.turn)
    reach = np.float32(place.reach)
    count = int(rng.integers(1, 4))
    width = np.float32(place.reach * (0.26, 0.19, 0.15)[count - 1])
    level = np.full_like(along, 9.0)
    for column in range(count):
        offset = np.float32((column - (count - 1) / 2) * 2.5) * width
        winding = np.sin(along / reach * np.float32(rng.uniform(3.0, 5.0)) + np.float32(rng.uniform(0, 6.3)))
        beads = 1 + 0.2 * np.sin(along / reach * np.float32(rng.uniform(8, 12)) + np.float32(rng.uniform(0, 6.3)))
        reached = np.float32(rng.uniform(0.85, 1.0)) * reach - width
        beyond = np.maximum(np.abs(along) - reached, 0)
        level = np.minimum(
            level, np.hypot(across - offset - np.float32(0.45) * width * winding, beyond) / (width * beads)
        )
    inside = _inside(level, 0.1)
    scene.height *= 1 - inside
    scene.height += np.float32(0.9) * width * np.sqrt(np.clip(1 - level**2, 0, 1))
    scene.light += inside * (np.maximum(scene.light, np.float32(0.75)) - scene.light)
    scene.paint((0.42, 0.36, 0.54), np.float32(rng.uniform(0.7, 0.9)) * inside)
    return level


def barretts(rng: np.random.Generator, scene: Scene, place: Place) -> Field:
    """A velvety salmon tongue with a sharp border that narrows away from the lumen."""
    along, across = turned(scene, place.centre, place.turn)
    reach = np.float32(place.reach)
    taper = 1.0 - 0.35 * along / reach
    angle = np.arctan2(across, along)
    wavy = np.clip(periodic_noise(rng, angle, (3, 5, 8, 11), rng.uniform(0.05, 0.09)), -0.25, 0.25)
    slim = np.float32(rng.uniform(1.3, 1.7)) / np.clip(taper, 0.4, 2)
    level: Field = np.hypot(along, across * slim) / reach * np.exp(wavy)
    inside = _inside(level, 0.04)
    scene.light += inside * (np.maximum(scene.light, np.float32(0.7)) - scene.light)
    scene.height *= 1 - 0.6 * inside
    scene.height += inside * 0.008 * noise(rng, scene.x.shape, 45)
    scene.paint((0.80, 0.33, 0.22), np.float32(rng.uniform(0.85, 0.97)) * inside)
    scene.paint((0.92, 0.52, 0.38), 0.5 * inside * smoothstep(0.2, 0.8, noise(rng, scene.x.shape, 35)))
    return level


def esophagitis(rng: np.random.Generator, scene: Scene, place: Place) -> Field:
    """Two to four red streaks side by side, each with a yellow-white fibrin core."""
    along, across = turned(scene, place.centre, place.turn)
    reach = np.float32(place.reach)
    count = int(rng.integers(2, 5))
    width = np.float32(place.reach * (0.2, 0.15, 0.12)[count - 2])
    level = np.full_like(along, 9.0)
    for streak in range(count):
        offset = np.float32((streak - (count - 1) / 2) * 2.7 + rng.normal(0, 0.15)) * width
        shift = np.float32(rng.uniform(-0.12, 0.12)) * reach
        half = np.float32(rng.uniform(0.7, 0.88)) * reach
        ragged = 1 + 0.25 * noise(rng, scene.x.shape, 12)
        level = np.minimum(level, np.hypot((across - offset) / width, ((along - shift) / half) ** 2) * ragged)
    inside = _inside(level, 0.12)
    scene.light += inside * (np.maximum(scene.light, np.float32(0.75)) - scene.light)
    scene.paint((0.74, 0.10, 0.12), np.float32(rng.uniform(0.8, 0.95)) * inside)
    scene.paint((0.93, 0.85, 0.66), 0.9 * smoothstep(0.5, 0.3, level))
    scene.height -= 0.02 * inside
    return level


DRAW_LESION: dict[str, Callable[[np.random.Generator, Scene, Place], Field]] = {
    "gastric_polyp": polyp,
    "gastric_ulcer": ulcer,
    "early_gastric_cancer": early_cancer,
    "esophageal_varices": varices,
    "barretts_esophagus": barretts,
    "esophagitis": esophagitis,
}
