"""
Procedural textures; each says how many metres one tile covers, so that a brick is a brick's size.
"""

import cv2
import numpy as np

SIDE = 256  # pixels of a tile


def _noise(rng, scale, amplitude):
    """Tileable smooth noise (SIDE, SIDE), about `scale` blobs a side."""
    coarse = rng.standard_normal((scale, scale)).astype(np.float32)
    wrapped = np.pad(coarse, 2, mode='wrap')
    factor = SIDE / scale
    fine = cv2.resize(wrapped, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    margin = round(2 * factor)
    return fine[margin : margin + SIDE, margin : margin + SIDE] * amplitude


def _tile(color, shade):
    return np.clip(np.asarray(color, np.float32) + shade[..., None], 0, 255).astype(np.uint8)


def _color(rng, low=60, high=230, saturation=0.25):
    base = rng.uniform(low, high)
    return np.clip(base * (1 + rng.uniform(-saturation, saturation, 3)), 10, 250)


def plaster(rng):
    """Wall paint."""
    return _tile(_color(rng, 165, 250, 0.1), _noise(rng, 8, 4) + _noise(rng, 64, 4)), 2.0


def wood(rng, meters=1.0):
    """Grain along columns."""
    color = np.array([1.0, rng.uniform(0.68, 0.85), rng.uniform(0.4, 0.65)]) * rng.uniform(70, 220)
    stretched = cv2.resize(_noise(rng, 32, 14)[:, :32], (SIDE, SIDE)).T + _noise(rng, 4, 8)
    return _tile(color, stretched), meters


def planks(rng):
    """Parquet of boards 10-16 cm wide."""
    image, _ = wood(rng)
    shade = np.zeros((SIDE, SIDE), np.float32)
    boards = int(rng.integers(6, 10))
    for i in range(boards):
        rows = slice(i * SIDE // boards, (i + 1) * SIDE // boards)
        shade[rows] += rng.normal(0, 12)
        shade[rows.start : rows.start + 2] -= 45
        joint = rng.integers(SIDE)
        shade[rows, joint : joint + 2] -= 45
    return np.clip(image + shade[..., None], 0, 255).astype(np.uint8), 1.0


def _grid(rng, rows, columns, joint, color, joint_color, stagger, vary):
    shade = _noise(rng, 64, 5)
    image = np.zeros((SIDE, SIDE, 3), np.float32) + np.asarray(joint_color)
    height, width = SIDE / rows, SIDE / columns
    for r in range(rows):
        for c in range(-1, columns + 1):
            left = (c + (0.5 if stagger and r % 2 else 0)) * width
            tone = np.asarray(color) + rng.normal(0, vary)
            x0, x1 = max(0, round(left + joint)), min(SIDE, round(left + width))
            if x1 > x0:
                image[round(r * height + joint) : round((r + 1) * height), x0:x1] = tone
    return np.clip(image + shade[..., None], 0, 255).astype(np.uint8)


def tiles(rng):
    """Floor or wall tiles of 20-60 cm with grout."""
    count = int(rng.integers(2, 5))
    color = _color(rng, 90, 235, 0.15)
    return _grid(rng, count, count, 3, color, color * rng.uniform(0.5, 0.8), False, 6), 0.3 * count


def bricks(rng):
    """Bricks of 8 x 25 cm."""
    color = np.array([1, rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.7)]) * rng.uniform(110, 200)
    return _grid(rng, 12, 4, 3, color, _color(rng, 130, 200, 0.05), True, 14), 1.0


def carpet(rng):
    """Short pile."""
    return _tile(_color(rng, 40, 180, 0.4), _noise(rng, 128, 14) + _noise(rng, 16, 6)), 1.0


def fabric(rng):
    """Stripes or checks."""
    image = np.zeros((SIDE, SIDE, 3), np.float32) + _color(rng, 40, 220, 0.5)
    period = int(rng.choice([16, 32, 64]))
    band = (np.arange(SIDE) // (period // 2)) % 2
    other = _color(rng, 40, 220, 0.5)
    mask = (
        band[:, None] * np.ones(SIDE) if rng.random() < 0.5 else (band[:, None] + band[None]) % 2
    )
    image = np.where(mask[..., None] > 0, image, image * 0.6 + other * 0.4)
    return np.clip(image + _noise(rng, 128, 8)[..., None], 0, 255).astype(np.uint8), 0.6


def concrete(rng):
    """Concrete, asphalt."""
    color = _color(rng, 70, 180, 0.04)
    return _tile(color, _noise(rng, 6, 8) + _noise(rng, 32, 6) + _noise(rng, 128, 7)), 3.0


def grass(rng):
    """Lawn, seen from above."""
    color = np.array([rng.uniform(0.6, 1), 1, rng.uniform(0.3, 0.6)]) * rng.uniform(70, 130)
    return _tile(color, _noise(rng, 128, 22) + _noise(rng, 16, 12)), 2.0


def poster(rng):
    """Shapes and lines, one picture."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8) + _color(rng, 30, 250, 0.5).astype(np.uint8)
    for _ in range(int(rng.integers(4, 14))):
        p, q = (tuple(int(v) for v in rng.integers(0, SIDE, 2)) for _ in range(2))
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        kind = rng.integers(3)
        if kind == 0:
            cv2.rectangle(image, p, q, color, -1)
        elif kind == 1:
            cv2.circle(image, p, int(rng.integers(8, 80)), color, -1)
        else:
            cv2.line(image, p, q, color, int(rng.integers(2, 14)))
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 3)), 1.0


def books(rng):
    """Spines of 2-5 cm in a row of one metre."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    x = 0
    while x < SIDE:
        width = int(rng.integers(5, 13))
        top = int(rng.integers(0, 60))
        color = tuple(int(v) for v in rng.integers(20, 235, 3))
        cv2.rectangle(image, (x, top), (x + width - 2, SIDE), color, -1)
        cv2.line(image, (x + 1, top + 40), (x + width - 3, top + 40), (230, 230, 220), 3)
        x += width
    return image, 1.0


def facade(rng):
    """Paint a house front: windows every 3 m."""
    image, _ = (bricks if rng.random() < 0.4 else plaster)(rng)
    image = image.copy()
    dark = tuple(int(v) for v in rng.integers(20, 110, 3))
    cv2.rectangle(image, (70, 60), (186, 190), dark, -1)
    cv2.rectangle(image, (70, 60), (186, 190), (235, 235, 235), 5)
    cv2.line(image, (128, 60), (128, 190), (235, 235, 235), 4)
    return image, 3.0


# name -> (function, variants in a pool)
KINDS = {
    'plaster': (plaster, 6),
    'wood': (wood, 6),
    'planks': (planks, 4),
    'tiles': (tiles, 5),
    'bricks': (bricks, 2),
    'carpet': (carpet, 4),
    'fabric': (fabric, 5),
    'concrete': (concrete, 3),
    'grass': (grass, 2),
    'poster': (poster, 8),
    'books': (books, 3),
    'facade': (facade, 3),
}


def texture_pool(rng):
    """Return [(kind, uint8 (SIDE, SIDE, 3), metres per tile)]."""
    return [(kind, *make(rng)) for kind, (make, count) in KINDS.items() for _ in range(count)]
