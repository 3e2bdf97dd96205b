"""The meshes that one renderer holds, and the groups of furniture that they make."""

import math
from dataclasses import dataclass

import numpy as np

from dar_ros.simulation.meshes import choose_stock, load_parts
from dar_ros.simulation.renderer import Primitive
from dar_ros.simulation.solids import place

COPIES = {'chair': 6, 'small': 3, 'hung': 3, 'person': 2, 'storage': 2, 'kitchen': 2}


@dataclass
class Mesh:
    """A thing in a renderer: its triangles, and how often it can be in a scene at once."""

    thing: object
    parts: list
    copies: int


class Stock:
    """
    Meshes by name, and by role.

    An item is (primitives around the origin with their front towards +x, depth, width), as in
    `furniture`.
    """

    def __init__(self, rng, held_out):
        self.meshes, self.roles = {}, {}
        for role, things in choose_stock(rng, held_out).items():
            self.roles[role] = []
            for thing in things:
                parts = load_parts(thing)
                if parts:
                    name = f'mesh{len(self.meshes)}'
                    self.meshes[name] = Mesh(thing, parts, COPIES.get(role, 1))
                    self.roles[role].append(name)

    def has(self, role):
        """Whether a thing of the role is at hand."""
        return bool(self.roles.get(role))

    def _pick(self, rng, role):
        names = self.roles[role]
        name = names[rng.integers(len(names))]
        tint = 1.0
        if rng.random() < 0.4:
            tint = rng.uniform(0.35, 1.3) * (1 + rng.uniform(-0.25, 0.25, 3))
        thing = self.meshes[name].thing
        color = tuple(np.ones(3) * tint)
        return Primitive(name, (0.0, 0.0, thing.elevation), (), 0.0, 'plain', color), thing

    def item(self, rng, role):
        """Make one thing of a role, perhaps with small things on it; see `has`."""
        part, thing = self._pick(rng, role)
        return self._laden(rng, part, thing), thing.depth, thing.width

    def _laden(self, rng, part, thing):
        parts = [part]
        flat = 0.3 < thing.top < 1.5 and thing.category != 'characters'
        if flat and self.has('small') and rng.random() < 0.7:
            for _ in range(int(rng.integers(1, 5))):
                small, its = self._pick(rng, 'small')
                x, y = rng.uniform(-0.4, 0.4, 2) * (thing.depth, thing.width)
                small.center, small.yaw = (x, y, thing.top), rng.uniform(0, 2 * math.pi)
                if max(its.depth, its.width) < thing.depth:
                    parts.append(small)
        return parts

    def dining(self, rng):
        """Make a table and the chairs of one kind around it."""
        table, thing = self._pick(rng, 'table')
        parts = self._laden(rng, table, thing)
        if not self.has('chair'):
            return parts, thing.depth, thing.width
        chair, seat = self._pick(rng, 'chair')
        depth, width = thing.depth / 2, thing.width / 2
        places = []
        for side in (-1, 1):
            count = max(1, int(thing.width / 0.7))
            for i in range(count):
                y = (i + 0.5) * thing.width / count - width
                places.append((side * (depth + 0.15), y, math.pi if side > 0 else 0.0))
            if rng.random() < 0.4:
                places.append((0.0, side * (width + 0.15), -side * math.pi / 2))
        for x, y, yaw in places:
            if rng.random() < 0.8:
                one = Primitive(chair.shape, chair.center, (), 0.0, 'plain', chair.color)
                pulled = 1 + rng.uniform(0, 0.25)
                parts += place([one], x * pulled, y * pulled, yaw + rng.normal(0, 0.2))
        return parts, thing.depth + seat.depth, thing.width + 0.3

    def desk(self, rng):
        """Make a table with its back to the wall, and a chair before it."""
        table, thing = self._pick(rng, 'table')
        parts = self._laden(rng, table, thing)
        if self.has('chair') and rng.random() < 0.8:
            chair, seat = self._pick(rng, 'chair')
            away = thing.depth / 2 + rng.uniform(0.0, 0.4)
            parts += place([chair], away, rng.uniform(-0.2, 0.2), math.pi + rng.normal(0, 0.4))
        return parts, thing.depth, thing.width

    def lounge(self, rng):
        """Make a sofa, and perhaps a low table before it."""
        sofa, thing = self._pick(rng, 'sofa')
        parts = [sofa]
        if self.has('low') and rng.random() < 0.6:
            low, its = self._pick(rng, 'low')
            away = thing.depth / 2 + its.depth / 2 + rng.uniform(0.25, 0.5)
            parts += place(self._laden(rng, low, its), away, 0.0, 0.0)
        return parts, thing.depth, thing.width
