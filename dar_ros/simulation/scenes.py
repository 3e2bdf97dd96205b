"""Random scenes: furnished rooms, corridors, halls, streets."""

import math
from dataclasses import dataclass, field

import numpy as np

from dar_ros.simulation import fixtures, furniture
from dar_ros.simulation.renderer import BOX, Light, Primitive
from dar_ros.simulation.solids import box, place, post
from dar_ros.simulation.walls import floor, sheet, shell, tint, variant

KINDS = ('room', 'corridor', 'hall', 'outdoor', 'kitchen', 'bathroom', 'bare')
# What stands at the walls and on the floor: built here,
_WALL_ITEMS = (
    furniture.table,
    furniture.shelf,
    furniture.shelf,
    furniture.cabinet,
    furniture.cabinet,
    furniture.sofa,
    furniture.sofa,
    furniture.bed,
    fixtures.fridge,
    fixtures.radiator,
    furniture.plant,
    furniture.lamp,
    furniture.chair,
)
_FLOOR_ITEMS = (
    furniture.table,
    furniture.chair,
    furniture.chair,
    furniture.chair,
    furniture.carton,
    furniture.plant,
    furniture.bin_,
    furniture.person,
    furniture.lamp,
)
# and of the stock of meshes, by kind; a room is one of several.
_ROOMS = (
    (('lounge', 'lounge', 'storage', 'standing', 'desk'), ('low', 'standing', 'chair', 'dining')),
    (('bed', 'storage', 'storage', 'desk', 'standing'), ('chair', 'small', 'standing')),
    (('desk', 'desk', 'desk', 'storage', 'standing'), ('desk', 'chair', 'standing', 'person')),
    (('storage', 'storage', 'lounge', 'standing'), ('dining', 'dining', 'chair', 'standing')),
)
_FURNISHINGS = {
    'kitchen': (('kitchen', 'kitchen', 'kitchen', 'storage'), ('dining', 'chair', 'person')),
    'bathroom': (('bathroom', 'bathroom', 'bathroom', 'storage'), ('small', 'person')),
    'corridor': (('storage', 'standing', 'chair', 'desk'), ('person', 'small', 'standing')),
    'hall': (
        ('storage', 'standing', 'vehicle'),
        ('person', 'dining', 'desk', 'standing', 'vehicle'),
    ),
}


@dataclass
class Scene:
    """Primitives, lights, and what the placing of cameras needs."""

    kind: str
    half: tuple  # half extents (x, y) in which a camera may stand
    ceiling: float
    primitives: list = field(default_factory=list)
    lights: list = field(default_factory=list)
    occupied: list = field(default_factory=list)  # (x, y, radius)
    headlight: float = 0.25
    ambient: float = 0.3

    def free(self, x, y, margin):
        """Whether a disc of that radius at (x, y) is clear of everything placed."""
        return all(
            (x - px) ** 2 + (y - py) ** 2 > (r + margin) ** 2 for px, py, r in self.occupied
        )


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
    }[kind](rng, stock)


def _makers(rng, stock, primitives, roles):
    """Makers of items: of a stock's groups and roles, and one in four of primitives."""
    if stock is None:
        return primitives
    groups = {'dining': 'table', 'desk': 'table', 'lounge': 'sofa'}
    able = [role for role in roles if stock.has(groups.get(role, role))]

    def of(role):
        if role in groups:
            return getattr(stock, role)
        return lambda rng: stock.item(rng, role)

    return [of(role) for role in able for _ in range(3)] + [
        primitives[i] for i in rng.integers(len(primitives), size=max(1, len(able)))
    ]


def _put(scene, item, x, y, yaw):
    """Place (parts, depth, width) unless something stands there; whether it was placed."""
    parts, depth, width = item
    radius = 0.45 * max(depth, width)
    if not scene.free(x, y, radius * 0.75):
        return False
    scene.primitives += place(parts, x, y, yaw)
    scene.occupied.append((x, y, radius))
    return True


def _against_wall(scene, rng, length, width, item):
    """Put an item with its back to a random wall."""
    _, depth, item_width = item
    side = int(rng.integers(4))
    along, across = (width, length / 2) if side % 2 == 0 else (length, width / 2)
    if item_width > along - 0.2:
        return False
    back, shift = (
        depth / 2 + rng.uniform(0.03, 0.1) - across,
        rng.uniform(-0.5, 0.5) * (along - item_width),
    )
    c, s = math.cos(side * math.pi / 2), math.sin(side * math.pi / 2)
    return _put(scene, item, c * back - s * shift, s * back + c * shift, side * math.pi / 2)


def _hang(scene, rng, stock, length, width):
    """Things on the walls, and doors of the stock."""
    for role in ('door', 'hung', 'hung'):
        if stock is not None and stock.has(role):
            parts, depth, across = stock.item(rng, role)
            _against_wall(scene, rng, length, width, (parts, depth, across))


def _furnish(scene, rng, length, width, wall_items, wall_count, floor_items, floor_count):
    for _ in range(wall_count):
        _against_wall(scene, rng, length, width, wall_items[rng.integers(len(wall_items))](rng))
    for _ in range(floor_count):
        item = floor_items[rng.integers(len(floor_items))](rng)
        x, y = rng.uniform(-1, 1, 2) * (max(0.1, length / 2 - 0.7), max(0.1, width / 2 - 0.7))
        _put(scene, item, x, y, rng.uniform(0, 2 * math.pi))


def _lights(rng, scene, length, width, height):
    for i in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.35, 0.35, 2) * (length, width)
        scene.lights.append(
            Light(
                (x, y, height - 0.25), rng.uniform(0.25, 0.6), shadow=i == 0 and rng.random() < 0.6
            )
        )
        scene.primitives.append(
            post(x, y, height - 0.1, rng.uniform(0.1, 0.25), 0.1, (1, 1, 0.93))
        )
    scene.headlight, scene.ambient = rng.uniform(0.05, 0.35), rng.uniform(0.4, 0.65)


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
    area = length * width
    at_wall, on_floor = _ROOMS[rng.integers(len(_ROOMS))]
    _hang(scene, rng, stock, length, width)
    _furnish(
        scene,
        rng,
        length,
        width,
        _makers(rng, stock, _WALL_ITEMS, at_wall),
        int(rng.integers(3, 9) + area / 6),
        _makers(rng, stock, _FLOOR_ITEMS, on_floor),
        int(rng.integers(1, 5) + area / 8),
    )
    _lights(rng, scene, length, width, height)
    return scene


def _kitchen(rng, stock):
    length, width, height = rng.uniform(3, 5.5), rng.uniform(2.6, 4.5), rng.uniform(2.4, 2.8)
    scene = Scene('kitchen', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    at_wall, on_floor = _FURNISHINGS['kitchen']
    for _ in range(2):
        _against_wall(scene, rng, length, width, fixtures.kitchen(rng))
    _hang(scene, rng, stock, length, width)
    counters = (fixtures.fridge, furniture.cabinet, fixtures.radiator)
    seats = (furniture.table, furniture.chair, furniture.chair, furniture.bin_, furniture.person)
    _furnish(
        scene,
        rng,
        length,
        width,
        _makers(rng, stock, counters, at_wall),
        7,
        _makers(rng, stock, seats, on_floor),
        4,
    )
    _lights(rng, scene, length, width, height)
    return scene


def _bathroom(rng, stock):
    length, width, height = rng.uniform(2.2, 4), rng.uniform(2, 3.2), rng.uniform(2.3, 2.7)
    scene = Scene('bathroom', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    at_wall, on_floor = _FURNISHINGS['bathroom']
    _hang(scene, rng, stock, length, width)
    _furnish(
        scene,
        rng,
        length,
        width,
        _makers(rng, stock, (furniture.cabinet, fixtures.radiator), at_wall),
        7,
        _makers(rng, stock, (furniture.bin_,), on_floor),
        2,
    )
    _lights(rng, scene, length, width, height)
    return scene


def _bare(rng, stock):
    """Nothing but walls, with what hangs there in one room of two."""
    length, width, height = rng.uniform(2.5, 14), rng.uniform(1.5, 8), rng.uniform(2.3, 4)
    scene = Scene('bare', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    if rng.random() < 0.5:
        _hang(scene, rng, stock, length, width)
    _lights(rng, scene, length, width, height)
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
    _hang(scene, rng, stock, length, width)
    _furnish(
        scene,
        rng,
        length,
        width,
        _makers(rng, stock, lining, at_wall),
        int(rng.integers(0, 7)),
        _makers(rng, stock, loose, on_floor),
        int(rng.integers(0, 4)),
    )
    _lights(rng, scene, length, width, height)
    return scene


def _hall(rng, stock):
    length, width, height = rng.uniform(12, 30), rng.uniform(10, 24), rng.uniform(4, 9)
    scene = Scene('hall', (length / 2, width / 2), height)
    scene.primitives = shell(rng, length, width, height)
    if rng.random() < 0.6:
        for x in np.arange(-length / 2 + 4, length / 2 - 3, rng.uniform(4, 7)):
            for y in (-width / 4, width / 4):
                column = (_column(rng, height), 0.5, 0.5)
                _put(scene, column, x, y, 0)
    at_wall, on_floor = _FURNISHINGS['hall']
    racks = (fixtures.rack, fixtures.rack, furniture.carton, furniture.cabinet)
    at_wall = _makers(rng, stock, racks, at_wall)
    on_floor = _makers(rng, stock, racks[:1] + _FLOOR_ITEMS, on_floor)
    _furnish(scene, rng, length, width, at_wall, 8, on_floor, 14)
    _lights(rng, scene, length, width, height)
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
        x, front = -60.0, road / 2 + rng.uniform(2, 10)
        while x < 60:
            along, tall = rng.uniform(8, 18), 3 * int(rng.integers(1, 5))
            if rng.random() < 0.75:
                deep, color = rng.uniform(6, 10), tint(rng, 0.5)
                scene.primitives.append(
                    box(
                        x + along / 2,
                        side * (front + deep / 2),
                        0,
                        along,
                        deep,
                        tall,
                        'plain',
                        color,
                    )
                )
                scene.primitives.append(
                    sheet(
                        x + along / 2,
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
        for _ in range(9):
            parked = rng.random() < 0.2
            made = _makers(
                rng,
                stock,
                (fixtures.car,)
                if parked
                else (fixtures.tree, fixtures.tree, furniture.person, furniture.bin_),
                ('vehicle',) if parked else ('garden', 'person'),
            )
            y = side * (road / 2 - 1.1 if parked else road / 2 + rng.uniform(0.6, 1.6))
            item = made[rng.integers(len(made))](rng)
            yaw = rng.choice([0, math.pi]) if parked else rng.uniform(0, 2 * math.pi)
            _put(scene, item, rng.uniform(-35, 35), y, yaw)
    for _ in range(3):
        make = (furniture.person, furniture.carton)[rng.integers(2)]
        _put(scene, make(rng), *rng.uniform(-1, 1, 2) * (12, 2), rng.uniform(0, 6))
    slope = (*rng.uniform(-0.7, 0.7, 2), -1.0)
    scene.lights = [
        Light(
            (0, 0, 40),
            rng.uniform(0.4, 0.8),
            tuple(np.array(slope) / np.linalg.norm(slope)),
            sun=True,
        )
    ]
    scene.headlight, scene.ambient = 0.1, rng.uniform(0.35, 0.55)
    return scene
