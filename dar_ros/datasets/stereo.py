"""Pairs of a stereo camera as a data set: real images where no better truth is."""

import json
from pathlib import Path

import cv2
import numpy as np

from dar_ros.datasets.files import existing, read_lines, read_text
from dar_ros.datasets.frames import Frames, checked, only
from dar_ros.errors import UsageError
from dar_ros.files import read_rgb
from dar_ros.geometry import Intrinsics

MATCHED_DEPTH = (0.3, 5.0)  # metres in which stereo on a 7.5 cm baseline is worth comparing with


class StereoDataset(Frames):
    """
    Rectified pairs of a stereo camera, depth by matching: real images where no better truth is.

        FOLDER/NAME_left.png, NAME_right.png, FOLDER/*.json {"fx", "cx0", "cx1", "cy",
        "baseline_meters"}

    The split is a text file of NAMEs. Matching is semi-global (Hirschmueller 2008, OpenCV), both
    ways; a pixel counts where both agree within a pixel and the surface is between 0.3 and 5 m.
    """

    def __init__(self, folder, split=None):
        folder = existing(Path(folder), 'folder of the data set')
        names = (
            read_lines(split)
            if split
            else sorted(path.name[: -len('_left.png')] for path in folder.glob('*_left.png'))
        )
        calibration = next(iter(sorted(folder.glob('*.json'))), None)
        if not names or calibration is None:
            raise UsageError(f'{folder}: NAME_left.png, NAME_right.png and a .json are expected')
        try:
            camera = json.loads(read_text(calibration, 'calibration'))
            self.fx, self.cx, self.cy = (float(camera[key]) for key in ('fx', 'cx0', 'cy'))
            self.baseline, self.shift = camera['baseline_meters'], camera['cx1'] - camera['cx0']
        except (ValueError, KeyError, TypeError):
            raise UsageError(f'{calibration} holds no fx, cx0, cx1, cy, baseline_meters') from None
        pair = [
            tuple(folder / f'{name}_{side}.png' for side in ('left', 'right')) for name in names
        ]
        super().__init__([tuple(existing(p, 'image of a pair') for p in both) for both in pair])

    def _frame(self, left, right):
        rgb = read_rgb(left)
        views = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (rgb, read_rgb(right))]
        # cx0 - cx1 is the disparity of a point at infinity.
        disparity = matched_disparity(*views) + self.shift
        with np.errstate(divide='ignore'):
            depth = self.fx * self.baseline / disparity
        everything = (0, depth.shape[0], 0, depth.shape[1])
        camera = Intrinsics(self.fx, self.fx, self.cx, self.cy)
        return checked(rgb, only(depth, everything, *MATCHED_DEPTH), camera, left)


def matched_disparity(left, right, most=128):
    """Disparity (H, W) in pixels of grey rectified images; NaN where the two ways disagree."""

    def match(first, second):
        matcher = cv2.StereoSGBM_create(
            0, most, 5, 8 * 25, 32 * 25, 1, 31, 10, 100, 2, cv2.STEREO_SGBM_MODE_HH
        )
        # Without a margin the columns nearer than `most` to the border have no match.
        first, second = (
            cv2.copyMakeBorder(v, 0, 0, most, 0, cv2.BORDER_CONSTANT) for v in (first, second)
        )
        found = matcher.compute(first, second)[:, most:].astype(np.float32) / 16
        return np.where(found > 0, found, np.nan)

    ahead = match(left, right)
    back = match(right[:, ::-1].copy(), left[:, ::-1].copy())[:, ::-1]
    columns = np.arange(left.shape[1])[None] - np.nan_to_num(ahead).round().astype(int)
    other = np.take_along_axis(back, np.clip(columns, 0, None), 1)
    agree = (np.abs(ahead - other) <= 1) & (columns >= 0)
    return np.where(agree, ahead, np.nan)
