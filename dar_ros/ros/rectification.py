"""Undistortion by CameraInfo, its maps cached."""

import cv2
import numpy as np

from dar_ros.errors import FrameError
from dar_ros.geometry import Intrinsics

_PINHOLE = ('plumb_bob', 'rational_polynomial')


class Rectifier:
    """Turns a distorted image into that of the pinhole camera of the same K."""

    def __init__(self):
        self._key, self._maps, self._unseen = None, None, None

    def __call__(self, image, info, intrinsics):
        """
        RGB (H, W, 3), its CameraInfo and Intrinsics at this size -> undistorted RGB of the same
        intrinsics, and which of its pixels the camera did not see: boolean (H, W), or None.
        """
        distortion = np.array(info.d, np.float64)
        if not distortion.any():
            return image, None
        if not np.isfinite(distortion).all():
            raise FrameError('camera_info has distortion coefficients that are not finite')
        key = (image.shape, intrinsics, info.distortion_model, distortion.tobytes())
        if key != self._key:
            self._maps = _maps(image.shape[1::-1], intrinsics, info.distortion_model, distortion)
            # Outside the source image, so remap paints black and `_outside` finds it.
            self._maps[0][_folded(image.shape, intrinsics, info.distortion_model, distortion)] = -2
            self._key, self._unseen = key, _outside(self._maps[0])
        return cv2.remap(image, *self._maps, cv2.INTER_LINEAR), self._unseen


def _maps(size, intrinsics: Intrinsics, model, distortion):
    matrix = intrinsics.matrix()
    if model in _PINHOLE and len(distortion) in (4, 5, 8, 12, 14):
        return cv2.initUndistortRectifyMap(matrix, distortion, None, matrix, size, cv2.CV_16SC2)
    if model == 'equidistant' and len(distortion) == 4:
        return cv2.fisheye.initUndistortRectifyMap(
            matrix, distortion, np.eye(3), matrix, size, cv2.CV_16SC2
        )
    raise FrameError(
        f'cannot rectify distortion model {model!r} with {len(distortion)} coefficients; '
        f'known are {", ".join((*_PINHOLE, "equidistant"))}'
    )


def _folded(shape, intrinsics, model, distortion):
    """
    Pixels (H, W) of a straight image so far out that the distortion's polynomial turns back.

    A calibration of few coefficients that saw no corners does so: what it maps to there is a
    mirror image of what lies farther in.
    """
    rows, columns = np.indices(shape[:2])
    radius = np.hypot(
        (columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy
    )
    r = np.linspace(0, radius.max(), 2000)
    k = np.pad(distortion, (0, 14 - len(distortion)))
    with np.errstate(divide='ignore', invalid='ignore'):
        if model == 'equidistant':
            t = np.arctan(r)
            image_radius = t * (1 + k[0] * t**2 + k[1] * t**4 + k[2] * t**6 + k[3] * t**8)
        else:
            above = 1 + k[0] * r**2 + k[1] * r**4 + k[4] * r**6
            image_radius = r * above / (1 + k[5] * r**2 + k[6] * r**4 + k[7] * r**6)
        turned = np.flatnonzero(~(np.diff(image_radius) > 0))
    return radius > (r[turned[0]] if turned.size else np.inf)


def _outside(places):
    """Source pixels (H, W, 2: x, y) of a map -> where they lie beyond the image; None: nowhere."""
    height, width = places.shape[:2]
    x, y = places[..., 0], places[..., 1]
    result = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    return result if result.any() else None
