"""Flats and stairs: closed all around, doorways that lead on, flights that lead up and down."""

import math
from collections import Counter

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='mujoco is not installed (extra: sim)')

from dar_ros.simulation import flats
from dar_ros.simulation.dataset import shard_frames
from dar_ros.simulation.renderer import BOX, POOL
from dar_ros.simulation.scenes import make_scene

SIZE = (60, 80)


def seen(renderer, scene, position, yaw, pitch=0.0):
    renderer.load(scene.primitives, scene.lights)
    return renderer.render(position, yaw, pitch, 0.0, 80)


@pytest.mark.usefixtures('furniture')
def test_the_sky_shows_nowhere():
    """A gap between walls, or a wall left out for want of primitives, would be learnt as sky."""
    shares = [np.isinf(frame.depth).mean() for frame in shard_frames('passages', 1, 0, SIZE, 48)]
    assert max(shares) < 1e-3


def test_no_wall_is_left_out(monkeypatch):
    """What exceeds the renderer's pool is not drawn; walls come before what they enclose."""
    monkeypatch.setattr(flats, '_furnish', lambda *arguments: None)
    for kind in ('flat', 'stairs'):
        for seed in range(300):
            scene = make_scene(np.random.default_rng(seed), kind)
            shapes = Counter(part.shape for part in scene.primitives)
            assert all(count <= POOL[shape] for shape, count in shapes.items()), (kind, seed)


def hallways():
    """Yield flats that are seen from their hallway, and their doors' sights at its sides."""
    for seed in range(16):
        scene = make_scene(np.random.default_rng(seed), 'flat')
        aside = [s for s in scene.sights if math.isclose(abs(s[1]), scene.half[1] + 0.5)]
        if scene.half[1] < 0.96 and aside:
            yield scene, aside


def test_doorways_are_open_or_closed(renderer):
    beyond = []
    for scene, sights in hallways():
        for x, y, _ in sights:
            frame = seen(renderer, scene, (x, 0, 1.2), math.copysign(math.pi / 2, y))
            beyond.append(frame.depth[SIZE[0] // 2, SIZE[1] // 2] - scene.half[1])
    assert len(beyond) > 10
    assert 0.3 < np.mean(np.array(beyond) > 0.5) < 0.95  # a room, not a leaf or a wall


def test_doors_open_into_the_rooms():
    """A leaf in a hallway would seal it, or stand in its walls."""
    ajar = 0
    for scene, _ in hallways():
        for leaf in scene.primitives:
            if leaf.shape != BOX or not np.allclose((leaf.size[0], leaf.size[2]), (0.02, 1)):
                continue
            along = np.array([-math.sin(leaf.yaw), math.cos(leaf.yaw)]) * leaf.size[1]
            for end in (leaf.center[:2] + along, leaf.center[:2] - along):
                inside = np.array(scene.half) - np.abs(end)
                assert inside.min() < 0, 'a leaf reaches into the hallway'
            ajar += abs(math.sin(2 * leaf.yaw)) > 0.1
    assert ajar > 5


def test_a_room_is_seen_towards_its_door():
    """Half a metre into the hallway, and not at a thing behind a wall."""
    rooms = 0
    for seed in range(16):
        scene = make_scene(np.random.default_rng(seed), 'flat')
        if scene.half[1] > 0.96:
            ((x, y, _),) = scene.sights
            beyond = np.abs((x, y)) - scene.half
            assert beyond.max() == pytest.approx(0.5) and beyond.min() < 0
            rooms += 1
    assert rooms > 3


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


def test_every_step_is_as_high_as_the_one_before():
    for seed in range(10):
        scene = make_scene(np.random.default_rng(seed), 'stairs')
        treads = [part for part in scene.primitives if part.size[2:] == (0.015,)]
        tops = sorted([part.center[2] + part.size[2] for part in treads] + [0.0])
        assert len(tops) >= 5
        assert np.ptp(np.diff(tops)) < 1e-9 and 0.15 <= np.diff(tops)[0] <= 0.2
        depths = {round(2 * part.size[0] - 0.03, 9) for part in treads}
        assert len(depths) == 1 and 0.22 <= depths.pop() <= 0.32
