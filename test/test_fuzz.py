"""
Broken messages: refused in one line or converted to what they say, with memory bounded by them.

100,000 at the conversions; at least 500 at a running node. test_fuzz_hypothesis.py looks further.
"""

import array
import itertools
import struct
import time
import tracemalloc

import cv2
import numpy as np
import pytest

pytest.importorskip(
    'sensor_msgs', reason='sensor_msgs is not installed (extra: ros, or a sourced ROS 2)'
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dar_ros.errors import FrameError
from dar_ros.ros import conversions
from dar_ros.ros.compressed import compressed_to_rgb
from dar_ros.ros.conversions import image_to_rgb, info_for_depth, intrinsics_from_info
from dar_ros.ros.rectification import Rectifier

ENCODINGS = [*conversions.ENCODINGS, '', 'junk', 'RGB8', 'rgb8\0', '32FC1', 'ä']
EDGES = [0, 1, 2, 3, 7, 8, 16383, 16384, 16385, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
NUMBERS = [
    0.0,
    -1.0,
    1e-320,
    1e-30,
    1e30,
    1e308,
    -1e308,
    float('nan'),
    float('inf'),
    -float('inf'),
]
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
FILES = [cv2.imencode(suffix, PICTURE)[1].tobytes() for suffix in ('.png', '.jpg', '.bmp')]


def outcome(function, *arguments):
    """Return its result, or None where it refuses in one line."""
    try:
        return function(*arguments)
    except FrameError as error:
        text = str(error)
        assert text and '\n' not in text and len(text) < 600
        return None


def random_image(rng):
    """Return an Image, often whole, with some fields damaged."""
    encoding = ENCODINGS[rng.integers(len(ENCODINGS))]
    height, width = (2 * int(v) for v in rng.integers(1, 7, 2))
    step = width * int(rng.integers(1, 9))
    size = step * height * 3 // 2
    damage = rng.integers(0, 8)
    if damage == 1:
        height = EDGES[rng.integers(len(EDGES))]
    if damage == 2:
        width = EDGES[rng.integers(len(EDGES))]
    if damage == 3:
        step = EDGES[rng.integers(len(EDGES))]
    if damage == 4:
        size = int(rng.integers(0, size + 1))
    if damage == 5:
        height, width = (int(v) for v in rng.integers(0, 9, 2))
    return Image(
        height=height,
        width=width,
        step=step,
        encoding=encoding,
        is_bigendian=int(rng.integers(0, 3)),
        data=array.array('B', rng.bytes(size)),
    )


def random_info(rng):
    """Return a CameraInfo, often whole, with some fields damaged."""

    def number(usual):
        return NUMBERS[rng.integers(len(NUMBERS))] if rng.random() < 0.1 else float(usual)

    def whole(usual):
        return EDGES[rng.integers(len(EDGES))] if rng.random() < 0.1 else usual

    k = [number(v) for v in (50, 0, 16, 0, 50, 12, 0, 0, 1)]
    msg = CameraInfo(
        height=whole(24),
        width=whole(32),
        k=k,
        d=[number(rng.normal() / 10) for _ in range(rng.integers(0, 10))],
        p=[number(v) for v in (50, 0, 16, 0, 0, 50, 12, 0, 0, 0, 1, 0)],
        distortion_model=['plumb_bob', 'equidistant', 'rational_polynomial', '', 'x'][
            rng.integers(5)
        ],
        binning_x=whole(0),
        binning_y=whole(0),
    )
    msg.roi.x_offset, msg.roi.y_offset = whole(0), whole(0)
    msg.roi.width, msg.roi.height = whole(0), whole(0)
    return msg


def damaged(rng, data):
    """Return bytes with a few changed, cut or repeated."""
    data = bytearray(data)
    for _ in range(rng.integers(0, 6)):
        data[rng.integers(len(data))] = rng.integers(256)
    if rng.random() < 0.3:
        del data[rng.integers(len(data)) :]
    if rng.random() < 0.1:
        data = data + data
    return bytes(data)


def check_image(msg):
    """Whether it was converted; then the result is what the header says."""
    rgb = outcome(image_to_rgb, msg)
    if rgb is None:
        return False
    assert rgb.shape == (msg.height, msg.width, 3) and rgb.dtype == np.uint8
    assert msg.step * (msg.height - 1) < len(msg.data)
    return True


def check_info(msg, size=(24, 32)):
    """Whether it makes a camera; then every number of it and of what is published is finite."""
    camera = outcome(intrinsics_from_info, msg, size)
    if camera is None:
        return False
    assert np.isfinite([camera.fx, camera.fy, camera.cx, camera.cy, camera.focal]).all()
    assert camera.fx > 0 and camera.fy > 0
    result = info_for_depth(msg, Header(), size, camera)
    assert np.isfinite(result.k).all() and np.isfinite(result.p).all()
    assert result.k[0] > 0 and result.p[0] > 0
    return True


def test_60000_images():
    rng = np.random.default_rng(1)
    converted = sum(check_image(random_image(rng)) for _ in range(60_000))
    assert 6_000 < converted < 54_000


def test_30000_camera_infos():
    rng = np.random.default_rng(2)
    usable, straightened, rectify = 0, 0, Rectifier()
    for i in range(30_000):
        msg = random_info(rng)
        if check_info(msg):
            usable += 1
            if i % 20 == 0:  # maps take longer than all the rest
                camera = intrinsics_from_info(msg, PICTURE.shape[:2])
                straight = outcome(rectify, PICTURE, msg, camera)
                straightened += straight is not None
                assert straight is None or straight[0].shape == PICTURE.shape
    assert 3_000 < usable < 27_000 and straightened > 30


def test_10000_compressed_images():
    rng = np.random.default_rng(3)
    decoded = 0
    for _ in range(10_000):
        data = damaged(rng, FILES[rng.integers(len(FILES))])
        rgb = outcome(compressed_to_rgb, CompressedImage(data=array.array('B', data)))
        decoded += rgb is not None
        assert rgb is None or (rgb.ndim, rgb.shape[2], rgb.dtype) == (3, 3, np.uint8)
    assert 500 < decoded < 9_000


def test_headers_that_announce_more_than_they_bring_allocate_nothing():
    """Every size is checked against the bytes that came, before memory is asked for."""
    jpeg = bytearray(FILES[1])
    frame = jpeg.index(b'\xff\xc0')
    jpeg[frame + 5 : frame + 9] = struct.pack('>HH', 16000, 16000)
    png = bytearray(FILES[0])
    png[16:24] = struct.pack('>II', 2**31 - 1, 2**31 - 1)
    tracemalloc.start()
    try:
        for side in (16384, 2**31, 2**32 - 1):
            for encoding in conversions.ENCODINGS:
                msg = Image(height=side, width=side, step=min(side * 16, 2**32 - 1))
                msg.encoding, msg.data = encoding, array.array('B', bytes(64))
                assert outcome(image_to_rgb, msg) is None
        for data in (jpeg, png):
            msg = CompressedImage(data=array.array('B', bytes(data)))
            assert outcome(compressed_to_rgb, msg) is None
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_500_at_a_running_node(node, client, rgb):
    """Half of all messages are damaged; the node lives, and publishes nothing wrong."""
    rng = np.random.default_rng(4)
    client.ask(rgb)
    sizes, deadline = {}, time.monotonic() + 90

    def refused():
        return int(client.status()[2].get('refused', 0))

    def served():
        return sum(stamp >= 10_000 for stamp in client.received['depth/image'])

    for i in itertools.count():
        enough = i >= 500 and served() > 30 and refused() > 30
        if enough or time.monotonic() > deadline:  # a busy machine takes more than 500
            break
        stamp = 10_000 + i
        msg = random_image(rng)
        if i % 2:
            msg = conversions.rgb_to_image(PICTURE, Header())
        info = random_info(rng) if i % 4 < 2 else CameraInfo(width=32, height=24)
        for part in (msg, info):
            part.header.stamp.sec = stamp
        sizes[stamp] = (msg.height, msg.width)
        client.infos.publish(info)
        client.images.publish(msg)
        client.spin_until(lambda: False, 0.015)
    assert node.poll() is None
    (depth,) = client.ask(rgb)
    assert (depth.height, depth.width) == rgb.shape[:2]
    fuzzed = {
        topic: {s: m for s, m in messages.items() if s >= 10_000}
        for topic, messages in client.received.items()
    }
    assert len(fuzzed['depth/image']) > 30 and fuzzed['depth/points']
    for topic in ('depth/image', 'depth/camera_info', 'depth/points'):
        for stamp, msg in fuzzed[topic].items():
            assert (msg.height, msg.width) == sizes[stamp]
    for msg in fuzzed['depth/camera_info'].values():
        assert np.isfinite(msg.k).all() and np.isfinite(msg.p).all()
    for msg in fuzzed['depth/points'].values():
        z = np.frombuffer(msg.data, '<f4').reshape(-1, 4)[:, 2]
        assert not np.isinf(z).any() and not (z <= 0).any()
    assert refused() > 30
    assert int(client.status()[2]['backend failures']) == 0
    assert 'Traceback' not in node.log.read_text()
