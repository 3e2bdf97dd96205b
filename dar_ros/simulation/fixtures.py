"""
What is built in or stands outside: kitchens, radiators, racks, cars, trees; see furniture.
"""

import math

from dar_ros.simulation.furniture import clutter
from dar_ros.simulation.renderer import CYLINDER, ELLIPSOID, Primitive
from dar_ros.simulation.solids import box, finish, paint, post

_LYING = (math.cos(math.pi / 4), math.sin(math.pi / 4), 0, 0)  # a cylinder's axis along y


def kitchen(rng):
    """Counter 90 cm high and 60 deep, oven, wall cabinets."""
    width = rng.uniform(1.8, 3.2)
    material, color = finish(rng)
    parts = [
        box(0, 0, 0.1, 0.58, width, 0.76, material, color),
        box(0.01, 0, 0.87, 0.62, width, 0.04, f'concrete/solid/{rng.integers(9)}'),
        box(-0.12, 0, 1.42, 0.35, width, 0.7, material, color),
    ]
    units = int(width / 0.6)
    for i in range(units):
        y = (i + 0.5) * width / units - width / 2
        parts.append(
            box(
                0.3,
                y,
                0.12,
                0.02,
                width / units - 0.01,
                0.72,
                material,
                tuple(0.88 * c for c in color),
            )
        )
        parts.append(box(0.32, y, 0.78, 0.02, 0.16, 0.015, 'plain', (0.75, 0.75, 0.75)))
    parts.append(box(0.31, 0, 0.25, 0.02, 0.56, 0.45, 'plain', (0.05, 0.05, 0.06)))
    for _ in range(3):
        parts += clutter(rng, rng.uniform(-0.15, 0.2), rng.uniform(-0.4, 0.4) * width, 0.91)
    return parts, 0.62, width


def fridge(rng):
    """Fridge-freezer, 60 x 65 cm."""
    height, color = rng.uniform(1.4, 2.0), (rng.uniform(0.6, 0.95),) * 3
    return (
        [
            box(0, 0, 0.03, 0.62, 0.6, height, 'plain', color),
            box(0.32, 0, 0.05, 0.03, 0.59, height * 0.33, 'plain', color),
            box(0.32, 0, height * 0.36 + 0.05, 0.03, 0.59, height * 0.62, 'plain', color),
            box(0.35, 0.24, height * 0.45, 0.03, 0.02, 0.35, 'plain', (0.5, 0.5, 0.5)),
        ],
        0.65,
        0.6,
    )


def radiator(rng):
    """Panel radiator 60 cm high."""
    width = rng.uniform(0.6, 1.4)
    ribs = int(width / 0.1)
    return (
        [box(0, 0, 0.12, 0.06, width, 0.6)]
        + [
            box(
                0.04,
                (i + 0.5) * width / ribs - width / 2,
                0.14,
                0.02,
                0.05,
                0.56,
                'plain',
                (0.9, 0.9, 0.9),
            )
            for i in range(ribs)
        ],
        0.12,
        width,
    )


def rack(rng):
    """Pallet rack 2.7 m wide with crates."""
    levels, steel = int(rng.integers(2, 5)), (0.1, 0.2, rng.uniform(0.4, 0.7))
    parts = [
        box(sx * 0.5, sy * 1.35, 0, 0.1, 0.1, levels * 1.5, 'plain', steel)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    for i in range(levels):
        parts += [
            box(sx * 0.5, 0, i * 1.5 + 0.1, 0.05, 2.7, 0.12, 'plain', (0.9, 0.45, 0.1))
            for sx in (-1, 1)
        ]
        for y in (-0.85, 0, 0.85):
            if rng.random() < 0.75:
                parts += [
                    box(0, y, i * 1.5 + 0.22, 1.0, 0.8, 0.14, f'wood/solid/{rng.integers(100)}'),
                    box(
                        0,
                        y,
                        i * 1.5 + 0.36,
                        0.95,
                        0.75,
                        rng.uniform(0.4, 1.0),
                        'plain',
                        paint(rng),
                    ),
                ]
    return parts, 1.1, 2.8


def car(rng):
    """Passenger car, 4.2 x 1.8 x 1.5 m."""
    body, glass = paint(rng), (0.08, 0.1, 0.12)
    parts = [
        box(0, 0, 0.25, 4.2, 1.78, 0.6, 'plain', body),
        box(-0.2, 0, 0.85, 2.3, 1.6, 0.5, 'plain', glass),
        box(-0.2, 0, 1.35, 1.8, 1.5, 0.08, 'plain', body),
    ]
    parts += [
        Primitive(
            CYLINDER,
            (sx * 1.3, sy * 0.82, 0.32),
            (0.32, 0.1),
            0,
            'plain',
            (0.05, 0.05, 0.05),
            _LYING,
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return parts, 4.2, 1.8


def tree(rng):
    """Tree of 4-9 m."""
    height = rng.uniform(4, 9)
    parts = [post(0, 0, 0, rng.uniform(0.12, 0.25), height * 0.5, (0.33, 0.24, 0.16))]
    for _ in range(4):
        green = (rng.uniform(0.08, 0.3), rng.uniform(0.3, 0.5), 0.12)
        center = (*rng.uniform(-0.12, 0.12, 2) * height, rng.uniform(0.5, 0.9) * height)
        parts.append(
            Primitive(
                ELLIPSOID, center, tuple(rng.uniform(0.12, 0.25, 3) * height), 0, 'plain', green
            )
        )
    return parts, 1.0, 1.0
