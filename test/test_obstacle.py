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

ROOMS = (3, 5, 8, 9, 10)
DISTANCES = (2.2, 3.0)  # metres to the crate's middle
HALF = (0.25, 0.25, 0.35)  # metres
SHARE = 0.8  # of the crates: two sigmas are said to hold for 95 % of pixels, rooms are few
VAGUE = 0.35  # sigma / depth above which "within two sigmas" would say little


def crates(room):
    """Yield (Frame, pixels of the crate) of a wooden crate on the floor, at each distance."""
    camera = RoomCamera(240, 320, seed=room)
    (x, y, _), yaw, _, _ = camera.pose(0)
    empty, scene = camera.frame(0), camera.scene
    for distance in DISTANCES:
        center = (x + distance * math.cos(yaw), y + distance * math.sin(yaw), HALF[2])
        crate = Primitive(BOX, center, HALF, yaw + 0.4, 'wood/solid/1')
        primitives = [crate, *scene.primitives]
        camera.renderer.load(primitives, scene.lights, scene.headlight, scene.ambient)
        frame = camera.frame(0)
        crate_pixels = frame.depth < empty.depth - 0.02
        if crate_pixels.sum() > 1000:  # else something stands before it
            yield frame, crate_pixels
    camera.renderer.close()


def test_a_crate_is_where_it_stands(node, client):
    """Median of its points against the truth, in units of the sigma published for them."""
    offs, table = [], []
    for room in ROOMS:
        for frame, where in crates(room):
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
            assert stated / found[2] < VAGUE
            offs.append(float(np.abs(found - true).max() / stated))
            table.append(f'room {room}: {true[2]:.2f} m, found {found[2]:.2f} +- {stated:.2f}')
    assert len(offs) >= 6, 'too few crates are in sight'
    within = np.mean([off <= 2 for off in offs])
    print('\n'.join([*table, f'{within:.0%} within two sigmas of {len(offs)}']))
    assert within >= SHARE, '\n'.join(table)
