"""People before the camera: hands that reach into the picture, and somebody who stands there."""

import math

import numpy as np

from dar_ros.simulation.renderer import CAPSULE, ELLIPSOID, Primitive
from dar_ros.simulation.solids import place

_SKIN = np.array([1, 0.8, 0.68])


def hands(rng, pose):
    """Forearms and hands that reach into the picture, 0.3-0.6 m away -> primitives."""
    (x, y, z), yaw, pitch, _, _ = pose
    skin = tuple(rng.uniform(0.45, 1.0) * np.array([1, 0.8, 0.68]))
    sleeve = tuple(rng.uniform(0.1, 0.9, 3)) if rng.random() < 0.5 else skin
    parts = []
    for side in (-1, 1)[: int(rng.integers(1, 3))]:
        ahead, left, down = (
            rng.uniform(0.3, 0.6),
            side * rng.uniform(0.05, 0.25),
            rng.uniform(0, 0.2),
        )
        elevation = pitch + math.radians(rng.normal(25, 15))
        heading = yaw - side * rng.uniform(-0.2, 0.5)
        forward = np.array(
            [math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)]
        )
        across = np.array([-math.sin(yaw), math.cos(yaw), 0])
        hand = np.array([x, y, z]) + ahead * forward + left * across - [0, 0, down]
        pointing = np.array(
            [
                math.cos(elevation) * math.cos(heading),
                math.cos(elevation) * math.sin(heading),
                math.sin(elevation),
            ]
        )
        half = math.pi / 4 - elevation / 2  # of the turn from upright to that elevation
        tilt = (math.cos(half), 0, math.sin(half), 0)
        parts += [
            Primitive(
                CAPSULE, hand - 0.2 * pointing, (0.04, 0.13), heading, 'plain', sleeve, tilt
            ),
            Primitive(ELLIPSOID, hand, (0.02, 0.045, 0.09), heading, 'plain', skin, tilt),
        ]
        for finger in range(4):
            reach = hand + 0.1 * pointing + (finger - 1.5) * 0.022 * across
            parts.append(Primitive(CAPSULE, reach, (0.009, 0.03), heading, 'plain', skin, tilt))
    return parts


def somebody(rng, pose):
    """
    One or two people 0.4-2.5 m before a camera, standing or lower, mostly facing it -> primitives.
    """
    (x, y, z), yaw, pitch, _, hfov = pose
    parts = []
    for _ in range(1 if rng.random() < 0.8 else 2):
        away = math.exp(rng.uniform(math.log(0.4), math.log(2.5)))
        aside = yaw + math.radians(rng.uniform(-0.45, 0.45) * hfov)
        facing = aside + math.pi + rng.normal(0, 0.5)
        figure = place(person(rng), x + away * math.cos(aside), y + away * math.sin(aside), facing)
        lower = 0.0
        if rng.random() < 0.6:  # sits or kneels, legs in the floor, the face in the picture
            height = max(part.center[2] for part in figure)
            seen = z + away * math.tan(pitch + math.radians(rng.normal(3, 10)))
            lower = float(np.clip(height - seen, 0, 1))
        for part in figure:
            part.center = (*part.center[:2], part.center[2] - lower)
        parts += figure
    return parts


def person(rng):
    """Adult or child, 1.2-1.95 m, standing on z = 0 at the origin, facing +x -> primitives."""
    height = rng.uniform(1.5, 1.95) if rng.random() < 0.85 else rng.uniform(1.2, 1.5)
    unit, girth = height / 1.75, rng.uniform(0.85, 1.35)
    skin = tuple(rng.uniform(0.35, 1.0) * _SKIN)
    shirt, trousers = _cloth(rng), _cloth(rng)
    sleeve = shirt if rng.random() < 0.6 else ('plain', skin)
    hair = tuple(rng.uniform(0.03, 0.6) * np.array([1, rng.uniform(0.7, 1), rng.uniform(0.4, 1)]))
    shoulder, hip, head = 1.42 * unit, 0.93 * unit, height - 0.13 * unit
    parts = []
    for side in (-1, 1):
        foot = np.array([rng.uniform(-0.15, 0.15), side * rng.uniform(0.07, 0.2), 0.06])
        parts += [
            limb((0, side * 0.09 * girth, hip), foot, 0.07 * girth, *trousers),
            ellipsoid(foot + [0.06, 0, -0.01], (0.13, 0.05, 0.05), 'plain', hair),
        ]
        top = np.array([0, side * 0.19 * unit * math.sqrt(girth), shoulder - 0.03])
        if rng.random() < 0.6:  # hangs down
            elbow = top + [rng.uniform(-0.08, 0.12), side * rng.uniform(0.02, 0.15), -0.28 * unit]
        else:  # reaches out
            elbow = top + unit * _direction(rng, 0.25, (0.2, side * 0.3, -0.7))
        hand = elbow + unit * _direction(rng, 0.25, (0.6, -side * 0.2, rng.uniform(-0.8, 0.8)))
        parts += [
            limb(top, elbow, 0.05 * girth, *shirt),
            limb(elbow, hand, 0.038 * girth, *sleeve),
            ellipsoid(hand, (0.05, 0.045, 0.05), 'plain', skin),
        ]
    middle = (shoulder + hip) / 2
    across = 0.17 * unit * math.sqrt(girth)
    parts += [
        ellipsoid((0, 0, middle), (0.12 * girth, across, 0.32 * unit), *shirt),
        limb((0, -across, shoulder - 0.06), (0, across, shoulder - 0.06), 0.07 * girth, *shirt),
        limb((0, 0, shoulder - 0.05), (0.01, 0, head - 0.08), 0.055, 'plain', skin),
        ellipsoid((0, 0, head), (0.095, 0.075, 0.12), 'plain', skin),
        ellipsoid((0.095, 0, head - 0.015), (0.02, 0.014, 0.025), 'plain', skin),
        ellipsoid((0.075, 0, head - 0.065), (0.015, 0.027, 0.007), 'plain', (0.55, 0.25, 0.25)),
    ]
    parts += [
        ellipsoid((0.085, side * 0.03, head + 0.02), (0.01, 0.015, 0.008), 'plain', (0.1,) * 3)
        for side in (-1, 1)
    ]
    if rng.random() < 0.85:
        long = rng.uniform(0.0, 0.12)
        parts.append(
            ellipsoid(
                (-0.025, 0, head + 0.03 - long / 2), (0.09, 0.082, 0.105 + long), 'plain', hair
            )
        )
    if rng.random() < 0.2:  # a beard
        parts.append(ellipsoid((0.045, 0, head - 0.085), (0.045, 0.055, 0.05), 'plain', hair))
    return parts


def ellipsoid(center, size, material, color):
    """Ellipsoid along the axes; half sizes in metres."""
    return Primitive(ELLIPSOID, tuple(center), size, 0.0, material, color)


def limb(start, end, radius, material, color):
    """Capsule from one point to another."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    x, y, z = end - start
    length, heading = math.sqrt(x * x + y * y + z * z), math.atan2(y, x)
    half = math.pi / 4 - math.atan2(z, math.hypot(x, y)) / 2  # of the turn from upright
    return Primitive(
        CAPSULE,
        tuple((start + end) / 2),
        (radius, length / 2),
        heading,
        material,
        color,
        (math.cos(half), 0, math.sin(half), 0),
    )


def _cloth(rng):
    """Material and colour of a garment."""
    if rng.random() < 0.4:
        return f'fabric/solid/{rng.integers(100)}', (1, 1, 1)
    return 'plain', tuple(np.clip(rng.uniform(0.05, 1.0) * (1 + rng.uniform(-0.3, 0.3, 3)), 0, 1))


def _direction(rng, length, towards):
    """Vector of a length, roughly towards a direction."""
    vector = np.asarray(towards, float) + rng.normal(0, 0.3, 3)
    return length * vector / np.linalg.norm(vector)
