"""A box at a known place in the simulated room is at that place in the node's cloud."""

import importlib.util
import itertools
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
FINISHES = (
    ('plain', (0.8, 0.3, 0.2)),
    ('plain', (0.75, 0.75, 0.75)),
    ('wood/solid/1', (1, 1, 1)),
    ('fabric/solid/3', (1, 1, 1)),
)
HALF = (0.25, 0.25, 0.35)  # metres
SHARE = 0.95  # of the boxes within two sigmas, as of a normal error
VAGUE = 0.3  # median of sigma / depth above which "within two sigmas" would say little
ERROR = 0.15  # median of the error of depth / depth


def boxes(room):
    """Yield (Frame, pixels of the box) of a box on the floor, at each distance, of each finish."""
    camera = RoomCamera(240, 320, seed=room)
    (x, y, _), yaw, _, _ = camera.pose(0)
    empty, scene = camera.frame(0), camera.scene
    for distance, (finish, color) in itertools.product(DISTANCES, FINISHES):
        center = (x + distance * math.cos(yaw), y + distance * math.sin(yaw), HALF[2])
        box = Primitive(BOX, center, HALF, yaw + 0.4, finish, color)
        primitives = [box, *scene.primitives]
        camera.renderer.load(primitives, scene.lights, scene.headlight, scene.ambient)
        frame = camera.frame(0)
        box_pixels = frame.depth < empty.depth - 0.02
        if box_pixels.sum() > 1000:  # else something stands before it
            yield frame, box_pixels
    camera.renderer.close()


def test_a_box_is_where_it_stands(node, client):
    """Median of its points against the truth, in units of the sigma published for them."""
    rows = []
    for room in ROOMS:
        for frame, where in boxes(room):
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
            off = np.abs(found - true).max() / stated
            rows.append((room, true[2], found[2], stated, off))
    _, true, found, stated, off = table = np.array(rows).T
    assert len(rows) >= 100, 'too few boxes are in sight'
    within, vague = np.mean(off <= 2), np.median(stated / found)
    error = np.median(np.abs(found / true - 1))
    summary = (
        f'{within:.0%} of {len(rows)} within two sigmas; sigma {vague:.3f}, error {error:.3f}'
    )
    print(summary)
    assert within >= SHARE and vague < VAGUE and error < ERROR, f'{summary}\n{table.T.round(2)}'
