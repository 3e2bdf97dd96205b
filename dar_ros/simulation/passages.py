"""Flats and stairs: what is seen along hallways, through doorways and down a flight of steps."""

import math

from dar_ros.simulation import fixtures, furniture
from dar_ros.simulation.placing import Scene, furnish, furnish_room, hang, lamps
from dar_ros.simulation.renderer import BOX, Primitive
from dar_ros.simulation.solids import box, place, post
from dar_ros.simulation.walls import floor, inner_wall, sheet, tint, variant

_DOOR = 2.05  # height, metres


def flat(rng, stock):
    """
    Draw a hallway with rooms at its sides and ends, seen from it or from one of the rooms.

    Its doorways are open, ajar or closed.
    """
    length, width, height = rng.uniform(2, 8), rng.uniform(0.9, 1.9), rng.uniform(2.3, 3.2)
    scene = Scene('flat', (length / 2, width / 2), height)
    paint, parts = _paint(rng), scene.primitives
    rooms, doors = [], []  # rooms: centre x, y, extents, which side (as in `shell`) is shared
    for side in (-1, 1):
        deep = rng.uniform(2.4, 5)
        for middle, along in _cut(rng, length):
            rooms.append((middle, side * (width + deep) / 2, along, deep, 2 - side))
            wall = (middle, side * width / 2, math.pi / 2, along)
            doors.append(_partition(rng, parts, wall, height, paint))
    for end in (-1, 1):
        wall = (end * length / 2, 0.0, 0.0, width)
        if rng.random() < 0.6:
            deep, wide = rng.uniform(2.5, 6), width + rng.uniform(1.2, 4)
            rooms.append((end * (length + deep) / 2, 0.0, deep, wide, 1 - end))
            closed = rng.random() < 0.7  # or as wide as the hallway
            doors.append(_partition(rng, parts, wall, height, paint) if closed else wall[:2])
        else:
            parts += inner_wall(rng, (end > 0) * math.pi, width, length / 2, height, *paint)
            scene.sights.append((*wall[:2], 1.0))
    doors = [door for door in doors if door]
    scene.sights += [(1.4 * x, 1.4 * y, 1.0) for x, y in doors]  # what lies behind them
    parts += _slabs(rng, length, width, height)
    interiors = [_room(rng, parts, room, height, paint) for room in rooms]
    # Last, for what exceeds the pool is left out.
    hallway = Scene('corridor', scene.half, height)
    _furnish(rng, stock, scene, hallway, (0.0, 0.0, length, width), doors, _furnish_hallway)
    for interior, room in zip(interiors, rooms):
        _furnish(rng, stock, scene, interior, room[:4], doors, furnish_room)
    lamps(rng, scene, length, width + 6, height)
    if rng.random() < 0.4:
        x, y, along, across, _ = rooms[rng.integers(len(rooms))]
        scene.move(-x, -y)
        scene.half = (along / 2, across / 2)
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
    (material, color), ground = _paint(rng), _ground(rng)
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
        parts.append(box(start + run + 0.02, (edge - half_y) / 2, 0, 0.04, wide, drop, *treads[0]))
    if void:
        parts += place([floor(long / 2, half_y, low - 0.03, ground)], middle, 0, 0)
        parts += _railing(rng, (start, edge, 0), (start + run, edge, drop), 2 * steps)
        x, z = (start, 0) if turn < 0 else (start + run, drop)
        parts += _railing(rng, (x, edge, z), (x, half_y, z), int(void / 0.13))
    if turn < 0 and rng.random() < 0.3:  # the underside of the flight above
        bottom = rng.uniform(2.1, 2.5)
        under = (start + 0.3, 0, bottom), (start + run + 0.3, 0, drop + bottom)
        parts.append(_beam(*under, half_y, 0.05, tint(rng, 0.8)))
    lamps(rng, scene, landing, 2 * half_y, top)
    scene.sights = [
        (start + share * run, (edge - half_y) / 2, share * drop + 0.3) for share in (0.3, 0.6, 1)
    ]
    return scene


def _paint(rng):
    """Material and colour of walls: paint more often than in a shell, one in six darker."""
    material = 'plain' if rng.random() < 0.75 else variant(rng, 'plaster', 'sheet')
    return material, tint(rng, 0.4 if rng.random() < 0.17 else 0.82)


def _ground(rng):
    return variant(rng, rng.choice(['planks', 'planks', 'carpet', 'tiles', 'concrete']), 'sheet')


def _cut(rng, length):
    """Middles and lengths of one or two rooms along a hallway."""
    if length < 3.6 or rng.random() < 0.4:
        return [(0.0, length)]
    first = rng.uniform(1.8, length - 1.8)
    return [((first - length) / 2, first), (first / 2, length - first)]


def _slabs(rng, length, width, height):
    """Floor and ceiling."""
    return [
        floor(length / 2, width / 2, -0.02, _ground(rng)),
        floor(length / 2, width / 2, height + 0.02, 'plain', tint(rng, 0.85)),
    ]


def _partition(rng, parts, wall, height, paint):
    """
    Add a wall between two spaces to the parts, perhaps with a doorway; its place (x, y) or None.

    `wall` is the middle x, y, the yaw of its normal, and its length.
    """
    x, y, yaw, along = wall
    thick, (material, color) = rng.uniform(0.08, 0.25), paint
    clear = min(rng.uniform(0.7, 1.0), along - 0.25)
    if rng.random() < 0.15:
        parts += place(
            [sheet(0, 0, height / 2, 0, along, height, material, color, thick)], x, y, yaw
        )
        return None
    middle = rng.uniform(-1, 1) * ((along - clear) / 2 - 0.1)
    left, right = middle - clear / 2, middle + clear / 2
    trim = ('plain', tint(rng, 0.6)) if rng.random() < 0.7 else (variant(rng, 'wood', 'solid'),)
    above = height - _DOOR
    made = [
        sheet(0, middle, height - above / 2, 0, clear, above, material, color, thick),
        box(0, left, 0, thick + 0.04, 0.07, _DOOR, *trim),
        box(0, right, 0, thick + 0.04, 0.07, _DOOR, *trim),
        box(0, middle, _DOOR - 0.03, thick + 0.04, clear + 0.07, 0.07, *trim),
    ]
    skirting = tint(rng, 0.5)
    for low, high in ((-along / 2, left), (right, along / 2)):
        across, wide = (low + high) / 2, high - low
        made += [
            sheet(0, across, height / 2, 0, wide, height, material, color, thick),
            box(0, across, 0, thick + 0.02, wide, 0.08, 'plain', skirting),
        ]
    if rng.random() < 0.7:
        # A leaf hangs at its hinge, left or right, and opens to one side or the other.
        hinge, swing = rng.choice([-1, 1]), rng.choice([-1, 1])
        ajar = 0.0 if rng.random() < 0.3 else rng.uniform(0.2, 1.8)
        yaw_of_leaf = (math.pi if hinge < 0 else 0.0) - hinge * swing * ajar
        hung = middle + hinge * (clear / 2 - 0.04)
        made += place(_leaf(rng, clear - 0.08), swing * (thick / 2 - 0.02), hung, yaw_of_leaf)
    parts += place(made, x, y, yaw)
    return x - math.sin(yaw) * middle, y + math.cos(yaw) * middle


def _leaf(rng, width):
    """Door leaf from its hinge at the origin to -y: plain or with panels, with a handle."""
    height, middle = _DOOR - 0.05, -width / 2
    wooden = rng.random() < 0.4
    material, color = (variant(rng, 'wood', 'solid'), (1, 1, 1)) if wooden else _enamel(rng)
    parts = [box(0, middle, 0.01, 0.04, width, height, material, color)]
    if rng.random() < 0.6:
        shade, rows = tuple(c * rng.uniform(0.8, 0.95) for c in color), int(rng.integers(1, 4))
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


def _room(rng, parts, room, height, paint):
    """Add a room's slabs and walls, but the one that is shared; its own Scene, of no part yet."""
    x, y, length, width, shared = room
    if rng.random() < 0.5:
        paint = _paint(rng)
    made = _slabs(rng, length, width, height)
    for side in range(4):
        along, across = (width, length / 2) if side % 2 == 0 else (length, width / 2)
        if side != shared:
            made += inner_wall(
                rng, side * math.pi / 2, along - 0.04, across - 0.03, height, *paint
            )
    parts += place(made, x, y, 0)
    return Scene('room', (length / 2, width / 2), height)


def _furnish(rng, stock, scene, interior, area, doors, furnish_it):
    """Furnish a room, its doorways free, and move what is in it into the scene."""
    x, y, length, width = area
    ways = [(door_x - x, door_y - y, 0.5) for door_x, door_y in doors]
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
    items = (fixtures.radiator, furniture.cabinet, furniture.plant)
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


def _railing(rng, a, b, count):
    """Banister from a to b, points of the floor: balusters or a parapet, posts at its ends."""
    rail = rng.uniform(0.85, 1.05)
    wooden = rng.random() < 0.5
    finish = (variant(rng, 'wood', 'solid'), (1, 1, 1)) if wooden else _enamel(rng)
    (x, y, z), (dx, dy, dz) = a, (q - p for p, q in zip(a, b))
    if rng.random() < 0.2:
        return [_beam(_above(a, rail / 2), _above(b, rail / 2), 0.05, rail / 2, tint(rng))]
    parts = [_beam(_above(a, rail), _above(b, rail), 0.03, 0.025, finish[1], finish[0])]
    parts += [box(*p, 0.09, 0.09, rail + 0.08, *finish) for p in (a, b)]
    radius, color = rng.uniform(0.008, 0.02), tint(rng, rng.uniform(0.1, 0.7))
    for i in range(1, count):
        share = i / count
        parts.append(post(x + share * dx, y + share * dy, z + share * dz, radius, rail, color))
    return parts


def _above(point, height):
    return (*point[:2], point[2] + height)
