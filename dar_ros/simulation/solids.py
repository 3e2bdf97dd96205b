"""The solids of which things are built, their finishes, and putting a thing in its place."""

import math

from dar_ros.simulation.renderer import BOX, CYLINDER, Primitive


def box(x, y, z, depth, width, height, material='plain', color=(1, 1, 1)):
    """Box of full sizes whose bottom centre is (x, y, z)."""
    return Primitive(
        BOX, (x, y, z + height / 2), (depth / 2, width / 2, height / 2), 0, material, color
    )


def post(x, y, z, radius, height, color, material='plain'):
    """Upright cylinder standing at (x, y, z)."""
    return Primitive(CYLINDER, (x, y, z + height / 2), (radius, height / 2), 0, material, color)


def wood(rng):
    """Return the name of a wooden material."""
    return f'wood/solid/{rng.integers(100)}'


def paint(rng):
    """Return a colour (r, g, b), 0 to 1, of any brightness and little saturation."""
    return tuple(rng.uniform(0.15, 0.95) * (1 + rng.uniform(-0.25, 0.25, 3)))


def finish(rng):
    """Material and colour of a piece of furniture: wood or paint."""
    return (wood(rng), (1, 1, 1)) if rng.random() < 0.6 else ('plain', paint(rng))


def place(item, x, y, yaw):
    """Parts of an item, turned by yaw about the vertical and moved to (x, y)."""
    c, s = math.cos(yaw), math.sin(yaw)
    for p in item:
        px, py, pz = p.center
        p.center = (x + c * px - s * py, y + s * px + c * py, pz)
        p.yaw += yaw
    return item
