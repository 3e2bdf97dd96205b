"""Scenes of the test split seen on purpose: through several lenses, or from a moving camera."""

from dataclasses import dataclass

import numpy as np

from dar_ros.geometry import Intrinsics
from dar_ros.simulation.dataset import SPLITS, TEST_SEED, worth_keeping
from dar_ros.simulation.renderer import Renderer, auto_exposed
from dar_ros.simulation.scenes import make_scene
from dar_ros.simulation.stock import Stock
from dar_ros.simulation.viewpoints import camera_pose

STREAM = 4  # keeps these scenes apart from those of the data sets
FORWARD, TURN = 0.05, 0.03  # metres and radians (standard deviation) from a frame to the next


@dataclass
class View:
    """A picture and where it was taken: camera (x right, y down, z forward) to world."""

    image: np.ndarray  # uint8 (H, W, 3) RGB
    depth: np.ndarray  # float32 (H, W) metres along optical Z, sky +inf
    intrinsics: Intrinsics
    rotation: np.ndarray  # (3, 3)
    position: np.ndarray  # (3,) metres


def views_through_lenses(count, fovs, size=(240, 320), seed=TEST_SEED):
    """Yield [View through each of `fovs` (degrees)] of one scene and pose, `count` times."""
    for renderer, pose, _ in _scenes(count, min(fovs), size, seed):
        yield [take(renderer, (*pose[:4], fov)) for fov in fovs]


def moving_views(count, length, size=(240, 320), seed=TEST_SEED):
    """Yield `count` clips of `length` Views of a camera that drives ahead and turns a little."""
    for renderer, pose, rng in _scenes(count, None, size, seed):
        position, yaw, pitch, roll, fov = pose
        views, turn = [], rng.normal(0, TURN)
        for _ in range(length):
            views.append(take(renderer, (position, yaw, pitch, roll, fov)))
            ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0]) * FORWARD
            position, yaw = np.asarray(position) + ahead, yaw + turn
        yield views


def take(renderer, pose):
    """Render a pose (see Renderer.render), automatically exposed, as a View."""
    frame = renderer.render(*pose)
    rotation = renderer.data.cam_xmat[0].reshape(3, 3) * [1, -1, -1]  # MuJoCo: y up, z back
    position = renderer.data.cam_xpos[0].copy()
    return View(auto_exposed(frame.image), frame.depth, frame.intrinsics, rotation, position)


def _scenes(count, fov, size, seed):
    """Yield renderer, pose, random generator of scenes worth seeing; `fov` None: any."""
    stock = Stock(np.random.default_rng((11, seed, STREAM)), held_out=True)
    renderer, kinds = Renderer(*size, (seed, STREAM), stock), SPLITS['test'].kinds
    try:
        for number in range(count):
            rng = np.random.default_rng((seed, STREAM, number))
            yield renderer, _seen_scene(renderer, rng, kinds, fov, stock), rng
    finally:
        renderer.close()


def _seen_scene(renderer, rng, kinds, fov, stock):
    """Load a scene into the renderer; return a pose from which it is worth seeing."""
    while True:
        scene = make_scene(rng, rng.choice(list(kinds), p=list(kinds.values())), stock)
        renderer.load(scene.primitives, scene.lights, scene.headlight, scene.ambient)
        for _ in range(20):
            pose = camera_pose(rng, scene)
            if pose is None:
                continue
            pose = (*pose[:4], fov or pose[4])
            if worth_keeping(renderer.render(*pose).depth):
                return pose
