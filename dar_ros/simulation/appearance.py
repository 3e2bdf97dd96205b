"""What light, sky, lens and sensor make of a rendered picture."""

import cv2
import numpy as np

from dar_ros.geometry import rays


def lit(frame, rng):
    """
    Pools of light near surfaces, per pixel: on bare walls nothing else varies; float32 (H, W, 3).

    MuJoCo lights vertices, and has no lamp shades and no windows that shine.
    """
    image = frame.image.astype(np.float32)
    if rng.random() < 0.25:
        return image
    camera, depth = frame.intrinsics, np.minimum(frame.depth, 200)
    rows, columns = depth.shape
    x, y = (slopes * depth for slopes in rays(camera, rows, columns))
    field = np.full(depth.shape, rng.uniform(0.25, 1.0), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        v, u = rng.integers(rows), rng.integers(columns)
        towards = 1 - rng.uniform(0.05, 0.6)
        away = [a - towards * a[v, u] for a in (x, y, depth)]
        reach = rng.uniform(0.2, 0.8) * depth[v, u]
        field += rng.uniform(0.3, 1.5) / (1 + sum(a * a for a in away) / reach**2)
    return image * (field / field.mean())[..., None]


def clouded(image, depth, rng):
    """
    Another sky in float32 (H, W, 3), where depth (H, W) is +inf: from blue to overcast, dull or
    bright, with or without clouds. MuJoCo has one sky, a smooth gradient.
    """
    sky = np.isinf(depth)
    rows, columns = depth.shape
    clouds = np.zeros((rows, columns), np.float32)
    for cells in (2, 5, 11):
        blobs = rng.standard_normal((cells, cells + 1)).astype(np.float32) / cells
        clouds += cv2.resize(blobs, (columns, rows), interpolation=cv2.INTER_CUBIC)
    clouds *= rng.choice([0.0, rng.uniform(10, 60)])
    slope = np.linspace(rng.uniform(-40, 10), 0, rows, dtype=np.float32)[:, None]
    grey = np.array([1.0, 1.0, 1.0]) - rng.choice([0.0, rng.uniform(0, 0.45)]) * np.array(
        [1.0, 0.5, 0.0]
    )
    shade = (rng.uniform(120, 300) + slope + clouds)[..., None] * grey.astype(np.float32)
    return np.where(sky[..., None], shade, image).astype(np.float32)


def distorted(frame, rng):
    """One frame in four through a lens with a little radial distortion; depth is resampled too."""
    if rng.random() < 0.75:
        return frame
    camera = frame.intrinsics
    matrix = camera.matrix()
    rows, columns = frame.depth.shape
    # Strong enough to see at the corners, whatever the focal length.
    corner = (camera.cx / camera.fx) ** 2 + (camera.cy / camera.fy) ** 2
    coefficients = np.array([rng.uniform(-0.04, 0.04) / corner, 0, 0, 0])
    maps = cv2.initUndistortRectifyMap(
        matrix, coefficients, None, matrix, (columns, rows), cv2.CV_32FC1
    )
    frame.image = cv2.remap(frame.image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    frame.depth = cv2.remap(
        frame.depth, *maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan
    )
    return frame


def exposed(image, rng):
    """Auto-exposure to a varying target, vignetting, a little sensor noise; to uint8."""
    image = image.astype(np.float32)
    image *= np.clip(rng.normal(118, 18) / max(image.mean(), 8), 0.4, 4)
    rows, columns = image.shape[:2]
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    image *= (1 - rng.uniform(0, 0.22) * (x * x + y * y) / 2).astype(np.float32)[..., None]
    image += rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0.5, 3)
    return np.clip(image, 0, 255).astype(np.uint8)
