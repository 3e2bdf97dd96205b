"""Putting things in a scene: on the floor, with their backs to the walls, on them; and lamps."""

import math
from dataclasses import dataclass, field

from dar_ros.simulation import fixtures, furniture
from dar_ros.simulation.renderer import Light
from dar_ros.simulation.solids import place, post

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
FLOOR_ITEMS = (
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
    sights: list = field(default_factory=list)  # (x, y, z) that a camera may aim at

    def free(self, x, y, margin):
        """Whether a disc of that radius at (x, y) is clear of everything placed."""
        return all(
            (x - px) ** 2 + (y - py) ** 2 > (r + margin) ** 2 for px, py, r in self.occupied
        )

    def move(self, x, y):
        """Move everything that is in the scene."""
        place(self.primitives, x, y, 0.0)
        for light in self.lights:
            light.position = (light.position[0] + x, light.position[1] + y, light.position[2])
        self.occupied = [(px + x, py + y, radius) for px, py, radius in self.occupied]
        self.sights = [(px + x, py + y, z) for px, py, z in self.sights]


def makers(rng, stock, primitives, roles):
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


def put(scene, item, x, y, yaw):
    """Place (parts, depth, width) unless something stands there; whether it was placed."""
    parts, depth, width = item
    radius = 0.45 * max(depth, width)
    if not scene.free(x, y, radius * 0.75):
        return False
    scene.primitives += place(parts, x, y, yaw)
    scene.occupied.append((x, y, radius))
    return True


def against_wall(scene, rng, length, width, item):
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
    return put(scene, item, c * back - s * shift, s * back + c * shift, side * math.pi / 2)


def hang(scene, rng, stock, length, width):
    """Things on the walls, and doors of the stock."""
    for role in ('door', 'hung', 'hung'):
        if stock is not None and stock.has(role):
            against_wall(scene, rng, length, width, stock.item(rng, role))


def furnish(scene, rng, length, width, wall_items, wall_count, floor_items, floor_count):
    """
    Put `wall_count` things against the walls and `floor_count` on the floor, where there is room.

    `wall_items` and `floor_items` are functions of the random generator that make an item.
    """
    for _ in range(wall_count):
        against_wall(scene, rng, length, width, wall_items[rng.integers(len(wall_items))](rng))
    for _ in range(floor_count):
        item = floor_items[rng.integers(len(floor_items))](rng)
        x, y = rng.uniform(-1, 1, 2) * (max(0.1, length / 2 - 0.7), max(0.1, width / 2 - 0.7))
        put(scene, item, x, y, rng.uniform(0, 2 * math.pi))


def furnish_room(scene, rng, stock, length, width):
    """Furnish a room as one of several: to live, sleep or work in."""
    area = length * width
    at_wall, on_floor = _ROOMS[rng.integers(len(_ROOMS))]
    hang(scene, rng, stock, length, width)
    furnish(
        scene,
        rng,
        length,
        width,
        makers(rng, stock, _WALL_ITEMS, at_wall),
        int(rng.integers(3, 9) + area / 6),
        makers(rng, stock, FLOOR_ITEMS, on_floor),
        int(rng.integers(1, 5) + area / 8),
    )


def lamps(scene, rng, length, width, height):
    """Hang one to three lamps below a ceiling of that height; draw the light that has no place."""
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
