"""The row-median baseline of a training set."""

import numpy as np

from dar_ros.datasets.frames import spread
from dar_ros.training.datasets import to_canonical


def row_medians(frames, config, frames_used=2000):
    """
    Median canonical depth (metres) of every network row over the training set: the baseline to
    beat.
    """
    size, limit = config.input_size, config.depth_range[1]
    columns = []
    for i in spread(frames, frames_used):
        frame = frames[i]
        _, depth, scale = to_canonical(
            np.asarray(frame.image), np.asarray(frame.depth), frame.intrinsics, size, config.focal
        )
        columns.append(np.where(depth < limit * scale, depth, np.nan)[:, ::8])
    found = np.concatenate(columns, 1)
    rows = np.flatnonzero(np.isfinite(found).any(1))  # not those that a protocol crops, or padding
    medians = np.interp(np.arange(size[0]), rows, np.nanmedian(found[rows], axis=1))
    return [round(float(z), 4) for z in medians]
