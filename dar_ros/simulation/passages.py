"""Flats and stairs: what is seen along hallways, through doorways and down a flight of steps."""

import math
from dataclasses import dataclass

from dar_ros.simulation import fixtures, furniture
from dar_ros.simulation.placing import Scene, furnish, furnish_room, hang, lamps
from dar_ros.simulation.renderer import BOX, Primitive
from dar_ros.simulation.solids import box, place, post
from dar_ros.simulation.walls import floor, ground_of, inner_wall, sheet, tint, variant

_DOOR = 2.05  # height, metres


def flat(rng, stock):
    """
    Draw a hallway with rooms at its sides and ends, seen from it or from one of the rooms.

    Its doorways are open, ajar or closed.
    """
    length, width, height = rng.uniform(2, 8), rng.uniform(0.9, 1.9), rng.uniform(2.3, 3.2)
    scene = Scene('flat', (length / 2, width / 2), height)
    finish, thick = _wall_finish(rng), rng.uniform(0.08, 0.25)
    parts, rooms = scene.primitives, []
    for side in (-1, 1):
        deep = rng.uniform(2.4, 5)
        for middle, along in _cut(rng, length):
            wall = (middle, side * width / 2, side * math.pi / 2, along)
            door = None if rng.random() < 0.15 else _Door(rng, wall)
            parts += _partition(rng, wall, height, thick, finish, door)
            rooms.append(_Room(middle, side * (width + deep) / 2, along, deep, 2 - side, door))
    for end in (-1, 1):
        wall = (end * length / 2, 0.0, (end < 0) * math.pi, width)
        if rng.random() < 0.4:
            parts += inner_wall(rng, (end > 0) * math.pi, width, length / 2, height, *finish)
            scene.sights.append((*wall[:2], 1.0))
            continue
        door = _Door(rng, wall, whole=rng.random() < 0.3)
        if not door.whole:
            parts += _partition(rng, wall, height, thick, finish, door)
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
    (material, color), ground = _wall_finish(rng), ground_of(rng)
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
    parts += _closed_door(rng, -start, 0.0, 0.0, 2 * half_y)
    parts += _closed_door(rng, end, drop, math.pi, 2 * half_y)
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


class _Door:
    """
    Doorway in a wall (x, y, yaw of its normal into the room, length), or for want of the `whole`
    wall: where it is, how wide, and the place (x, y, radius) that an open leaf takes.
    """

    def __init__(self, rng, wall, whole=False):
        self.x, self.y, self.yaw, self.clear = wall
        self.whole, self.open, self.hung, self.leaf = whole, True, False, None
        if whole:
            return
        along, self.clear = self.clear, min(rng.uniform(0.7, 1.0), self.clear - 0.25)
        self.offset = rng.uniform(-1, 1) * ((along - self.clear) / 2 - 0.1)
        self.x, self.y, _ = self.beside(0.0, self.offset)
        # Its leaf hangs left or right, and opens into the room.
        self.hung, self.hinge = rng.random() < 0.7, rng.choice([-1, 1])
        self.open = not self.hung or rng.random() < 0.7
        self.ajar = rng.uniform(0.2, 1.5) if self.open else 0.0
        if self.hung and self.open:
            ahead, aside = math.sin(self.ajar), self.hinge * (1 - math.cos(self.ajar))
            x, y, _ = self.beside(ahead * self.clear / 2, aside * self.clear / 2)
            self.leaf = (x, y, self.clear / 2)

    def beside(self, ahead, aside=0.0):
        """Point (x, y, 1 m) that far into the room, and to the left."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + c * ahead - s * aside, self.y + s * ahead + c * aside, 1.0


def _wall_finish(rng):
    """Material and colour of walls: paint more often than in a shell, one in six darker."""
    material = 'plain' if rng.random() < 0.75 else variant(rng, 'plaster', 'sheet')
    return material, tint(rng, 0.4 if rng.random() < 0.17 else 0.82)


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


def _partition(rng, wall, height, thick, finish, door):
    """Wall (middle x, y, yaw of its normal, length) between two spaces, with a doorway or None."""
    x, y, yaw, along = wall
    if door is None:
        return place([sheet(0, 0, height / 2, 0, along, height, *finish, thick)], x, y, yaw)
    clear, middle = door.clear, door.offset
    left, right, above = middle - clear / 2, middle + clear / 2, height - _DOOR
    trim = ('plain', tint(rng, 0.6)) if rng.random() < 0.7 else (variant(rng, 'wood', 'solid'),)
    parts = [
        sheet(0, middle, height - above / 2, 0, clear, above, *finish, thick),
        box(0, left, 0, thick + 0.04, 0.07, _DOOR, *trim),
        box(0, right, 0, thick + 0.04, 0.07, _DOOR, *trim),
        box(0, middle, _DOOR - 0.03, thick + 0.04, clear + 0.07, 0.07, *trim),
    ]
    skirting = tint(rng, 0.5)
    for low, high in ((-along / 2, left), (right, along / 2)):
        across, wide = (low + high) / 2, high - low
        parts += [
            sheet(0, across, height / 2, 0, wide, height, *finish, thick),
            box(0, across, 0, thick + 0.02, wide, 0.08, 'plain', skirting),
        ]
    if door.hung:
        turned = (math.pi if door.hinge < 0 else 0.0) + door.hinge * door.ajar
        leaf = _leaf(rng, clear - 0.08)
        parts += place(leaf, thick / 2 - 0.02, middle + door.hinge * (clear / 2 - 0.04), turned)
    return place(parts, x, y, yaw)


def _leaf(rng, width):
    """Door leaf from its hinge at the origin to -y: plain or with panels, with a handle."""
    height, middle = _DOOR - 0.05, -width / 2
    wooden = rng.random() < 0.4
    material, color = (variant(rng, 'wood', 'solid'), (1, 1, 1)) if wooden else _enamel(rng)
    parts = [box(0, middle, 0.01, 0.04, width, height, material, color)]
    if rng.random() < 0.6:
        darker, rows = rng.uniform(0.8, 0.95), int(rng.integers(1, 4))
        shade = tuple(c * darker for c in color)
        tall = (height - 0.12) / rows - 0.12
        for i in range(rows):
            bottom = 0.13 + i * (tall + 0.12)
            parts.append(box(0, middle, bottom, 0.055, width - 0.24, tall, material, shade))
    parts.append(box(0, 0.09 - width, 1.02, 0.13, 0.1, 0.022, 'plain', (0.65, 0.65, 0.65)))
    return parts


def _enamel(rng):
    return 'plain', tint(rng, 0.6)


def _closed_door(rng, x, z, yaw, along):
    """Perhaps a closed door in a wall around (x, 0) that faces along yaw, from a floor at z."""
    if along < 1.1 or rng.random() < 0.3:
        return []
    clear = rng.uniform(0.75, 0.95)
    middle = rng.uniform(-1, 1) * ((along - clear) / 2 - 0.05)
    frame = box(0, middle, 0, 0.03, clear + 0.12, _DOOR + 0.03, *_enamel(rng))
    parts = [frame, *place(_leaf(rng, clear), 0.01, middle + clear / 2, 0)]
    for part in parts:
        part.center = (*part.center[:2], part.center[2] + z)
    return place(parts, x, 0, yaw)


def _walls_of(rng, room, height, finish, shown):
    """Slabs and walls of a room but the shared one; without windows and the like unless shown."""
    if rng.random() < 0.5:
        finish = _wall_finish(rng)
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
    finish = (variant(rng, 'wood', 'solid'), (1, 1, 1)) if wooden else _enamel(rng)
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
