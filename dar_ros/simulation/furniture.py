"""
Things of true size, built of primitives around the origin: front towards +x, standing on z = 0.
"""

from dar_ros.simulation.renderer import CAPSULE, ELLIPSOID, Primitive
from dar_ros.simulation.solids import box, finish, paint, post


def table(rng):
    """Dining table or desk with something on it."""
    width, depth, height = rng.uniform(1.0, 1.9), rng.uniform(0.6, 0.95), rng.uniform(0.71, 0.77)
    material, color = finish(rng)
    legs = paint(rng)
    parts = [box(0, 0, height - 0.03, depth, width, 0.03, material, color)]
    parts += [
        box(
            sx * (depth / 2 - 0.05),
            sy * (width / 2 - 0.05),
            0,
            0.05,
            0.05,
            height - 0.03,
            'plain',
            legs,
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    if rng.random() < 0.6:
        parts += monitor(rng, rng.uniform(-width / 4, width / 4), height)
    for _ in range(int(rng.integers(0, 4))):
        parts += clutter(
            rng, rng.uniform(-0.3, 0.3) * depth, rng.uniform(-0.4, 0.4) * width, height
        )
    return parts, depth, width


def monitor(rng, y, z):
    """Screen of 22-27 inches on a foot."""
    width = rng.uniform(0.48, 0.62)
    dark = (rng.uniform(0.02, 0.15),) * 3
    screen = 'plain' if rng.random() < 0.5 else f'poster/solid/{rng.integers(100)}'
    return [
        box(-0.2, y, z, 0.18, 0.22, 0.015, 'plain', dark),
        box(-0.22, y, z, 0.03, 0.05, 0.2, 'plain', dark),
        box(
            -0.19,
            y,
            z + 0.12,
            0.03,
            width,
            width * 0.58,
            screen,
            dark if screen == 'plain' else (1, 1, 1),
        ),
    ]


def clutter(rng, x, y, z):
    """Make a mug, bottle, book or carton."""
    kind = rng.integers(4)
    if kind == 0:
        return [post(x, y, z, 0.04, 0.09, paint(rng))]
    if kind == 1:
        color = paint(rng)
        return [post(x, y, z, 0.035, 0.2, color), post(x, y, z + 0.2, 0.014, 0.08, color)]
    if kind == 2:
        return [box(x, y, z, 0.22, 0.15, rng.uniform(0.015, 0.05), 'plain', paint(rng))]
    return [box(x, y, z, *rng.uniform(0.1, 0.3, 3), f'poster/solid/{rng.integers(100)}')]


def chair(rng):
    """Kitchen chair, or an office chair on a column."""
    material, color = finish(rng)
    seat, width = rng.uniform(0.43, 0.48), rng.uniform(0.4, 0.48)
    parts = [
        box(0, 0, seat - 0.04, width, width, 0.04, material, color),
        box(
            -width / 2 + 0.02,
            0,
            seat + rng.uniform(0, 0.2),
            0.03,
            width,
            rng.uniform(0.2, 0.35),
            material,
            color,
        ),
    ]
    if rng.random() < 0.3:
        dark = (0.1, 0.1, 0.1)
        parts += [
            post(0, 0, 0.08, 0.03, seat - 0.1, dark),
            box(0, 0, 0.03, 0.55, 0.06, 0.05, 'plain', dark),
            box(0, 0, 0.03, 0.06, 0.55, 0.05, 'plain', dark),
        ]
    else:
        parts += [
            box(
                sx * (width / 2 - 0.02),
                sy * (width / 2 - 0.02),
                0,
                0.035,
                0.035,
                seat - 0.04 if sx > 0 else seat + 0.4,
                material,
                color,
            )
            for sx in (-1, 1)
            for sy in (-1, 1)
        ]
    return parts, width, width


def shelf(rng):
    """Open bookcase 28-40 cm deep with boards every 30-38 cm."""
    width, depth, height = rng.uniform(0.6, 1.2), rng.uniform(0.28, 0.4), rng.uniform(0.9, 2.2)
    material, color = finish(rng)
    parts = [box(0, sy * width / 2, 0, depth, 0.02, height, material, color) for sy in (-1, 1)]
    parts.append(box(-depth / 2, 0, 0, 0.01, width, height, material, color))
    rows = int(height / 0.36)
    for i in range(rows + 1):
        z = i * (height - 0.02) / rows
        parts.append(box(0, 0, z, depth, width, 0.02, material, color))
        if i < rows and rng.random() < 0.8:
            filled = width * rng.uniform(0.4, 0.95)
            parts.append(
                box(
                    -0.05,
                    (width - filled) / 2 - 0.01,
                    z + 0.02,
                    depth - 0.15,
                    filled - 0.03,
                    rng.uniform(0.19, 0.29),
                    f'books/solid/{rng.integers(100)}',
                )
            )
    return parts, depth, width


def cabinet(rng):
    """Sideboard, drawers or wardrobe with doors and handles."""
    width, depth = rng.uniform(0.5, 1.6), rng.uniform(0.4, 0.62)
    height = rng.choice([rng.uniform(0.6, 1.1), rng.uniform(1.8, 2.2)])
    material, color = finish(rng)
    parts = [
        box(0, 0, 0.06, depth, width, height - 0.06, material, color),
        box(0, 0, 0, depth - 0.06, width - 0.04, 0.06, 'plain', (0.1, 0.1, 0.1)),
    ]
    doors = max(1, round(width / 0.5))
    for i in range(doors):
        y = (i + 0.5) * width / doors - width / 2
        parts.append(
            box(
                depth / 2 + 0.005,
                y,
                0.08,
                0.018,
                width / doors - 0.008,
                height - 0.1,
                material,
                tuple(0.9 * c for c in color),
            )
        )
        parts.append(
            box(
                depth / 2 + 0.03,
                y + width / doors * 0.35,
                min(1.05, height * 0.6),
                0.02,
                0.015,
                0.14,
                'plain',
                (0.7, 0.7, 0.7),
            )
        )
    if height < 1.2:
        parts += clutter(rng, 0, rng.uniform(-0.3, 0.3) * width, height)
    return parts, depth, width


def sofa(rng):
    """Armchair to three-seater, seat at 42 cm."""
    width, depth = rng.uniform(0.85, 2.3), rng.uniform(0.8, 0.98)
    material = f'fabric/solid/{rng.integers(100)}' if rng.random() < 0.6 else 'plain'
    color = paint(rng) if material == 'plain' else (1, 1, 1)
    parts = [
        box(0, 0, 0.06, depth, width, 0.22, material, color),
        box(-depth / 2 + 0.1, 0, 0.06, 0.2, width, rng.uniform(0.68, 0.85), material, color),
    ]
    parts += [
        box(
            0, sy * (width / 2 - 0.09), 0.06, depth, 0.18, rng.uniform(0.48, 0.58), material, color
        )
        for sy in (-1, 1)
    ]
    seats = max(1, round((width - 0.36) / 0.65))
    span = (width - 0.36) / seats
    parts += [
        box(
            0.07,
            (i + 0.5) * span - seats * span / 2,
            0.28,
            depth - 0.25,
            span - 0.02,
            0.15,
            material,
            tuple(0.92 * c for c in color),
        )
        for i in range(seats)
    ]
    if rng.random() < 0.6:
        parts.append(
            Primitive(
                ELLIPSOID,
                (-0.1, width * 0.25, 0.6),
                (0.09, 0.22, 0.2),
                0,
                f'fabric/solid/{rng.integers(100)}',
            )
        )
    return parts, depth, width


def bed(rng):
    """Bed 2 m long with mattress, pillow and headboard."""
    width = rng.choice([0.9, 1.4, 1.6, 1.8])
    material, color = finish(rng)
    linen = f'fabric/solid/{rng.integers(100)}'
    parts = [
        box(0, 0, 0.1, 2.05, width, 0.22, material, color),
        box(0, 0, 0.3, 2.0, width - 0.02, 0.2),
        box(0.3, 0, 0.48, 1.42, width + 0.02, 0.07, linen),
        box(-1.03, 0, 0, 0.05, width, rng.uniform(0.8, 1.1), material, color),
    ]
    parts += [
        Primitive(ELLIPSOID, (-0.75, y, 0.55), (0.22, 0.33, 0.09))
        for y in ([0] if width < 1 else [-width / 4, width / 4])
    ]
    return parts, 2.05, width


def plant(rng):
    """Pot plant up to a small tree."""
    height, pot = rng.uniform(0.5, 1.6), rng.uniform(0.12, 0.2)
    parts = [
        post(0, 0, 0, pot, 0.28, paint(rng)),
        post(0, 0, 0.28, 0.02, height * 0.5, (0.3, 0.2, 0.1)),
    ]
    for _ in range(7):
        green = (rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.65), rng.uniform(0.05, 0.25))
        center = (*rng.uniform(-0.2, 0.2, 2), rng.uniform(0.45, 1) * height + 0.1)
        parts.append(
            Primitive(
                ELLIPSOID,
                center,
                tuple(rng.uniform(0.06, 0.22, 3)),
                rng.uniform(0, 3),
                'plain',
                green,
            )
        )
    return parts, 2 * pot, 2 * pot


def lamp(rng):
    """Floor lamp."""
    height, color = rng.uniform(1.4, 1.8), paint(rng)
    return (
        [
            post(0, 0, 0, 0.15, 0.03, color),
            post(0, 0, 0.03, 0.014, height - 0.25, color),
            post(0, 0, height - 0.25, 0.18, 0.27, (0.98, 0.94, 0.8)),
        ],
        0.36,
        0.36,
    )


def bin_(rng):
    """Waste bin."""
    radius = rng.uniform(0.12, 0.2)
    return [post(0, 0, 0, radius, rng.uniform(0.28, 0.65), paint(rng))], 2 * radius, 2 * radius


def carton(rng):
    """Make a moving box, perhaps two."""
    size = rng.uniform(0.25, 0.6, 3)
    brown = (0.72, 0.55, 0.36)
    parts = [
        box(0, 0, 0, *size, 'plain', brown),
        box(0, 0, size[2], size[0], 0.05, 0.004, 'plain', (0.85, 0.8, 0.6)),
    ]
    if rng.random() < 0.4:
        parts.append(
            box(0.03, 0.02, size[2], *(size * 0.7), 'plain', tuple(0.85 * c for c in brown))
        )
    return parts, size[0], size[1]


def person(rng):
    """Standing adult, 1.55-1.9 m."""
    height = rng.uniform(1.55, 1.9)
    shirt, trousers = paint(rng), paint(rng)
    skin = tuple(rng.uniform(0.4, 0.95) * c for c in (1, 0.8, 0.68))
    leg, torso = height * 0.47, height * 0.33
    parts = [
        Primitive(CAPSULE, (0, s * 0.09, leg / 2), (0.075, leg / 2 - 0.07), 0, 'plain', trousers)
        for s in (-1, 1)
    ]
    parts += [
        Primitive(
            CAPSULE, (0, s * 0.23, leg + torso * 0.45), (0.045, torso * 0.5), 0, 'plain', shirt
        )
        for s in (-1, 1)
    ]
    parts += [
        Primitive(
            ELLIPSOID, (0, 0, leg + torso / 2), (0.12, 0.19, torso * 0.6), 0, 'plain', shirt
        ),
        Primitive(ELLIPSOID, (0, 0, height - 0.12), (0.095, 0.08, 0.12), 0, 'plain', skin),
    ]
    return parts, 0.4, 0.5
