"""Six places of the upper GI tract, each a function that turns randomness into a lesion-free scene."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gastrovl.data.synthetic.canvas import (
    Colour,
    Field,
    Scene,
    noise,
    periodic_noise,
    polar,
    ridge,
    smoothstep,
    turned,
)

SQUAMOUS: Colour = (0.86, 0.63, 0.60)
GASTRIC: Colour = (0.84, 0.47, 0.36)
SALMON: Colour = (0.80, 0.36, 0.27)
VESSEL: Colour = (0.62, 0.22, 0.22)
LUMEN: Colour = (0.20, 0.07, 0.06)


def _jitter(rng: np.random.Generator, colour: Colour) -> Colour:
    red, green, blue = np.clip(np.asarray(colour) + rng.normal(0, 0.035, 3), 0.05, 0.98)
    return float(red), float(green), float(blue)


def _mucosa(rng: np.random.Generator, size_wh: tuple[int, int], colour: Colour) -> Scene:
    """A sheet of mucosa with mottled colour and fine relief."""
    base = _jitter(rng, colour)
    scene = Scene.empty(size_wh, base)
    shape = scene.x.shape
    mottle = noise(rng, shape, 5) + 0.5 * noise(rng, shape, 14)
    scene.albedo *= (1 + 0.06 * mottle)[..., None]
    scene.albedo[..., 1:] *= (1 - 0.07 * noise(rng, shape, 8))[..., None]
    scene.height += 0.012 * noise(rng, shape, 12) + 0.0035 * noise(rng, shape, 50)
    return scene


def _vessels(rng: np.random.Generator, scene: Scene, strength: float) -> None:
    """Thin branching vessels that come and go."""
    shape = scene.x.shape
    lines = ridge(noise(rng, shape, 6), 0.07) + 0.7 * ridge(noise(rng, shape, 11), 0.09)
    patchy = smoothstep(-0.3, 0.7, noise(rng, shape, 3))
    scene.paint(VESSEL, np.clip(np.float32(strength) * lines * patchy, 0, 0.8))


def _point(rng: np.random.Generator, reach: float) -> tuple[float, float]:
    angle, radius = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform(0, 1))
    return float(radius * np.cos(angle)), float(radius * np.sin(angle))


def _tube(
    rng: np.random.Generator, size_wh: tuple[int, int], colour: Colour, opening: float
) -> tuple[Scene, Field, Field]:
    """A tube seen along its axis: scene, distance from the lumen's centre and angle about it."""
    scene = _mucosa(rng, size_wh, colour)
    scene.pole = _point(rng, 0.4)
    radius, angle = polar(scene, scene.pole, rng.uniform(0.8, 1.25), rng.uniform(0, np.pi))
    star = periodic_noise(rng, angle, (2, 3, 5), 0.1)
    edge = radius * (1 + star)
    scene.light = 0.10 + 0.9 * smoothstep(0.5 * opening, 3.2 * opening + 0.25, edge)
    scene.paint(LUMEN, smoothstep(1.25 * opening, 0.7 * opening, edge))
    scene.gloss *= smoothstep(opening, 2 * opening, edge)
    scene.keep_out.append((*scene.pole, opening))
    return scene, radius, angle


def esophagus(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """A pale tube with lengthwise folds and fine vessels around an open lumen."""
    scene, radius, angle = _tube(rng, size_wh, SQUAMOUS, rng.uniform(0.14, 0.26))
    folds = periodic_noise(rng, angle, (3, 4, 6, 7), 0.055)
    scene.height += folds * smoothstep(1.5, 0.2, radius)
    rings = np.sin(rng.uniform(5, 8) * np.log(radius + 0.08) + rng.uniform(0, 6.3)).astype(np.float32)
    scene.height += np.float32(rng.uniform(0.0, 0.02)) * rings
    _vessels(rng, scene, rng.uniform(0.25, 0.5))
    return scene


def z_line(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """Pale squamous mucosa meeting salmon gastric mucosa at a jagged ring around a small lumen."""
    opening = rng.uniform(0.06, 0.12)
    scene, radius, angle = _tube(rng, size_wh, SQUAMOUS, opening)
    _vessels(rng, scene, rng.uniform(0.15, 0.35))
    jagged = periodic_noise(rng, angle, (2, 3, 5, 8, 13), 0.11) + 0.1 * noise(rng, radius.shape, 8)
    border = radius / np.float32(rng.uniform(0.36, 0.58)) * np.exp(jagged)
    inside = smoothstep(1.05, 0.95, border) * smoothstep(opening, 1.5 * opening, radius)
    scene.paint(_jitter(rng, SALMON), 0.92 * inside)
    scene.paint((0.95, 0.80, 0.76), 0.6 * ridge(border - 1.05, 0.09))
    scene.height += 0.02 * smoothstep(1.0, 1.1, border)
    scene.height += periodic_noise(rng, angle, (4, 6, 9), 0.05) * smoothstep(0.8, 0.1, radius)
    scene.light = np.maximum(scene.light, 0.75 * smoothstep(opening, 2.2 * opening, radius))
    return scene


def pylorus(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """A round dark opening with a raised ring in a well-lit wall."""
    scene = _mucosa(rng, size_wh, GASTRIC)
    scene.pole = _point(rng, 0.42)
    radius, angle = polar(scene, scene.pole, rng.uniform(0.85, 1.2), rng.uniform(0, np.pi))
    hole = np.float32(rng.uniform(0.11, 0.2))
    edge = radius / hole * (1 + periodic_noise(rng, angle, (2, 3, 5), 0.05))
    scene.height += 0.10 * np.exp(-(((edge - 1.75) / 0.55) ** 2))
    scene.height += periodic_noise(rng, angle, (5, 7, 9), 0.05) * np.exp(-(((edge - 1.9) / 0.9) ** 2))
    scene.paint(LUMEN, smoothstep(1.1, 0.9, edge))
    scene.light = (0.16 + 0.84 * smoothstep(0.85, 1.2, edge)) * (1 - 0.18 * smoothstep(0.3, 1.5, radius))
    scene.gloss *= smoothstep(1.0, 1.3, edge)
    scene.keep_out.append((*scene.pole, float(2.2 * hole)))
    return scene


def antrum(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """Smooth walls with two or three ring-shaped peristaltic folds towards a small, far pylorus."""
    scene = _mucosa(rng, size_wh, GASTRIC)
    scene.pole = _point(rng, 0.35)
    radius, angle = polar(scene, scene.pole, rng.uniform(0.8, 1.25), rng.uniform(0, np.pi))
    bent = radius * (1 + periodic_noise(rng, angle, (1, 2, 3), 0.06))
    scene.light = 0.42 + 0.58 * smoothstep(0.05, 0.9, bent)
    for ring in (rng.uniform(0.24, 0.32), rng.uniform(0.5, 0.62), rng.uniform(0.85, 1.05)):
        gap = (bent - np.float32(ring)) / np.float32(0.10 + 0.12 * ring)
        scene.height += np.float32(0.09 * ring + 0.025) * np.exp(-(gap**2))
        scene.light -= np.float32(0.32) * smoothstep(-1.7, -0.3, gap) * smoothstep(0.0, -0.5, gap)
    scene.paint(LUMEN, smoothstep(0.075, 0.04, bent))
    scene.keep_out.append((*scene.pole, 0.14))
    return scene


def body(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """Long, thick, winding rugal folds that run side by side into a dark distance."""
    scene = _mucosa(rng, size_wh, GASTRIC)
    turn = rng.uniform(0, 2 * np.pi)
    along, across = turned(scene, (0.0, 0.0), turn)
    narrowing = 1.0 / (1.45 - 0.55 * along)
    winding = 0.16 * noise(rng, scene.x.shape, 3) + 0.05 * noise(rng, scene.x.shape, 7)
    wave = np.sin(np.float32(rng.uniform(9, 13)) * across * narrowing * 1.2 + 7 * winding)
    crest = np.sqrt(np.float32(1.02) - np.clip(wave, -1, 1)) / np.float32(1.42)
    scene.height += 0.15 * (1 - crest)
    scene.albedo *= (1.0 - 0.42 * smoothstep(0.75, 1.0, crest))[..., None]
    scene.light = 0.2 + 0.8 * smoothstep(1.05, 0.2, along)
    scene.pole = (float(1.1 * np.cos(turn)), float(1.1 * np.sin(turn)))
    scene.keep_out.append((*scene.pole, 0.35))
    return scene


def retroflexed_fundus(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """A wide vault into which the black shaft of the endoscope itself enters through the cardia."""
    scene = _mucosa(rng, size_wh, GASTRIC)
    cardia = _point(rng, 0.3)
    turn = rng.uniform(0, 2 * np.pi)
    along, across = turned(scene, cardia, turn)
    radius = np.hypot(along, across)
    half_width = np.float32(rng.uniform(0.13, 0.19))
    bent = across - np.float32(rng.normal(0, 0.12)) * along**2
    vault = polar(scene, (-0.3 * cardia[0], -0.3 * cardia[1]))[0]
    scene.light = 1.0 - 0.45 * smoothstep(0.3, 1.5, vault) - 0.2 * smoothstep(0.1, 0.9, noise(rng, scene.x.shape, 2))
    scene.height += 0.08 * np.exp(-(((radius - 2.0 * half_width) / 0.09) ** 2)) * smoothstep(0.6, -0.4, along)
    is_shaft = smoothstep(1.04, 0.96, np.abs(bent) / half_width) * smoothstep(-0.9, -0.7, along / half_width)
    scene.light *= 1 - 0.5 * smoothstep(1.5, 1.0, np.abs(bent) / half_width) * smoothstep(
        -1.2, -0.5, along / half_width
    )
    scene.paint((0.05, 0.05, 0.06), is_shaft)
    scene.height += half_width * is_shaft * np.sqrt(np.clip(1 - (bent / half_width) ** 2, 0, 1))
    marks = smoothstep(0.93, 0.99, np.sin(along * np.float32(9) + np.float32(rng.uniform(0, 6.3))))
    scene.paint((0.75, 0.75, 0.72), 0.7 * marks * is_shaft)
    scene.gloss *= 1 - 0.75 * is_shaft
    scene.pole = cardia
    steps = np.linspace(0, 1.4, 6)
    scene.keep_out += [
        (float(cardia[0] + s * np.cos(turn)), float(cardia[1] + s * np.sin(turn)), float(half_width) + 0.02)
        for s in steps
    ]
    return scene


DRAW_SITE: dict[str, Callable[[np.random.Generator, tuple[int, int]], Scene]] = {
    "esophagus": esophagus,
    "z_line": z_line,
    "pylorus": pylorus,
    "antrum": antrum,
    "middle_upper_body_antegrade": body,
    "fundus_cardia_retroflexed": retroflexed_fundus,
}
