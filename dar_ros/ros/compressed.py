"""sensor_msgs/CompressedImage -> arrays: JPEG, PNG, and compressed_depth_image_transport's PNG."""

import struct

import cv2
import numpy as np

from dar_ros.errors import FrameError, first_line
from dar_ros.ros.conversions import ENCODINGS, MAX_SIDE

MAX_PIXELS = 64 * 2**20  # decoded size limit: a few compressed bytes can announce any size
_PNG = b'\x89PNG\r\n\x1a\n'
_DEPTH_HEADER = struct.Struct('<iff')  # of compressed_depth_image_transport: format, A, B


def compressed_to_rgb(msg):
    """
    sensor_msgs/CompressedImage (JPEG, PNG) -> RGB uint8 (H, W, 3); FrameError if it does not
    decode.

    Its format begins with the encoding of what was compressed: one channel of Bayer's may be a
    mosaic still, unless `compressed mono8` says that it is grey.
    """
    encoding = msg.format.split(';')[0].strip()
    mosaic = encoding.startswith('bayer_') and 'compressed mono' not in msg.format
    # The camera's own pixels: an orientation tag would turn them away from its camera_info.
    flags = cv2.IMREAD_UNCHANGED if mosaic and encoding in ENCODINGS else cv2.IMREAD_COLOR
    image = _decoded(msg.data, msg.format, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    image = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    if image.ndim == 3:
        return cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)
    return cv2.cvtColor(image, ENCODINGS[encoding][2])


def compressed_to_metres(msg):
    """
    Depth as CompressedImage -> float32 (H, W) metres, none is NaN; FrameError if it is not read.

    A 16-bit PNG of millimetres, or what compressed_depth_image_transport makes: such a PNG behind
    a header, for 32FC1 of inverse depth, A / (value - B), with A and B in the header.
    """
    encoding, data = msg.format.split(';')[0].strip(), bytes(msg.data)
    if 'rvl' in msg.format:
        raise FrameError(f'compressed depth of format {msg.format!r}: only its png is read')
    header, data = (data[:12], data[12:]) if 'compressedDepth' in msg.format else (b'', data)
    raw = _decoded(data, msg.format, cv2.IMREAD_UNCHANGED)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise FrameError(f'compressed depth of format {msg.format!r} has no 16 bits a pixel')
    values = np.where(raw > 0, raw, np.nan).astype(np.float32)
    if encoding == '16UC1':
        return values / 1000
    if encoding == '32FC1' and header:
        _, a, b = _DEPTH_HEADER.unpack(header)
        with np.errstate(divide='ignore'):
            return np.float32(a) / (values - np.float32(b))
    raise FrameError(f'compressed depth of format {msg.format!r} is neither of 16UC1 nor of 32FC1')


def _decoded(data, name, flags):
    """OpenCV's image of a PNG or JPEG whose announced size is bearable; FrameError otherwise."""
    data = np.frombuffer(data, np.uint8)
    width, height = _compressed_size(data.tobytes(), name)
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise FrameError(f'compressed image announces {width}x{height} pixels, which is too large')
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise FrameError(f'compressed image does not decode: {first_line(error)}') from None
    if image is None or image.shape[:2] != (height, width):
        raise FrameError(f'compressed image of format {name!r} does not decode')
    return image


def _compressed_size(data, name):
    """(width, height) that a whole PNG or JPEG announces; FrameError for anything else."""
    if data.startswith(_PNG) and len(data) >= 24:
        if b'IEND' not in data[-12:]:
            raise FrameError(f'truncated PNG image: {len(data)} bytes without its end')
        return struct.unpack('>II', data[16:24])
    if data.startswith(b'\xff\xd8'):
        return _jpeg_size(data)
    raise FrameError(f'compressed image of format {name!r} is neither PNG nor JPEG')


def _jpeg_size(data):
    """
    (width, height) of a JPEG that has its end; FrameError otherwise: OpenCV paints what is missing
    grey.

    The end is looked for behind the start of the scan, as the thumbnail in a header has one of its
    own; what follows it is the padding of a camera or its driver.
    """
    place, size = 2, None
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], 'big')
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == 0xDA:  # start of scan
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            size = struct.unpack('>HH', data[place + 5 : place + 9])[::-1]
        place += 2 + length
    if data.find(b'\xff\xd9', place) < 0:
        raise FrameError(f'truncated JPEG image: {len(data)} bytes without its end')
    if size is None:
        raise FrameError('JPEG image without a size')
    return size
