"""Images read, depth results written (npy, coloured png, ply)."""

import cv2
import numpy as np

from dar_ros.errors import UsageError
from dar_ros.geometry import unproject
from dar_ros.postprocess import EDGE_THRESHOLD, colorize, flying_pixels


def read_rgb(path):
    """Image file -> RGB uint8 (H, W, 3); UsageError if it is none."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UsageError(f'{path} is no readable image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_depth(stem, frame, image, depth_range):
    """
    Write STEM.npy (float32 (H, W) metres, NaN where invalid), STEM_depth.png and STEM.ply of a
    DepthFrame.

    Returns the nearest and farthest depth and the share of valid pixels.
    """
    finite = np.isfinite(frame.depth)
    np.save(f'{stem}.npy', np.where(finite, frame.depth, np.nan).astype(np.float32))
    cv2.imwrite(
        f'{stem}_depth.png', cv2.cvtColor(colorize(frame.depth, *depth_range), cv2.COLOR_RGB2BGR)
    )
    kept = finite & ~flying_pixels(frame.depth, EDGE_THRESHOLD)
    write_ply(f'{stem}.ply', unproject(frame.depth, frame.intrinsics)[kept], image[kept])
    valid = frame.depth[finite]
    return (*((valid.min(), valid.max()) if valid.size else (np.nan, np.nan)), finite.mean())


def write_ply(path, points, colors):
    """Write points (n, 3) float32 and colours (n, 3) uint8 as binary PLY."""
    vertices = np.empty(len(points), [('xyz', '<f4', 3), ('rgb', 'u1', 3)])
    vertices['xyz'], vertices['rgb'] = points, colors
    properties = ''.join(f'property float {axis}\n' for axis in 'xyz') + ''.join(
        f'property uchar {name}\n' for name in ('red', 'green', 'blue')
    )
    with open(path, 'wb') as file:
        file.write(
            f'ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}'
            'end_header\n'.encode()
        )
        file.write(vertices.tobytes())
