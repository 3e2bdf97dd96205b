"""Where cameras stand in a scene."""

import math

import numpy as np


def camera_pose(rng, scene, near=0.3, facing=0.0):
    """
    Position (x, y, z), yaw, pitch, roll (radians), horizontal fov (degrees) of a camera on a robot
    or in a hand, or None; a share `facing` of them looks at a wall, outdoors at the sky, a share
    `near` of the others at something from close by.
    """
    if facing and rng.random() < facing:
        x, y, z, yaw, pitch = _before_a_wall(rng, scene)
    elif scene.occupied and rng.random() < near:
        x, y, z, yaw, pitch = _before_a_thing(rng, scene)
    else:
        x, y = rng.uniform(-1, 1, 2) * np.maximum(np.array(scene.half) - 0.35, 0.1)
        z = rng.uniform(0.1, 2.0) if rng.random() < 0.5 else rng.uniform(0.3, 1.5)
        yaw = rng.uniform(-math.pi, math.pi)
        if rng.random() < 0.6:  # towards the open: robots look where they go
            aim = rng.uniform(-0.5, 0.5, 2) * np.array(scene.half)
            yaw = math.atan2(aim[1] - y, aim[0] - x) + rng.normal(0, 0.3)
        pitch = math.radians(np.clip(rng.normal(-8, 13), -60, 25))
        if scene.sights and rng.random() < 0.8:
            yaw, pitch = _towards(rng, scene.sights[rng.integers(len(scene.sights))], x, y, z)
    if not scene.free(x, y, 0.15) or max(abs(x) - scene.half[0], abs(y) - scene.half[1]) > -0.2:
        return None
    hfov = float(np.clip(rng.normal(68, 15), 40, 110))
    return (
        (x, y, min(z, scene.ceiling - 0.3)),
        yaw,
        pitch,
        math.radians(rng.normal(0, 2.5)),
        hfov,
    )


def _towards(rng, sight, x, y, z):
    """Return yaw, pitch of a camera at x, y, z that has a sight somewhere in its picture."""
    ahead, left, up = (a - b for a, b in zip(sight, (x, y, z)))
    pitch = math.atan2(up, math.hypot(ahead, left)) + rng.normal(0, 0.15)
    return math.atan2(left, ahead) + rng.normal(0, 0.25), float(np.clip(pitch, -1.1, 0.6))


def _before_a_thing(rng, scene):
    """Return x, y, z, yaw, pitch of a camera that looks at something from close by."""
    px, py, radius = scene.occupied[rng.integers(len(scene.occupied))]
    angle, away = rng.uniform(0, 2 * math.pi), radius + rng.uniform(0.25, 1.3)
    x, y, z = px + away * math.cos(angle), py + away * math.sin(angle), rng.uniform(0.3, 1.8)
    pitch = math.atan2(rng.uniform(0.0, 1.0) - z, away)
    return x, y, z, angle + math.pi + rng.normal(0, 0.25), max(pitch, math.radians(-60))


def _before_a_wall(rng, scene):
    """
    Return x, y, z, yaw, pitch of a camera that looks at a wall, or up across a street; half of
    the walls stand square ahead, where nothing runs towards a vanishing point.
    """
    (x, y), z = rng.uniform(-1, 1, 2) * np.array(scene.half), rng.uniform(0.1, 2.0)
    if scene.kind == 'outdoor':
        yaw = rng.choice([-1, 1]) * math.pi / 2 + rng.normal(0, 0.6)
        return x, y, z, yaw, math.radians(rng.uniform(0, 40))
    side, away = int(rng.integers(4)), math.exp(rng.uniform(math.log(0.4), math.log(6)))
    if side % 2 == 0:
        x = (1 - side) * max(scene.half[0] - away, 0.0)
    else:
        y = (2 - side) * max(scene.half[1] - away, 0.0)
    spread = rng.choice([0.06, 0.45])
    yaw = side * math.pi / 2 + rng.normal(0, spread)
    return x, y, z, yaw, math.radians(rng.normal(0, 6 if spread < 0.1 else 14))
