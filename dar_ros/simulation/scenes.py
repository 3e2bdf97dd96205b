"""Random scenes: rooms, corridors, halls, streets; flats and stairs in modules of their own."""

import math

import numpy as np

from dar_ros.simulation import fixtures, furniture
from dar_ros.simulation.flats import flat
from dar_ros.simulation.placing import (
    FLOOR_ITEMS,
    Scene,
    against_wall,
    furnish,
    furnish_room,
    hang,
    lamps,
    makers,
    put,
)
from dar_ros.simulation.renderer import BOX, Light, Primitive
from dar_ros.simulation.solids import box
from dar_ros.simulation.stairs import stairs
from dar_ros.simulation.walls import floor, sheet, shell, tint, variant

KINDS = ('room', 'corridor', 'hall', 'outdoor', 'kitchen', 'bathroom', 'bare', 'flat', 'stairs')
_FURNISHINGS = {
    'kitchen': (('kitchen', 'kitchen', 'kitchen', 'storage'), ('dining', 'chair', 'person')),
    'bathroom': (('bathroom', 'bathroom', 'bathroom', 'storage'), ('small', 'person')),
    'corridor': (('storage', 'standing', 'chair', 'desk'), ('person', 'small', 'standing')),
    'hall': (
        ('storage', 'standing', 'vehicle'),
        ('person', 'dining', 'desk', 'standing', 'vehicle'),
    ),
}


def make_scene(rng, kind, stock=None):
    """
    Draw a scene of one of KINDS; it depends on the state of `rng` and on the stock only.

    Without a stock of meshes everything is built of primitives.
    """
    return {
        'room': _room,
        'kitchen': _kitchen,
        'bathroom': _bathroom,
        'corridor': _corridor,
        'hall': _hall,
        'outdoor': _outdoor,
        'bare': _bare,
        'flat': flat,
        'stairs': stairs,
    }[kind](rng, stock)


def _room(rng, stock):
    length, width, height = rng.uniform(3, 8), rng.uniform(2.6, 6.5), rng.uniform(2.35, 3.1)
    scene = Scene('room', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    if rng.random() < 0.5:
        scene.primitives.append(
            floor(
                rng.uniform(0.6, 1.4),
                rng.uniform(0.5, 1.1),
                0.0,
                variant(rng, rng.choice(['fabric', 'carpet']), 'sheet'),
            )
        )
    furnish_room(scene, rng, stock, length, width)
    lamps(scene, rng, length, width, height)
    return scene


def _kitchen(rng, stock):
    length, width, height = rng.uniform(3, 5.5), rng.uniform(2.6, 4.5), rng.uniform(2.4, 2.8)
    scene = Scene('kitchen', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    at_wall, on_floor = _FURNISHINGS['kitchen']
    for _ in range(2):
        against_wall(scene, rng, length, width, fixtures.kitchen(rng))
    hang(scene, rng, stock, length, width)
    counters = (fixtures.fridge, furniture.cabinet, fixtures.radiator)
    seats = (furniture.table, furniture.chair, furniture.chair, furniture.bin_, furniture.person)
    furnish(
        scene,
        rng,
        length,
        width,
        makers(rng, stock, counters, at_wall),
        7,
        makers(rng, stock, seats, on_floor),
        4,
    )
    lamps(scene, rng, length, width, height)
    return scene


def _bathroom(rng, stock):
    length, width, height = rng.uniform(2.2, 4), rng.uniform(2, 3.2), rng.uniform(2.3, 2.7)
    scene = Scene('bathroom', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    at_wall, on_floor = _FURNISHINGS['bathroom']
    hang(scene, rng, stock, length, width)
    furnish(
        scene,
        rng,
        length,
        width,
        makers(rng, stock, (furniture.cabinet, fixtures.radiator), at_wall),
        7,
        makers(rng, stock, (furniture.bin_,), on_floor),
        2,
    )
    lamps(scene, rng, length, width, height)
    return scene


def _bare(rng, stock):
    """Nothing but walls, with what hangs there in one room of two."""
    length, width, height = rng.uniform(2.5, 14), rng.uniform(1.5, 8), rng.uniform(2.3, 4)
    scene = Scene('bare', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    if rng.random() < 0.5:
        hang(scene, rng, stock, length, width)
    lamps(scene, rng, length, width, height)
    return scene


def _corridor(rng, stock):
    length, width, height = rng.uniform(8, 30), rng.uniform(1.5, 3), rng.uniform(2.3, 3)
    scene = Scene('corridor', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    at_wall, on_floor = _FURNISHINGS['corridor']
    lining = (
        furniture.cabinet,
        fixtures.radiator,
        furniture.plant,
        furniture.bin_,
        furniture.chair,
    )
    loose = (furniture.person, furniture.carton, furniture.bin_)
    hang(scene, rng, stock, length, width)
    furnish(
        scene,
        rng,
        length,
        width,
        makers(rng, stock, lining, at_wall),
        int(rng.integers(0, 7)),
        makers(rng, stock, loose, on_floor),
        int(rng.integers(0, 4)),
    )
    lamps(scene, rng, length, width, height)
    return scene


def _hall(rng, stock):
    length, width, height = rng.uniform(12, 30), rng.uniform(10, 24), rng.uniform(4, 9)
    scene = Scene('hall', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    if rng.random() < 0.6:
        for x in np.arange(-length / 2 + 4, length / 2 - 3, rng.uniform(4, 7)):
            for y in (-width / 4, width / 4):
                column = (_column(rng, height), 0.5, 0.5)
                put(scene, column, x, y, 0)
    at_wall, on_floor = _FURNISHINGS['hall']
    racks = (fixtures.rack, fixtures.rack, furniture.carton, furniture.cabinet)
    at_wall = makers(rng, stock, racks, at_wall)
    on_floor = makers(rng, stock, racks[:1] + FLOOR_ITEMS, on_floor)
    furnish(scene, rng, length, width, at_wall, 8, on_floor, 14)
    lamps(scene, rng, length, width, height)
    scene.ambient = max(scene.ambient, 0.4)
    return scene


def _column(rng, height):
    return [box(0, 0, 0, 0.4, 0.4, height, variant(rng, 'concrete', 'solid'))]


def _outdoor(rng, stock):
    scene = Scene('outdoor', (18.0, 3.5), 100.0)
    road = rng.uniform(5, 9)
    scene.primitives = [
        floor(70, 70, -0.03, variant(rng, rng.choice(['grass', 'concrete']), 'sheet')),
        Primitive(
            BOX,
            (0, 0, -0.02),
            (70, road / 2, 0.02),
            0,
            variant(rng, 'concrete', 'sheet'),
            (0.6, 0.6, 0.62),
        ),
    ]
    for x in np.arange(-60, 60, 6.0):
        scene.primitives.append(box(x, 0, 0, 2.5, 0.12, 0.003))
    for side in (-1, 1):
        scene.primitives += _facades(rng, side, road / 2 + rng.uniform(2, 10))
        _kerb(scene, rng, stock, side, road / 2)
    for _ in range(3):
        make = (furniture.person, furniture.carton)[rng.integers(2)]
        put(scene, make(rng), *rng.uniform(-1, 1, 2) * (12, 2), rng.uniform(0, 6))
    scene.lights = [_sun(rng)]
    scene.headlight, scene.ambient = 0.1, rng.uniform(0.35, 0.55)
    return scene


def _facades(rng, side, front):
    """Houses, some with gaps between them, on one side of a street; `front` metres from y = 0."""
    parts, x = [], -60.0
    while x < 60:
        along, tall = rng.uniform(8, 18), 3 * int(rng.integers(1, 5))
        if rng.random() < 0.75:
            deep, color = rng.uniform(6, 10), tint(rng, 0.5)
            middle = x + along / 2
            parts.append(
                box(middle, side * (front + deep / 2), 0, along, deep, tall, 'plain', color)
            )
            parts.append(
                sheet(
                    middle,
                    side * (front - 0.02),
                    tall / 2,
                    -side * math.pi / 2,
                    along,
                    tall,
                    variant(rng, 'facade', 'sheet'),
                    color,
                )
            )
        x += along + rng.choice([0, rng.uniform(1, 8)])
    return parts


def _kerb(scene, rng, stock, side, edge):
    """Put parked cars, and trees and people beside them, where the road ends: `edge` metres."""
    for _ in range(9):
        parked = rng.random() < 0.2
        made = makers(
            rng,
            stock,
            (fixtures.car,)
            if parked
            else (fixtures.tree, fixtures.tree, furniture.person, furniture.bin_),
            ('vehicle',) if parked else ('garden', 'person'),
        )
        y = side * (edge - 1.1 if parked else edge + rng.uniform(0.6, 1.6))
        item = made[rng.integers(len(made))](rng)
        yaw = rng.choice([0, math.pi]) if parked else rng.uniform(0, 2 * math.pi)
        put(scene, item, rng.uniform(-35, 35), y, yaw)


def _sun(rng):
    slope = (*rng.uniform(-0.7, 0.7, 2), -1.0)
    direction = tuple(np.array(slope) / np.linalg.norm(slope))
    return Light((0, 0, 40), rng.uniform(0.4, 0.8), direction, sun=True)
