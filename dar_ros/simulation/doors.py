"""Doorways, their doors, and the walls they are in."""

import math

from dar_ros.simulation.solids import box, place
from dar_ros.simulation.walls import sheet, tint, variant

_HEIGHT = 2.05  # of a doorway, metres


class Doorway:
    """
    A doorway in a wall (x, y, yaw of its normal into the room, length), or in place of the `whole`
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


def partition(rng, wall, height, thick, finish, door):
    """Wall (middle x, y, yaw of its normal, length) between two spaces, with a doorway or None."""
    x, y, yaw, along = wall
    if door is None:
        return place([sheet(0, 0, height / 2, 0, along, height, *finish, thick)], x, y, yaw)
    clear, middle = door.clear, door.offset
    left, right, above = middle - clear / 2, middle + clear / 2, height - _HEIGHT
    trim = ('plain', tint(rng, 0.6)) if rng.random() < 0.7 else (variant(rng, 'wood', 'solid'),)
    parts = [
        sheet(0, middle, height - above / 2, 0, clear, above, *finish, thick),
        box(0, left, 0, thick + 0.04, 0.07, _HEIGHT, *trim),
        box(0, right, 0, thick + 0.04, 0.07, _HEIGHT, *trim),
        box(0, middle, _HEIGHT - 0.03, thick + 0.04, clear + 0.07, 0.07, *trim),
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


def closed_door(rng, x, z, yaw, along):
    """Perhaps a closed door in a wall around (x, 0) that faces along yaw, from a floor at z."""
    if along < 1.1 or rng.random() < 0.3:
        return []
    clear = rng.uniform(0.75, 0.95)
    middle = rng.uniform(-1, 1) * ((along - clear) / 2 - 0.05)
    frame = box(0, middle, 0, 0.03, clear + 0.12, _HEIGHT + 0.03, *enamel(rng))
    parts = [frame, *place(_leaf(rng, clear), 0.01, middle + clear / 2, 0)]
    for part in parts:
        part.center = (*part.center[:2], part.center[2] + z)
    return place(parts, x, 0, yaw)


def _leaf(rng, width):
    """Door leaf from its hinge at the origin to -y: plain or with panels, with a handle."""
    height, middle = _HEIGHT - 0.05, -width / 2
    wooden = rng.random() < 0.4
    material, color = (variant(rng, 'wood', 'solid'), (1, 1, 1)) if wooden else enamel(rng)
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


def wall_finish(rng):
    """Material and colour of walls: paint more often than in a shell, one in six darker."""
    material = 'plain' if rng.random() < 0.75 else variant(rng, 'plaster', 'sheet')
    return material, tint(rng, 0.4 if rng.random() < 0.17 else 0.82)


def enamel(rng):
    """Material and colour of painted wood."""
    return 'plain', tint(rng, 0.6)
