"""Pinhole geometry: intrinsics under resize and crop, and unprojection."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Intrinsics:
    """
    Focal lengths and principal point of a rectified pinhole camera, in pixels.

    Pixel centres lie at integers (the convention of ROS's CameraInfo and of OpenCV).
    """

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_fov(cls, hfov_deg, width, height):
        """Centred square-pixel camera of a horizontal field of view in degrees."""
        return cls.centered(width / 2 / math.tan(math.radians(hfov_deg) / 2), width, height)

    @classmethod
    def centered(cls, focal, width, height):
        """Square-pixel camera of a focal length in pixels that looks through the middle."""
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2)

    @property
    def focal(self):
        """Geometric mean of the focal lengths: the one number that sets metric scale."""
        return math.sqrt(self.fx * self.fy)

    def scale(self, sx, sy=None):
        """Intrinsics after a resize by (sx, sy): x' = (x + 0.5) sx - 0.5."""
        sy = sx if sy is None else sy
        return Intrinsics(
            self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        )

    def crop(self, left, top):
        """Intrinsics of a crop that begins at column `left`, row `top` (negative: padding)."""
        return Intrinsics(self.fx, self.fy, self.cx - left, self.cy - top)

    def mirrored(self, width):
        """Intrinsics of the image, `width` pixels wide, with left and right exchanged."""
        return Intrinsics(self.fx, self.fy, width - 1 - self.cx, self.cy)

    def matrix(self):
        """K, (3, 3) float64."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])


@lru_cache(maxsize=4)
def rays(intrinsics, height, width, stride=1):
    """
    Slopes x / z of every `stride`-th column, (1, w), and y / z of every such row, (h, 1), float32.
    """
    columns = (np.arange(0, width, stride, dtype=np.float32) - intrinsics.cx) / intrinsics.fx
    rows = (np.arange(0, height, stride, dtype=np.float32) - intrinsics.cy) / intrinsics.fy
    return columns.astype(np.float32)[None, :], rows.astype(np.float32)[:, None]


def unproject(depth, intrinsics, stride=1):
    """
    Depth (H, W) in metres along optical Z -> points (h, w, 3) float32 in the optical frame.

    x right, y down, z forward (REP 103); NaN and infinite depth give NaN or infinite points.
    """
    x, y = rays(intrinsics, *depth.shape, stride)
    z = depth[::stride, ::stride]
    return np.stack([z * x, z * y, z], -1)
