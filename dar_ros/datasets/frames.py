"""A frame of a data set, and lists of them."""

from dataclasses import dataclass

import numpy as np

from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics

SMALLEST_FOCAL = 0.05  # image sides; a rectified view of 168 degrees


@dataclass
class Frame:
    """An image and its true depth; read-only arrays where a data set is memory-mapped."""

    image: np.ndarray  # uint8 (H, W, 3) RGB
    depth: np.ndarray  # float32 (H, W) metres along optical Z; sky +inf, not to be scored NaN
    intrinsics: Intrinsics


class Frames:
    """A list of `samples` (files) that become Frames when asked for."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        """Return the number of frames."""
        return len(self.samples)

    def __getitem__(self, index):
        """Return a Frame."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._frame(*self.samples[index])


def checked(rgb, metres, intrinsics, name):
    """Return a Frame of parts that fit each other; UsageError that names the image `name`."""
    require_same_size(rgb, metres, name)
    height, width = metres.shape
    cx, cy = (intrinsics.cx + 0.5) / width - 0.5, (intrinsics.cy + 0.5) / height - 0.5
    # A crop may lie beside the principal point, if not by image sides. NaN compares false.
    is_camera = (
        SMALLEST_FOCAL * max(width, height) < min(intrinsics.fx, intrinsics.fy)
        and max(intrinsics.fx, intrinsics.fy) < np.inf
        and max(abs(cx), abs(cy)) < 3
    )
    if not is_camera:
        raise UsageError(
            f'{name}: no camera has the {intrinsics} that it comes with, in pixels of its '
            f'{width}x{height}'
        )
    return Frame(np.ascontiguousarray(rgb), np.ascontiguousarray(metres), intrinsics)


def require_same_size(rgb, metres, name):
    """UsageError if image (H, W, 3) and depth (H, W) differ in size."""
    if metres.shape != rgb.shape[:2]:
        raise UsageError(f'{name}: image {rgb.shape[:2]} and depth {metres.shape} differ in size')


def only(depth, box, near, far):
    """Depth (H, W), NaN outside rows and columns (top, bottom, left, right) and (near, far)."""
    top, bottom, left, right = box
    inside = np.zeros(depth.shape, bool)
    inside[top:bottom, left:right] = True
    with np.errstate(invalid='ignore'):
        inside &= (depth > near) & (depth < far)
    return np.where(inside, depth, np.nan).astype(np.float32)


def spread(frames, count=None):
    """
    Return the indices of `count` frames evenly spread over a data set, first and last among them;
    of all of them, if it has no more or `count` is None.

    The first ones of a recording would be one place.
    """
    total = len(frames)
    return np.linspace(0, total - 1, min(total, count or total)).astype(int).tolist()
