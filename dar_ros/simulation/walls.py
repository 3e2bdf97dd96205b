"""What a closed space is made of: floor, ceiling, walls, doors, windows, pictures."""

import math

import numpy as np

from dar_ros.simulation.renderer import BOX, Primitive

_PLAIN = 0.55  # share of rooms with bare painted walls and no texture
_UPRIGHT = (0.5, 0.5, 0.5, 0.5)  # a sheet's x, y and normal to world y, z and x


def variant(rng, kind, mapping):
    """Name of one of the hundred variants of a material (see textures)."""
    return f'{kind}/{mapping}/{rng.integers(100)}'


def sheet(x, y, z, yaw, width, height, material, color=(1, 1, 1), thickness=0.02):
    """Upright panel centred at (x, y, z) that faces along yaw; its texture is in metres."""
    return Primitive(
        BOX, (x, y, z), (width / 2, height / 2, thickness / 2), yaw, material, color, _UPRIGHT
    )


def floor(half_x, half_y, z, material, color=(1, 1, 1)):
    """Level panel around the origin at height z; half extents in metres."""
    return Primitive(BOX, (0, 0, z), (half_x, half_y, 0.02), 0, material, color)


def ground_of(rng):
    """Material of an indoor floor."""
    return variant(rng, rng.choice(['planks', 'planks', 'carpet', 'tiles', 'concrete']), 'sheet')


def tint(rng, low=0.82):
    """Draw a nearly grey colour (r, g, b) of at least about `low`."""
    return tuple(np.clip(rng.uniform(low, 1.0) * (1 + rng.uniform(-0.08, 0.08, 3)), 0, 1))


def shell(rng, length, width, height):
    """Floor, ceiling, walls, skirting, doors, windows and pictures of a closed box."""
    ground = ground_of(rng)
    parts = [
        floor(length / 2, width / 2, -0.02, ground),
        floor(length / 2, width / 2, height + 0.02, 'plaster/sheet/0', tint(rng, 0.85)),
    ]
    same = 'plain' if rng.random() < _PLAIN else variant(rng, 'plaster', 'sheet')
    paint = tint(rng)
    for side in range(4):
        yaw = side * math.pi / 2
        along, across = (width, length / 2) if side % 2 == 0 else (length, width / 2)
        material = (
            variant(rng, rng.choice(['bricks', 'tiles', 'wood', 'fabric']), 'sheet')
            if rng.random() < 0.12
            else same
        )
        parts += inner_wall(rng, yaw, along, across, height, material, paint)
    return parts


def inner_wall(rng, yaw, along, across, height, material, paint):
    """Wall `across` from the origin that faces it along yaw, and what is in and on it."""
    # Inner faces look back at the centre: the panel stands at -across along its own normal.
    c, s = math.cos(yaw), math.sin(yaw)

    def panel(offset, z, w, h, finish, color, out, thickness=0.02):
        x, y = -(across - out), offset
        return sheet(c * x - s * y, s * x + c * y, z, yaw, w, h, finish, color, thickness)

    return [
        panel(0, height / 2, along, height, material, paint, -0.01),
        panel(0, 0.04, along, 0.08, 'plain', tint(rng, 0.5), 0.008),
        *_openings(rng, panel, along, height),
    ]


def _openings(rng, panel, along, height):
    """Doors, windows and pictures, next to each other along one wall."""
    parts, cursor = [], -along / 2 + rng.uniform(0.2, 0.8)
    while True:
        kind = rng.choice(['door', 'window', 'picture', 'gap', 'gap'])
        width = {
            'door': rng.uniform(0.8, 0.95),
            'window': rng.uniform(0.8, 1.8),
            'picture': rng.uniform(0.3, 1.0),
            'gap': rng.uniform(0.3, 1.2),
        }[kind]
        if cursor + width + 0.2 > along / 2:
            return parts
        middle = cursor + width / 2
        if kind == 'door':
            color = tint(rng, 0.6)
            wood = variant(rng, 'wood', 'sheet') if rng.random() < 0.5 else 'plain'
            parts += [
                panel(middle, 1.03, width + 0.14, 2.06, 'plain', tint(rng, 0.6), 0.015),
                panel(middle, 1.0, width, 2.0, wood, color, 0.03),
                panel(middle + width * 0.4, 1.05, 0.12, 0.025, 'plain', (0.7, 0.7, 0.7), 0.07),
            ]
        elif kind == 'window':
            top = min(height - 0.15, 2.15)
            sill = rng.uniform(0.0, 0.95)
            sky = (rng.uniform(0.75, 1.0), rng.uniform(0.85, 1.0), 1.0)
            z, tall = (top + sill) / 2, top - sill
            parts += [
                panel(middle, z, width + 0.1, tall + 0.1, 'plain', (0.95, 0.95, 0.95), 0.02),
                panel(middle, z, width - 0.02, tall - 0.02, 'plain', sky, 0.03),
                panel(middle, z, 0.06, tall, 'plain', (0.95, 0.95, 0.95), 0.045),
                panel(
                    middle, sill - 0.03, width + 0.2, 0.04, 'plain', (0.95, 0.95, 0.95), 0.08, 0.18
                ),
            ]
            if rng.random() < 0.5:
                cloth = variant(rng, 'fabric', 'sheet')
                parts += [
                    panel(
                        middle + s * (width / 2 + 0.1),
                        top / 2 + 0.15,
                        0.3,
                        top,
                        cloth,
                        (1, 1, 1),
                        0.1,
                        0.06,
                    )
                    for s in (-1, 1)
                ]
        elif kind == 'picture':
            tall, z = width * rng.uniform(0.6, 1.4), rng.uniform(1.4, 1.7)
            parts += [
                panel(middle, z, width + 0.05, tall + 0.05, 'plain', tint(rng, 0.1), 0.012),
                panel(middle, z, width, tall, variant(rng, 'poster', 'sheet'), (1, 1, 1), 0.026),
            ]
        cursor += width + rng.uniform(0.1, 0.7)
