"""A contact sheet of a data set: whoever trains on data should have looked at it."""

import cv2
import numpy as np

from dar_ros.datasets.frames import spread
from dar_ros.errors import UsageError
from dar_ros.postprocess import colorize

CELL, COLUMNS = 240, 6  # pixels across a frame, frames in a row
RANGE = (0.2, 40.0)  # metres, of the colours


def write_sheet(frames, count, path, pipeline=None):
    """
    Write `count` frames spread over a data set as one picture; returns how many there are.

    With a `pipeline` its depth stands below the true one.
    """
    chosen = [frames[i] for i in spread(frames, count)]
    if not chosen:
        raise UsageError('the data set is empty: there is nothing to lay out')
    sheet = contact_sheet(chosen, pipeline)
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    except cv2.error:  # no such kind of picture
        written = False
    if not written:
        raise UsageError(f'{path} cannot be written: name a .png or .jpg in a folder that exists')
    return len(chosen)


def contact_sheet(frames, pipeline=None):
    """Frames, each over its depth in colours (red 0.2 m, blue 40 m), in rows; uint8 (H, W, 3)."""
    cells = [_cell(frame, pipeline) for frame in frames]
    columns = min(COLUMNS, len(cells))
    height = max(cell.shape[0] for cell in cells)
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * height, columns * CELL, 3), 255, np.uint8)
    for i, cell in enumerate(cells):
        top, left = i // columns * height, i % columns * CELL
        sheet[top : top + cell.shape[0], left : left + CELL] = cell
    return sheet


def _cell(frame, pipeline):
    rows = round(frame.image.shape[0] * CELL / frame.image.shape[1])
    picture = cv2.resize(np.array(frame.image), (CELL, rows), interpolation=cv2.INTER_AREA)
    depths = [np.array(frame.depth)]
    if pipeline:
        depths.append(pipeline(np.array(frame.image), frame.intrinsics).depth)
    small = [cv2.resize(d, (CELL, rows), interpolation=cv2.INTER_NEAREST) for d in depths]
    return np.concatenate([picture, *(colorize(depth, *RANGE) for depth in small)])
