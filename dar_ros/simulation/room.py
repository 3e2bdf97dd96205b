"""A simulated room as a camera: a robot that turns and drives slowly on a smooth path."""

import math

import numpy as np

from dar_ros.datasets.frames import Frame
from dar_ros.simulation.renderer import Renderer, auto_exposed
from dar_ros.simulation.scenes import make_scene

CAMERA_HEIGHT = 1.1  # metres


class RoomCamera:
    """
    Frames of one seeded room at any time; the path stays in the room's middle and repeats.

    `height` and `width` in pixels, `hfov` in degrees.
    """

    def __init__(self, height, width, hfov=70.0, seed=0):
        self.renderer, self.hfov = Renderer(height, width, seed), hfov
        rng = np.random.default_rng((seed, 99))
        self.scene = make_scene(rng, 'room')
        self.renderer.load(
            self.scene.primitives, self.scene.lights, self.scene.headlight, self.scene.ambient
        )
        self.center = self._open_spot(rng)

    def _open_spot(self, rng):
        """Of many places, the one with the most room around it."""
        places = rng.uniform(-1, 1, (300, 2)) * (np.array(self.scene.half) - 0.6)

        def clearance(place):
            return min(
                (math.dist(place, (x, y)) - r for x, y, r in self.scene.occupied), default=1.0
            )

        return max(places, key=clearance)

    def pose(self, seconds):
        """Position, yaw, pitch and roll at a time; a circle of 0.3 m, one turn a minute."""
        angle = 2 * math.pi * seconds / 60
        x, y = self.center + 0.3 * np.array([math.cos(angle), math.sin(angle)])
        return (x, y, CAMERA_HEIGHT), angle + math.pi, math.radians(-8), 0.0

    def frame(self, seconds) -> Frame:
        """Render the Frame at a time in seconds, automatically exposed."""
        frame = self.renderer.render(*self.pose(seconds), self.hfov)
        frame.image = auto_exposed(frame.image)
        return frame
