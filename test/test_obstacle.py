"""A box at a known place in the simulated room is at that place in the node's cloud."""

import importlib.util
import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
if importlib.util.find_spec('mujoco') is None:
    pytest.skip('mujoco is not installed (extra: sim)', allow_module_level=True)

from ros_client import array_of

from dar_ros.geometry import unproject
from dar_ros.simulation.renderer import BOX, Primitive
from dar_ros.simulation.room import RoomCamera

ROOMS = range(12)
DISTANCES = (1.2, 2.0, 3.0)  # metres to the box's middle
FINISHES = (  # material and colour: the two plain ones have no texture at all
    ('plain', (0.8, 0.3, 0.2)),
    ('plain', (0.75, 0.75, 0.75)),
    ('wood/solid/1', (1, 1, 1)),
    ('fabric/solid/3', (1, 1, 1)),
)
HALF = (0.25, 0.25, 0.35)  # metres
SHARE = 0.8  # of the boxes: two sigmas are said to hold for 95 % of pixels, rooms are few
VAGUE = 0.35  # sigma / depth, in the middle, above which "within two sigmas" would say little


def boxes(room):
    """Yield (name, Frame, pixels of the box) of a box on the floor: distances, finishes."""
    camera = RoomCamera(240, 320, seed=room)
    (x, y, _), yaw, _, _ = camera.pose(0)
    empty, scene = camera.frame(0), camera.scene
    for distance in DISTANCES:
        center = (x + distance * math.cos(yaw), y + distance * math.sin(yaw), HALF[2])
        for material, color in FINISHES:
            box = Primitive(BOX, center, HALF, yaw + 0.4, material, color)
            primitives = [box, *scene.primitives]
            camera.renderer.load(primitives, scene.lights, scene.headlight, scene.ambient)
            frame = camera.frame(0)
            box_pixels = frame.depth < empty.depth - 0.02
            if box_pixels.sum() > 1000:  # else something stands before it
                yield f'room {room}, {material} {color}', frame, box_pixels
    camera.renderer.close()


def test_a_box_is_where_it_stands(node, client):
    """Median of its points against the truth, in units of the sigma published for them."""
    offs, shares, table = [], [], []
    for room in ROOMS:
        for name, frame, where in boxes(room):
            k = frame.intrinsics
            camera = {'k': [k.fx, 0.0, k.cx, 0.0, k.fy, k.cy, 0.0, 0.0, 1.0]}
            cloud, sigma = client.ask(
                np.ascontiguousarray(frame.image),
                ('depth/points', 'depth/uncertainty'),
                camera=camera,
            )
            points = np.frombuffer(cloud.data, '<f4').reshape(*where.shape, 4)[..., :3]
            seen = where & np.isfinite(points[..., 2])
            assert seen.sum() > 0.5 * where.sum()
            found, stated = np.median(points[seen], axis=0), np.median(array_of(sigma)[seen])
            true = np.median(unproject(frame.depth, k)[seen], axis=0)
            shares.append(float(stated / found[2]))
            offs.append(float(np.abs(found - true).max() / stated))
            table.append(f'{name}: {true[2]:.2f} m, found {found[2]:.2f} +- {stated:.2f}')
    assert len(offs) >= 60, 'too few boxes are in sight'
    within = np.mean([off <= 2 for off in offs])
    print('\n'.join([*table, f'{within:.0%} within two sigmas of {len(offs)}']))
    assert within >= SHARE, '\n'.join(table)
    assert np.median(shares) < VAGUE
