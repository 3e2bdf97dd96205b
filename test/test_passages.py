"""Flats and stairs: closed all around, doorways that lead on, flights that lead up and down."""

import math

import numpy as np
import pytest

from dar_ros.simulation.dataset import shard_frames
from dar_ros.simulation.renderer import Renderer
from dar_ros.simulation.scenes import make_scene

SIZE = (60, 80)


@pytest.fixture(scope='module')
def renderer():
    made = Renderer(*SIZE, 0)
    yield made
    made.close()


def seen(renderer, scene, position, yaw, pitch=0.0):
    renderer.load(scene.primitives, scene.lights)
    return renderer.render(position, yaw, pitch, 0.0, 80)


def test_the_sky_shows_nowhere():
    """A gap between walls, or a wall left out for want of primitives, would be learnt as sky."""
    shares = [np.isinf(frame.depth).mean() for frame in shard_frames('passages', 1, 0, SIZE, 48)]
    assert max(shares) < 1e-3


def test_doorways_are_open_or_closed(renderer):
    beyond = []
    for seed in range(12):
        scene = make_scene(np.random.default_rng(seed), 'flat')
        for x, y, _ in np.array(scene.sights) / 1.4:
            # Seen from the hallway: its doors are at its sides, as far off as its half width.
            if math.isclose(abs(y), scene.half[1]) and abs(x) < scene.half[0]:
                frame = seen(renderer, scene, (x, 0, 1.2), math.copysign(math.pi / 2, y))
                beyond.append(frame.depth[SIZE[0] // 2, SIZE[1] // 2] - scene.half[1])
    assert len(beyond) > 10
    assert 0.2 < np.mean(np.array(beyond) > 0.5) < 0.9  # a room, not a leaf or a wall


def test_flights_lead_down_and_up(renderer):
    downs = []
    for seed in range(10):
        scene = make_scene(np.random.default_rng(seed), 'stairs')
        x, y, z = scene.sights[-1]
        pitch = math.atan2(z - 1.5, x)
        frame = seen(renderer, scene, (0, y, 1.5), 0.0, pitch)
        rows = (np.arange(SIZE[0])[:, None] - frame.intrinsics.cy) / frame.intrinsics.fy
        height = 1.5 + frame.depth * (math.sin(pitch) - rows * math.cos(pitch))
        downs.append(z < 0.3)
        lowest = np.quantile(height, 0.02)
        assert z - 0.4 < lowest < -0.3 if downs[-1] else -0.1 < lowest < 1
    assert 2 < sum(downs) < 9


def test_every_step_is_as_high_as_the_one_before(renderer):
    scene = make_scene(np.random.default_rng(3), 'stairs')
    tops = sorted(
        {round(p.center[2] + p.size[2], 4) for p in scene.primitives if p.size[2:] == (0.015,)}
    )
    assert len(tops) >= 4
    assert np.ptp(np.diff(tops)) < 1e-3 and 0.15 <= np.diff(tops)[0] <= 0.2
