"""Where cameras stand in a scene, and what reaches into their picture."""

import math

import numpy as np

from dar_ros.simulation.renderer import CAPSULE, ELLIPSOID, Primitive


def camera_pose(rng, scene):
    """
    Position (x, y, z), yaw, pitch, roll (radians), horizontal fov (degrees) of a camera on a robot
    or in a hand, or None.
    """
    if scene.occupied and rng.random() < 0.3:
        x, y, z, yaw, pitch = _before_a_thing(rng, scene)
    else:
        x, y = rng.uniform(-1, 1, 2) * np.maximum(np.array(scene.half) - 0.35, 0.1)
        z = rng.uniform(0.1, 2.0) if rng.random() < 0.5 else rng.uniform(0.3, 1.5)
        yaw = rng.uniform(-math.pi, math.pi)
        if rng.random() < 0.6:  # towards the open: robots look where they go
            aim = rng.uniform(-0.5, 0.5, 2) * np.array(scene.half)
            yaw = math.atan2(aim[1] - y, aim[0] - x) + rng.normal(0, 0.3)
        pitch = math.radians(np.clip(rng.normal(-8, 13), -60, 25))
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


def _before_a_thing(rng, scene):
    """Return x, y, z, yaw, pitch of a camera that looks at something from close by."""
    px, py, radius = scene.occupied[rng.integers(len(scene.occupied))]
    angle, away = rng.uniform(0, 2 * math.pi), radius + rng.uniform(0.25, 1.3)
    x, y, z = px + away * math.cos(angle), py + away * math.sin(angle), rng.uniform(0.3, 1.8)
    pitch = math.atan2(rng.uniform(0.0, 1.0) - z, away)
    return x, y, z, angle + math.pi + rng.normal(0, 0.25), max(pitch, math.radians(-60))


def hands(rng, pose):
    """Forearms and hands that reach into the picture, 0.3-0.6 m away -> primitives."""
    (x, y, z), yaw, pitch, _, _ = pose
    skin = tuple(rng.uniform(0.45, 1.0) * np.array([1, 0.8, 0.68]))
    sleeve = tuple(rng.uniform(0.1, 0.9, 3)) if rng.random() < 0.5 else skin
    parts = []
    for side in (-1, 1)[: int(rng.integers(1, 3))]:
        ahead, left, down = (
            rng.uniform(0.3, 0.6),
            side * rng.uniform(0.05, 0.25),
            rng.uniform(0, 0.2),
        )
        elevation = pitch + math.radians(rng.normal(25, 15))
        heading = yaw - side * rng.uniform(-0.2, 0.5)
        forward = np.array(
            [math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)]
        )
        across = np.array([-math.sin(yaw), math.cos(yaw), 0])
        hand = np.array([x, y, z]) + ahead * forward + left * across - [0, 0, down]
        pointing = np.array(
            [
                math.cos(elevation) * math.cos(heading),
                math.cos(elevation) * math.sin(heading),
                math.sin(elevation),
            ]
        )
        half = math.pi / 4 - elevation / 2  # of the turn from upright to that elevation
        tilt = (math.cos(half), 0, math.sin(half), 0)
        parts += [
            Primitive(
                CAPSULE, hand - 0.2 * pointing, (0.04, 0.13), heading, 'plain', sleeve, tilt
            ),
            Primitive(ELLIPSOID, hand, (0.02, 0.045, 0.09), heading, 'plain', skin, tilt),
        ]
        for finger in range(4):
            reach = hand + 0.1 * pointing + (finger - 1.5) * 0.022 * across
            parts.append(Primitive(CAPSULE, reach, (0.009, 0.03), heading, 'plain', skin, tilt))
    return parts
