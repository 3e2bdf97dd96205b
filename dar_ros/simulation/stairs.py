"""Stairs: a landing, and a flight of steps up or down."""

import math

from dar_ros.simulation.doors import closed_door, enamel, wall_finish
from dar_ros.simulation.placing import Scene, lamps
from dar_ros.simulation.renderer import BOX, Primitive
from dar_ros.simulation.solids import box, place, post
from dar_ros.simulation.walls import floor, ground_of, sheet, tint, variant


def stairs(rng, stock):
    """Draw a landing and a flight of steps down or up from it, between walls or at a railing."""
    turn = -1 if rng.random() < 0.6 else 1
    landing, wide = rng.uniform(1, 3), rng.uniform(0.8, 1.3)
    void = rng.uniform(0.7, 1.6) if rng.random() < 0.6 else 0.0
    steps, rise, going = int(rng.integers(5, 17)), rng.uniform(0.15, 0.2), rng.uniform(0.22, 0.32)
    # The last riser leads to the other floor: there is one tread less.
    run, drop, beyond = (steps - 1) * going, turn * steps * rise, rng.uniform(0.8, 4)
    low, top = min(drop, 0.0), max(drop, 0.0) + rng.uniform(2.2, 3)
    # The flight begins at `start`; its edge is where a railing stands, if the shaft is wider.
    start, half_y, edge = landing / 2, (wide + void) / 2, (wide - void) / 2
    end = start + run + beyond
    scene = Scene('stairs', (start, half_y), top)
    (material, color), ground = wall_finish(rng), ground_of(rng)
    middle, long = (end - start) / 2, end + start
    parts = scene.primitives
    parts += [floor(start, half_y, -0.02, ground)]
    parts += place([floor(beyond / 2, half_y, drop - 0.02, ground)], end - beyond / 2, 0, 0)
    parts += place([floor(long / 2, half_y, top + 0.02, 'plain', tint(rng, 0.85))], middle, 0, 0)
    for x, y, yaw, along in (
        (middle, -half_y, math.pi / 2, long),
        (middle, half_y, -math.pi / 2, long),
        (-start, 0, 0, 2 * half_y),
        (end, 0, math.pi, 2 * half_y),
    ):
        wall = sheet(-0.01, 0, (low + top) / 2, 0, along, top - low + 0.1, material, color)
        parts += place([wall], x, y, yaw)
    parts += closed_door(rng, -start, 0.0, 0.0, 2 * half_y)
    parts += closed_door(rng, end, drop, math.pi, 2 * half_y)
    treads = _treads(rng)
    for i in range(steps - 1):
        x, z = start + (i + 0.5) * going, (i + 1) * turn * rise
        parts += _step(x, (edge - half_y) / 2, low, z, going, wide, treads)
    if turn > 0:  # the last riser
        parts.append(
            box(start + run + 0.02, (edge - half_y) / 2, 0, 0.04, wide, drop - 0.01, *treads[0])
        )
    if void:
        parts += place([floor(long / 2, half_y, low - 0.03, ground)], middle, 0, 0)
        parts += _railing(rng, (start, edge, 0), (start + run, edge, drop), 2 * steps, rise)
        x, z = (start, 0) if turn < 0 else (start + run, drop)
        parts += _railing(rng, (x, edge, z), (x, half_y, z), int(void / 0.13), 0.0)
    if turn < 0 and rng.random() < 0.3:  # the underside of the flight above
        under = (start + 0.3, 0, top), (start + run + 0.3, 0, drop + top)
        parts.append(_beam(*under, half_y, 0.05, tint(rng, 0.8)))
    lamps(scene, rng, landing, 2 * half_y, top)
    scene.sights = [
        (start + share * run, (edge - half_y) / 2, share * drop + 0.3) for share in (0.3, 0.6, 1)
    ]
    return scene


def _treads(rng):
    """Finishes (material, colour) of a flight's body and of its treads, often the same."""
    finishes = [
        (variant(rng, 'wood', 'solid'), (1, 1, 1)),
        (variant(rng, rng.choice(['carpet', 'concrete']), 'solid'), (1, 1, 1)),
        ('plain', tint(rng, rng.uniform(0.3, 0.8))),
    ]
    body = finishes[rng.integers(3)]
    return body, (body if rng.random() < 0.4 else finishes[rng.integers(3)])


def _step(x, y, low, z, going, width, finishes):
    """One step up to z: a body from the lowest floor on, and a tread with a nosing."""
    body, tread = finishes
    return [
        box(x, y, low, going, width, z - low - 0.03, *body),
        box(x, y, z - 0.03, going + 0.03, width, 0.03, *tread),
    ]


def _beam(a, b, half_width, half_height, color, material='plain'):
    """Straight beam from point a to point b."""
    ahead, left, up = (q - p for p, q in zip(a, b))
    level = math.hypot(ahead, left)
    slope = math.atan2(up, level)
    return Primitive(
        BOX,
        tuple((p + q) / 2 for p, q in zip(a, b)),
        (math.hypot(level, up) / 2, half_width, half_height),
        math.atan2(left, ahead),
        material,
        color,
        (math.cos(slope / 2), 0, -math.sin(slope / 2), 0),
    )


def _railing(rng, a, b, count, sag):
    """
    Banister from a to b, points of the floor: balusters or a parapet, posts at its ends.

    Steps lie up to `sag` metres below the line from a to b.
    """
    rail = rng.uniform(0.85, 1.05)
    wooden = rng.random() < 0.5
    finish = (variant(rng, 'wood', 'solid'), (1, 1, 1)) if wooden else enamel(rng)
    (x, y, z), (dx, dy, dz) = a, (q - p for p, q in zip(a, b))
    if rng.random() < 0.2:
        middle = (rail - sag) / 2
        return [_beam(_above(a, middle), _above(b, middle), 0.05, (rail + sag) / 2, tint(rng))]
    parts = [_beam(_above(a, rail), _above(b, rail), 0.03, 0.025, finish[1], finish[0])]
    parts += [box(*p, 0.09, 0.09, rail + 0.08, *finish) for p in (a, b)]
    radius, color = rng.uniform(0.008, 0.02), tint(rng, rng.uniform(0.1, 0.7))
    for i in range(1, count):
        share = i / count
        foot = (x + share * dx, y + share * dy, z + share * dz - sag)
        parts.append(post(*foot, radius, rail + sag, color))
    return parts


def _above(point, height):
    return (*point[:2], point[2] + height)
