"""Flats: what is seen along a hallway and through its doorways."""

import math
from dataclasses import dataclass

from dar_ros.simulation import fixtures, furniture
from dar_ros.simulation.doors import Doorway, partition, wall_finish
from dar_ros.simulation.placing import Scene, furnish, furnish_room, hang, lamps
from dar_ros.simulation.solids import place
from dar_ros.simulation.walls import floor, ground_of, inner_wall, sheet, tint


def flat(rng, stock):
    """
    Draw a hallway with rooms at its sides and ends, seen from it or from one of the rooms.

    Its doorways are open, ajar or closed.
    """
    length, width, height = rng.uniform(2, 8), rng.uniform(0.9, 1.9), rng.uniform(2.3, 3.2)
    scene = Scene('flat', (length / 2, width / 2), height)
    finish, thick = wall_finish(rng), rng.uniform(0.08, 0.25)
    parts, rooms = scene.primitives, []
    for side in (-1, 1):
        deep = rng.uniform(2.4, 5)
        for middle, along in _cut(rng, length):
            wall = (middle, side * width / 2, side * math.pi / 2, along)
            door = None if rng.random() < 0.15 else Doorway(rng, wall)
            parts += partition(rng, wall, height, thick, finish, door)
            rooms.append(_Room(middle, side * (width + deep) / 2, along, deep, 2 - side, door))
    for end in (-1, 1):
        wall = (end * length / 2, 0.0, (end < 0) * math.pi, width)
        if rng.random() < 0.4:
            parts += inner_wall(rng, (end > 0) * math.pi, width, length / 2, height, *finish)
            scene.sights.append((*wall[:2], 1.0))
            continue
        door = Doorway(rng, wall, whole=rng.random() < 0.3)
        if not door.whole:
            parts += partition(rng, wall, height, thick, finish, door)
        deep, wide = rng.uniform(2.5, 6), width + rng.uniform(1.2, 4)
        rooms.append(_Room(end * (length + deep) / 2, 0.0, deep, wide, 1 - end, door))
    entered = [room for room in rooms if room.door]
    doors = [room.door for room in entered]
    # Seen from a room, or from the hallway.
    home = entered[rng.integers(len(entered))] if entered and rng.random() < 0.4 else None
    shown = [room for room in entered if room is home or room.door.open]
    parts += _slabs(rng, length, width, height)
    for room in rooms:
        parts += _walls_of(rng, room, height, finish, room in shown)
    # Last, for what exceeds the renderer's pool is left out.
    hallway = Scene('corridor', scene.half, height)
    area = (0.0, 0.0, length - thick, width - thick)
    _furnish(rng, stock, scene, hallway, area, doors, _furnish_hallway)
    for room in shown:
        interior = Scene('room', (room.length / 2, room.width / 2), height)
        _furnish(rng, stock, scene, interior, room.area(thick), doors, furnish_room)
    scene.occupied += [door.leaf for door in doors if door.leaf]
    lamps(scene, rng, length, width + 6, height)
    if home:
        scene.sights = [home.door.beside(-0.5)]
        scene.move(-home.x, -home.y)
        scene.half = (home.length / 2, home.width / 2)
    else:
        scene.sights += [door.beside(0.5) for door in doors]
    within = scene.half[0] + 0.5, scene.half[1] + 0.5  # others are behind walls
    scene.occupied = [o for o in scene.occupied if abs(o[0]) < within[0] and abs(o[1]) < within[1]]
    return scene


@dataclass
class _Room:
    """
    A room beside a hallway: centre and extents, which of its sides (as in `walls.shell`) is
    shared, and its doorway, if any.
    """

    x: float
    y: float
    length: float
    width: float
    shared: int
    door: object

    def area(self, thick):
        """Centre and extents of what its walls leave, half of the shared one standing in it."""
        across = thick / 2
        c, s = (
            round(math.cos(self.shared * math.pi / 2)),
            round(math.sin(self.shared * math.pi / 2)),
        )
        return (
            self.x + c * across / 2,
            self.y + s * across / 2,
            self.length - abs(c) * across,
            self.width - abs(s) * across,
        )


def _cut(rng, length):
    """Middles and lengths of one or two rooms along a hallway."""
    if length < 3.6 or rng.random() < 0.4:
        return [(0.0, length)]
    first = rng.uniform(1.8, length - 1.8)
    return [((first - length) / 2, first), (first / 2, length - first)]


def _slabs(rng, length, width, height):
    """Floor and ceiling."""
    return [
        floor(length / 2, width / 2, -0.02, ground_of(rng)),
        floor(length / 2, width / 2, height + 0.02, 'plain', tint(rng, 0.85)),
    ]


def _walls_of(rng, room, height, finish, shown):
    """Slabs and walls of a room but the shared one; without windows and the like unless shown."""
    if rng.random() < 0.5:
        finish = wall_finish(rng)
    parts = _slabs(rng, room.length, room.width, height)
    for side in range(4):
        yaw, even = side * math.pi / 2, side % 2 == 0
        along, across = (room.width, room.length / 2) if even else (room.length, room.width / 2)
        if side == room.shared:
            continue
        if shown:
            parts += inner_wall(rng, yaw, along - 0.04, across - 0.03, height, *finish)
        else:
            parts += place(
                [sheet(0.02 - across, 0, height / 2, 0, along, height, *finish)], 0, 0, yaw
            )
    return place(parts, room.x, room.y, 0)


def _furnish(rng, stock, scene, interior, area, doors, furnish_it):
    """Furnish a room, its doorways free, and move what is in it into the scene."""
    x, y, length, width = area
    ways = [(door.x - x, door.y - y, max(0.5, door.clear / 2)) for door in doors]
    ways += [(door.leaf[0] - x, door.leaf[1] - y, door.leaf[2]) for door in doors if door.leaf]
    interior.occupied += ways
    furnish_it(interior, rng, stock, length, width)
    interior.occupied = interior.occupied[len(ways) :]
    interior.move(x, y)
    scene.primitives += interior.primitives
    scene.occupied += interior.occupied


def _furnish_hallway(scene, rng, stock, length, width):
    """Put little enough into a hallway."""
    if rng.random() < 0.7:
        hang(scene, rng, stock, length, width)
    items = [fixtures.radiator]
    if width > 1.3:
        items += [furniture.cabinet, furniture.plant]
    furnish(scene, rng, length, width, items, int(rng.integers(3)), items, 0)
