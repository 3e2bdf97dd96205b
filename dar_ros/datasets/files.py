"""Files of data sets: each read strictly, a wrong one refused in one line that names it."""

from pathlib import Path

import cv2
import numpy as np

from dar_ros.errors import UsageError


def existing(path, what):
    """Return the path; UsageError if nothing is there."""
    if not path.exists():
        raise UsageError(f'{path} is missing ({what})')
    return path


def only_file(folder):
    """Return the one file in a folder; hidden ones, such as .DS_Store, do not count."""
    files = sorted(existing(folder, 'folder of a scene').iterdir())
    files = [path for path in files if not path.name.startswith('.')]
    if len(files) != 1:
        raise UsageError(f'{folder}: one file is expected, there are {len(files)}')
    return files[0]


def read_text(path, what):
    """Return a file's text, of Windows perhaps: a byte order mark is no part of it."""
    try:
        return existing(Path(path), what).read_text(encoding='utf-8-sig')
    except (UnicodeDecodeError, IsADirectoryError):
        raise UsageError(f'{path} is no {what}, which is text') from None


def read_lines(path):
    """Return the lines of a list of frames that are not blank."""
    if path is None:
        raise UsageError('this data set needs its list of frames: --split-file FILE')
    lines = [line.strip() for line in read_text(path, 'list of frames').splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise UsageError(f'{path} is empty')
    return lines


def read_depth(path, per_metre):
    """16-bit PNG -> metres float32 (H, W), 0 becomes NaN."""
    metres = read_png16(path).astype(np.float32) / per_metre
    return np.where(metres > 0, metres, np.nan)


def read_png16(path):
    """16-bit PNG of one channel -> uint16 (H, W)."""
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype != np.uint16 or raw.ndim != 2:
        raise UsageError(f'{path} is no 16-bit depth image of one channel')
    return raw


def read_npy(path):
    """Array file of metres -> float32 (H, W), what is not above 0 becomes NaN."""
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise UsageError(f'{path} is no array') from None
    if depth.ndim != 2 or depth.dtype.kind != 'f':
        raise UsageError(f'{path} is no float array (rows, columns) of metres')
    depth = depth.astype(np.float32)
    return np.where(depth > 0, depth, np.nan)
