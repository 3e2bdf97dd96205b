"""
ROS messages <-> arrays.

Image decoding is a numpy view and one OpenCV call for every encoding: cv_bridge dies on import
beside NumPy 2 on current distributions, and rosbags-image lacks 16UC1 and ignores row padding, so
neither could be the only way. Outgoing `data` is an array.array: rclpy copies any other type
element by element, 30 to 100 times slower.
"""

import array
import copy

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from dar_ros.errors import FrameError
from dar_ros.geometry import Intrinsics, rays
from dar_ros.postprocess import row_blocks

MAX_SIDE = 16384  # pixels; more is a broken header, not a camera
BY_NAME = 'its name'  # what says that an image is rectified, where nothing else does
MAX_FOCAL = 1000.0  # focal length and principal point, image sides; and the inverse: no lens is so

_U8, _U16 = np.uint8, np.uint16
# encoding -> (dtype, channels, OpenCV conversion to RGB; None: it is RGB)
ENCODINGS = {
    'rgb8': (_U8, 3, None),
    'bgr8': (_U8, 3, cv2.COLOR_BGR2RGB),
    '8UC3': (_U8, 3, cv2.COLOR_BGR2RGB),
    'rgba8': (_U8, 4, cv2.COLOR_RGBA2RGB),
    'bgra8': (_U8, 4, cv2.COLOR_BGRA2RGB),
    '8UC4': (_U8, 4, cv2.COLOR_BGRA2RGB),
    'rgb16': (_U16, 3, None),
    'bgr16': (_U16, 3, cv2.COLOR_BGR2RGB),
    'mono8': (_U8, 1, cv2.COLOR_GRAY2RGB),
    '8UC1': (_U8, 1, cv2.COLOR_GRAY2RGB),
    'mono16': (_U16, 1, cv2.COLOR_GRAY2RGB),
    '16UC1': (_U16, 1, cv2.COLOR_GRAY2RGB),
    'yuv422': (_U8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (_U8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (_U8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (_U8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'nv12': (_U8, 1, cv2.COLOR_YUV2RGB_NV12),
    'nv21': (_U8, 1, cv2.COLOR_YUV2RGB_NV21),
}
# OpenCV names a Bayer pattern by its second row.
for _pattern, _code in (
    ('rggb', cv2.COLOR_BayerBG2RGB),
    ('bggr', cv2.COLOR_BayerRG2RGB),
    ('gbrg', cv2.COLOR_BayerGR2RGB),
    ('grbg', cv2.COLOR_BayerGB2RGB),
):
    ENCODINGS[f'bayer_{_pattern}8'] = (_U8, 1, _code)
    ENCODINGS[f'bayer_{_pattern}16'] = (_U16, 1, _code)
_SUBSAMPLED = {'yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21'}


def image_to_rgb(msg):
    """
    sensor_msgs/Image -> RGB uint8 (H, W, 3); FrameError in one line for anything malformed.

    Sizes are checked before anything is allocated. 16 bit becomes 8 by its high byte: a scale that
    followed each image's content would flicker.
    """
    if msg.encoding not in ENCODINGS:
        raise FrameError(
            f'unknown encoding {msg.encoding!r}; known are {", ".join(sorted(ENCODINGS))}'
        )
    dtype, channels, code = ENCODINGS[msg.encoding]
    height, width = msg.height, msg.width
    if (
        msg.encoding in _SUBSAMPLED
        and width % 2
        or msg.encoding in ('nv12', 'nv21')
        and height % 2
    ):
        raise FrameError(f'image size {width}x{height}: {msg.encoding} needs even sides')
    rows = height * 3 // 2 if msg.encoding in ('nv12', 'nv21') else height
    pixels = _pixels(msg, dtype, channels, rows)
    if dtype is _U16:
        pixels = (pixels >> 8).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels)
    return pixels if code is None else cv2.cvtColor(pixels, code)


def image_to_metres(msg):
    """
    Depth image, 32FC1 (metres) or 16UC1 (millimetres), REP 118 -> float32 (H, W), none is NaN.
    """
    if msg.encoding == '16UC1':
        raw = _pixels(msg, _U16, 1, msg.height)[..., 0]
        return np.where(raw > 0, raw.astype(np.float32) / 1000, np.nan).astype(np.float32)
    if msg.encoding == '32FC1':
        return _pixels(msg, np.float32, 1, msg.height)[..., 0].astype(np.float32)
    raise FrameError(f'depth encoding {msg.encoding!r} is neither 32FC1 nor 16UC1')


def _pixels(msg, dtype, channels, rows):
    """View (rows, W, channels) of an Image's data; sizes are checked before anything is read."""
    height, width = msg.height, msg.width
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise FrameError(f'image size {width}x{height} is not within 1..{MAX_SIDE}')
    order = np.dtype(dtype).newbyteorder('>' if msg.is_bigendian else '<')
    row_bytes = width * channels * order.itemsize
    if msg.step < row_bytes:
        raise FrameError(
            f'step {msg.step} is less than a row of {width} {msg.encoding} pixels '
            f'({row_bytes} bytes)'
        )
    if len(msg.data) < msg.step * (rows - 1) + row_bytes:
        raise FrameError(
            f'truncated image: {len(msg.data)} bytes, {width}x{height} {msg.encoding} with step '
            f'{msg.step} needs {msg.step * rows}'
        )
    if msg.step % order.itemsize:
        raise FrameError(f'step {msg.step} is no multiple of the {msg.encoding} sample size')
    data = np.frombuffer(msg.data, np.uint8)
    strides = (msg.step, channels * order.itemsize, order.itemsize)
    return np.ndarray((rows, width, channels), order, data, strides=strides)


def rectified_by(topic, said='auto'):
    """
    Return what says that the images of a topic are rectified, or None: they are not.

    'image_rectified', the parameter, where `said` is true; if it is auto, BY_NAME where a part of
    the name begins so: image_rect, image_rect_color ... image_proc publishes them beside the
    camera's own camera_info, whose D is that of the lens.
    """
    if said != 'auto':
        return 'image_rectified' if said == 'true' else None
    named = any(part.startswith('image_rect') for part in topic.split('/'))
    return BY_NAME if named else None


def rectified_info(info):
    """
    Return the CameraInfo of what a camera publishes as image_rect: K is P's, and D zero.
    """
    if not (info.k[0] and _is_of_p(info, BY_NAME)):  # not calibrated, or not for that
        return info
    result = copy.deepcopy(info)
    result.k = [info.p[i] for i in (0, 1, 2, 4, 5, 6, 8, 9, 10)]
    result.d = [0.0] * len(info.d)
    result.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    return result


def intrinsics_from_info(info, size, source=None):
    """
    CameraInfo -> Intrinsics of an image of `size` (H, W), or None if uncalibrated (K[0] == 0, REP
    104).

    A raw image is of K, a rectified one (`source`: see rectified_by) of P, where there is one.
    Both are of the full calibration size: a region of interest, binning and any further resize are
    applied. FrameError if the numbers make no camera.
    """
    if info.k[0] == 0:
        return None
    name, camera = 'K', _camera_of_k(info)
    if _is_of_p(info, source):
        name, camera = 'P', _camera_of_p(info)
    result = _of_image(camera, info, size)
    if not _is_camera(result, size):
        raise FrameError(
            f'camera_info has no usable {name}: fx {camera.fx}, fy {camera.fy}, cx {camera.cx}, '
            f'cy {camera.cy} for an image of {size[1]}x{size[0]}'
        )
    return result


def _camera_of_k(info):
    return Intrinsics(*(float(info.k[i]) for i in (0, 4, 2, 5)))


def _camera_of_p(info):
    return Intrinsics(*(float(info.p[i]) for i in (0, 5, 2, 6)))


def _of_image(camera, info, size):
    """Intrinsics at calibration size -> those of an image of `size` (H, W)."""
    left, top, width, height = _window(info, size)
    return camera.crop(left, top).scale(size[1] / width, size[0] / height)


def _is_of_p(info, source):
    """
    Whether an image that `source` says is rectified is of P. Of a lens without distortion
    image_proc's image_rect is the raw image, passed on as it is: of K, even if P has another focal
    length.
    """
    return bool(source and info.p[0] and (source != BY_NAME or any(info.d)))


def _is_camera(intrinsics, size):
    """Whether the numbers are finite and of an order that some lens has (NaN compares false)."""
    height, width = size
    return all(
        side / MAX_FOCAL <= focal <= side * MAX_FOCAL and abs(center) <= side * MAX_FOCAL
        for side, focal, center in (
            (width, intrinsics.fx, intrinsics.cx),
            (height, intrinsics.fy, intrinsics.cy),
        )
    )


def shape_warning(info, size):
    """[] or one line: the image is not of the shape that the CameraInfo describes."""
    _, _, width, height = _window(info, size)
    width, height = width / max(1, info.binning_x), height / max(1, info.binning_y)
    if 0.95 < (size[1] / width) / (size[0] / height) < 1.05:
        return []
    return [
        f'camera_info is of {width:.0f}x{height:.0f} pixels, the image has {size[1]}x{size[0]}: '
        'a crop needs a region of interest'
    ]


def _window(info, size):
    """
    Part of the calibrated image that the picture shows: left, top, width, height in calibration
    pixels.
    """
    roi = info.roi
    if roi.width and roi.height:
        return roi.x_offset, roi.y_offset, roi.width, roi.height
    # Drivers that leave the size out mean the image's own.
    return 0, 0, info.width or size[1], info.height or size[0]


def info_for_depth(info, header, size, intrinsics, rectified=False):
    """
    CameraInfo of a depth image of `size` (H, W): K and P of that size, no binning, no region of
    interest.
    """
    result = CameraInfo(header=header, height=size[0], width=size[1])
    if info is None or intrinsics is None:
        return result
    result.k = intrinsics.matrix().ravel().tolist()
    if rectified:
        result.distortion_model, result.d = 'plumb_bob', [0.0] * 5
        result.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        projection = intrinsics
    else:
        result.distortion_model, result.d, result.r = (
            info.distortion_model,
            copy.copy(info.d),
            copy.copy(info.r),
        )
        projection = _of_image(_camera_of_p(info), info, size)
        if not _is_camera(projection, size):  # left out, or damaged
            projection = intrinsics
    result.p = np.c_[projection.matrix(), np.zeros(3)].ravel().tolist()
    return result


def _image(header, array_, encoding):
    height, width = array_.shape[:2]
    message = Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=array_.strides[0],
    )
    return _give_data(message, _bytes(array_))


def _give_data(message, data):
    """
    Let a message have `data` (array.array of type B) as it is; returns the message.

    Constructors copy it, in Kilted twice; Kilted's setter copies it too unless it checks it.
    """
    if hasattr(message, '_check_fields'):
        message._check_fields = True
    message.data = data
    return message


def _bytes(array_):
    data = array.array('B')
    data.frombytes(memoryview(np.ascontiguousarray(array_)).cast('B'))
    return data


def metres_to_image(values, header):
    """Metres (H, W) float32 -> 32FC1 Image, values as they are (REP 117, 118)."""
    return _image(header, np.ascontiguousarray(values, '<f4'), '32FC1')


def metres_to_image16(values, header):
    """Metres (H, W) -> 16UC1 Image in millimetres (REP 118), see `millimetres`."""
    return _image(header, millimetres(values).astype('<u2'), '16UC1')


def millimetres(metres):
    """Metres (H, W) -> millimetres uint16; 0 where invalid, not above 0 or beyond 65.535 m."""
    with np.errstate(invalid='ignore', over='ignore'):
        rounded = np.rint(metres * 1000)
        good = (rounded > 0) & (rounded <= 65535)
    return np.where(good, rounded, 0).astype(np.uint16)


def rgb_to_image(rgb, header):
    """RGB uint8 (H, W, 3) -> rgb8 Image."""
    return _image(header, np.ascontiguousarray(rgb), 'rgb8')


def cloud(depth, intrinsics, header, rgb=None, invalid=None, stride=1):
    """
    Depth (H, W) metres -> organized PointCloud2 in the optical frame, every `stride`-th pixel.

    float32 x y z and, with `rgb` (H, W, 3), packed rgb: 16 bytes a point (12 without). NaN where
    the depth is not finite or `invalid` (H, W) is True.
    """
    x, y = rays(intrinsics, *depth.shape, stride)
    height, width = y.size, x.size
    fields = 3 if rgb is None else 4
    data = array.array('B', [0]) * (4 * fields * height * width)
    packed = np.frombuffer(data, '<f4').reshape(height, width, fields)
    for rows in row_blocks(height, width):
        taken = slice(rows.start * stride, rows.stop * stride, stride), slice(None, None, stride)
        z = np.array(depth[taken], np.float32, order='C')
        bad = ~np.isfinite(z)
        if invalid is not None:
            bad |= invalid[taken]
        z[bad] = np.nan
        planes = [z * x, z * y[rows], z]
        if rgb is not None:
            # Bytes b g r 0 are the packed number 0x00rrggbb that pcl and RViz read.
            color = cv2.cvtColor(np.ascontiguousarray(rgb[taken]), cv2.COLOR_RGB2BGRA)
            color = color.view('<u4')[..., 0] & np.uint32(0xFFFFFF)
            planes.append(color.view('<f4'))
        cv2.merge(planes, packed[rows])  # straight into the message's memory
    message = PointCloud2(
        header=header,
        height=height,
        width=width,
        is_bigendian=False,
        is_dense=False,
        point_step=4 * fields,
        row_step=4 * fields * width,
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(('x', 'y', 'z', 'rgb')[:fields])
        ],
    )
    return _give_data(message, data)
