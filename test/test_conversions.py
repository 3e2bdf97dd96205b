"""Messages to arrays and back, every encoding, and what malformed messages get."""

import array
import struct

import cv2
import numpy as np
import pytest

pytest.importorskip(
    'sensor_msgs', reason='sensor_msgs is not installed (extra: ros, or a sourced ROS 2)'
)

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dar_ros.errors import FrameError
from dar_ros.ros import conversions
from dar_ros.ros.compressed import compressed_to_metres, compressed_to_rgb

HEADER = Header(frame_id='eye')
COLORS = (
    np.array([[[250, 10, 20], [10, 240, 30]], [[20, 30, 230], [128, 128, 128]]], np.uint8)
    .repeat(4, 0)
    .repeat(6, 1)
)  # (8, 12, 3): large patches, so that subsampled colour survives


def message(pixels, encoding, padding=0, bigendian=False, height=None):
    """Image message of a (rows, bytes or samples) array, with padding at the end of every row."""
    pixels = np.ascontiguousarray(pixels)
    if bigendian:
        pixels = pixels.astype(pixels.dtype.newbyteorder('>'))
    rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    msg = Image(
        header=HEADER,
        height=height or pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=int(bigendian),
    )
    msg.data = array.array('B', rows.tobytes())
    return msg


def gray_of(rgb):
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize('padding', [0, 7])
@pytest.mark.parametrize(
    'encoding, channels',
    [
        ('rgb8', [0, 1, 2]),
        ('bgr8', [2, 1, 0]),
        ('8UC3', [2, 1, 0]),
        ('rgba8', [0, 1, 2, 0]),
        ('bgra8', [2, 1, 0, 0]),
        ('8UC4', [2, 1, 0, 0]),
    ],
)
def test_colour_encodings(encoding, channels, padding):
    assert np.array_equal(
        conversions.image_to_rgb(message(COLORS[..., channels], encoding, padding)), COLORS
    )


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey(encoding):
    found = conversions.image_to_rgb(message(gray_of(COLORS), encoding, 5))
    assert np.array_equal(found, np.repeat(gray_of(COLORS)[..., None], 3, 2))


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize('encoding', ['mono16', '16UC1', 'rgb16', 'bgr16'])
def test_16_bit(encoding, bigendian):
    source = {'rgb16': COLORS, 'bgr16': COLORS[..., ::-1]}.get(encoding, gray_of(COLORS))
    found = conversions.image_to_rgb(
        message(source.astype(np.uint16) * 257, encoding, 4, bigendian)
    )
    expected = (
        COLORS
        if '16UC' not in encoding and 'mono' not in encoding
        else np.repeat(gray_of(COLORS)[..., None], 3, 2)
    )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer(pattern, bits):
    """A flat colour seen through the mosaic comes back as that colour."""
    color = {'r': 200, 'g': 100, 'b': 40}
    mosaic = np.tile(
        np.array([[color[c] for c in pattern[:2]], [color[c] for c in pattern[2:]]]), (8, 10)
    )
    mosaic = mosaic.astype(np.uint8) if bits == 8 else (mosaic * 257).astype(np.uint16)
    found = conversions.image_to_rgb(message(mosaic, f'bayer_{pattern}{bits}'))
    assert (found[2:-2, 2:-2] == [200, 100, 40]).all()


@pytest.mark.parametrize('encoding, order', [('yuv422', 'uyvy'), ('yuv422_yuy2', 'yuyv')])
def test_packed_yuv(encoding, order):
    yuv = cv2.cvtColor(COLORS, cv2.COLOR_RGB2YUV).astype(float)
    # OpenCV's packed formats are of limited range, its YUV of full range.
    y = 16 + yuv[..., 0] * 219 / 255
    u, v = (128 + (yuv[..., i] - 128) * k for i, k in ((1, 0.504 / 0.492), (2, 0.439 / 0.877)))
    packed = np.zeros((*COLORS.shape[:2], 2), np.uint8)
    luma = order.index('y')
    packed[..., luma] = y.round()
    packed[:, 0::2, 1 - luma], packed[:, 1::2, 1 - luma] = u[:, 0::2].round(), v[:, 1::2].round()
    found = conversions.image_to_rgb(message(packed, encoding)).astype(int)
    assert found[0, 0].argmax() == 0 and found[0, -1].argmax() == 1 and found[-1, 0].argmax() == 2
    assert np.abs(found[-1, -1] - 128).max() < 6


@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_planar_yuv(encoding):
    i420 = cv2.cvtColor(COLORS, cv2.COLOR_RGB2YUV_I420)
    height, width = COLORS.shape[:2]
    u, v = i420[height:].reshape(2, height // 2, width // 2)
    pair = (u, v) if encoding == 'nv12' else (v, u)
    data = np.vstack([i420[:height], np.stack(pair, -1).reshape(height // 2, width)])
    found = conversions.image_to_rgb(message(data, encoding, 3, height=height)).astype(int)
    assert found.shape == COLORS.shape
    assert np.abs(found - COLORS).max() < 12


def yuv_to_rgb(y, u, v):
    """BT.601 of limited range, as cameras send it: (H, W) each -> (H, W, 3), by its equations."""
    y, u, v = 1.164 * (y.astype(float) - 16), u.astype(float) - 128, v.astype(float) - 128
    rgb = np.stack([y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u], -1)
    return np.clip(rgb, 0, 255)


def doubled(plane, *axes):
    for axis in axes:
        plane = plane.repeat(2, axis)
    return plane


def sample(encoding, height, width):
    """Return random pixels in an encoding, and the RGB that they mean, by numpy alone."""
    rng = np.random.default_rng((height, width))
    wide = encoding.endswith('16') or encoding == '16UC1'
    dtype, high = (np.uint16, 65536) if wide else (np.uint8, 256)
    if encoding in ('nv12', 'nv21'):
        y = rng.integers(16, 236, (height, width), np.uint8)
        pairs = rng.integers(64, 192, (height // 2, width // 2, 2), np.uint8)
        u, v = (doubled(pairs[..., i], 0, 1) for i in ((0, 1) if encoding == 'nv12' else (1, 0)))
        return np.vstack([y, pairs.reshape(height // 2, width)]), yuv_to_rgb(y, u, v)
    if encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'):
        luma = 1 if encoding in ('yuv422', 'uyvy') else 0
        pixels = rng.integers(64, 192, (height, width, 2), np.uint8)
        y, chroma = pixels[..., luma], pixels[..., 1 - luma]
        return pixels, yuv_to_rgb(y, doubled(chroma[:, ::2], 1), doubled(chroma[:, 1::2], 1))
    if 'rgb' in encoding or 'bgr' in encoding or encoding in ('8UC3', '8UC4'):
        channels = 4 if 'a8' in encoding or encoding == '8UC4' else 3
        pixels = rng.integers(0, high, (height, width, channels), dtype)
        rgb = pixels[..., :3] if encoding.startswith('rgb') else pixels[..., 2::-1]
    else:
        pixels = rng.integers(0, high, (height, width), dtype)
        rgb = np.repeat(pixels[..., None], 3, 2)
    return pixels, (rgb >> 8 if wide else rgb)


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize('size', [(18, 32), (32, 18), (15, 21), (1, 1), (2, 2)])
@pytest.mark.parametrize('encoding', [e for e in conversions.ENCODINGS if 'bayer' not in e])
def test_every_encoding_against_numpy(encoding, size, bigendian):
    """16:9, portrait, odd and smallest sizes, rows padded, both orders of bytes."""
    subsampled = encoding in conversions._SUBSAMPLED
    if subsampled and (size[1] % 2 or size[0] % 2):
        with pytest.raises(FrameError, match='even'):
            conversions.image_to_rgb(Image(height=15, width=21, encoding=encoding, step=63))
        return
    pixels, expected = sample(encoding, *size)
    found = conversions.image_to_rgb(message(pixels, encoding, 6, bigendian, size[0]))
    assert found.shape == (*size, 3) and found.dtype == np.uint8
    assert np.abs(found - expected).max() <= (3 if subsampled else 0)


@pytest.mark.parametrize('size', [(18, 32), (32, 18), (15, 21)])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_of_any_size_and_order(pattern, size):
    color = {'r': 51000, 'g': 20000, 'b': 9000}
    rows = [[color[c] for c in pattern[:2]], [color[c] for c in pattern[2:]]]
    mosaic = np.tile(np.array(rows, np.uint16), (16, 16))[: size[0], : size[1]]
    found = conversions.image_to_rgb(message(mosaic, f'bayer_{pattern}16', 4, bigendian=True))
    assert found.shape == (*size, 3)
    assert (found[2:-2, 2:-2] == [51000 >> 8, 20000 >> 8, 9000 >> 8]).all()


def compressed(data):
    return CompressedImage(format='jpeg', data=array.array('B', data))


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_a_compressed_image_cut_short_is_refused(suffix):
    """A decoder would paint the missing rows grey, which the network would take for a wall."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, picture)[1].tobytes()
    assert compressed_to_rgb(compressed(data)).shape == (64, 64, 3)
    for length in (len(data) // 2, len(data) - 16):
        with pytest.raises(FrameError, match='truncated'):
            compressed_to_rgb(compressed(data[:length]))


def test_a_jpeg_ends_behind_its_scan():
    """Cameras and drivers pad it; the end of a thumbnail in its header is not its own."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode('.jpg', picture)[1].tobytes()
    small = b'Exif\0\0' + cv2.imencode('.jpg', picture[:8, :8])[1].tobytes()
    thumbnail = b'\xff\xe1' + (len(small) + 2).to_bytes(2, 'big') + small
    for head in (data[:2], data[:2] + thumbnail):
        whole = head + data[2:]
        for tail in (b'', b'\0\0', b'\r\n', b'\n', b'\xff' * 7):
            assert compressed_to_rgb(compressed(whole + tail)).shape == (64, 64, 3)
            for length in (len(whole) // 2, len(whole) - 2):
                with pytest.raises(FrameError, match='truncated'):
                    compressed_to_rgb(compressed(whole[:length] + tail))


def test_an_orientation_tag_turns_nothing():
    """The camera's own pixels are what its camera_info describes."""
    data = cv2.imencode('.jpg', np.zeros((8, 16, 3), np.uint8))[1].tobytes()
    tiff = b'MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    body = b'Exif\0\0' + tiff
    tagged = data[:2] + b'\xff\xe1' + (len(body) + 2).to_bytes(2, 'big') + body + data[2:]
    assert cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR).shape == (16, 8, 3)
    assert compressed_to_rgb(compressed(tagged)).shape == (8, 16, 3)


@pytest.mark.parametrize('bits', [8, 16])
def test_a_compressed_mosaic_gets_its_colours_back(bits):
    """compressed_image_transport passes a Bayer image on to PNG as it is, and says so."""
    raw = np.random.default_rng(3).integers(0, 256, (16, 24), np.uint8)
    raw = raw.astype(np.uint16) * 257 if bits == 16 else raw
    encoding = f'bayer_grbg{bits}'
    wanted = conversions.image_to_rgb(message(raw, encoding))
    data = array.array('B', cv2.imencode('.png', raw)[1].tobytes())
    for name, colour in (
        (f'{encoding}; png compressed ', True),
        ('mono8; png compressed ', False),
    ):
        found = compressed_to_rgb(CompressedImage(format=name, data=data))
        assert np.array_equal(found, wanted) == colour
    # What the plugin made colour or grey of before it compressed it is no mosaic.
    wide = COLORS.repeat(16, 0).repeat(16, 1)
    colour = array.array('B', cv2.imencode('.jpg', wide[..., ::-1])[1].tobytes())
    name = f'{encoding}; jpeg compressed bgr8'
    found = compressed_to_rgb(CompressedImage(format=name, data=colour))
    assert np.abs(found[8::16, 8::16].astype(int) - COLORS).max() <= 4
    grey = array.array('B', cv2.imencode('.jpg', gray_of(wide))[1].tobytes())
    name = f'{encoding}; jpeg compressed mono8'
    found = compressed_to_rgb(CompressedImage(format=name, data=grey))
    assert (found[..., 0] == found[..., 1]).all() and (found[..., 0] == found[..., 2]).all()


def broken(**changes):
    msg = message(COLORS, 'rgb8')
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


@pytest.mark.parametrize(
    'changes, word',
    [
        ({'encoding': 'xyz9'}, 'encoding'),
        ({'encoding': ''}, 'encoding'),
        ({'width': 0}, 'size'),
        ({'height': 0}, 'size'),
        ({'step': 11}, 'step'),
        ({'data': array.array('B', b'12')}, 'truncated'),
        ({'height': 4_000_000_000}, 'size'),
        ({'height': 16000, 'width': 16000, 'step': 48000}, 'truncated'),
        ({'width': 11, 'encoding': 'yuv422'}, 'even'),
        ({'encoding': 'mono16', 'step': 37}, 'step'),
        ({'data': array.array('B')}, 'truncated'),
    ],
)
def test_malformed_images_get_one_line(changes, word):
    with pytest.raises(FrameError, match=word) as caught:
        conversions.image_to_rgb(broken(**changes))
    assert '\n' not in str(caught.value)


def test_random_headers_never_do_anything_else():
    """10,000 random messages are decoded or refused; nothing else happens."""
    rng = np.random.default_rng(0)
    encodings = [*conversions.ENCODINGS, 'junk']
    decoded = 0
    for _ in range(10_000):
        msg = Image(
            height=int(rng.integers(0, 9)),
            width=int(rng.integers(0, 9)),
            step=int(rng.integers(0, 60)),
            encoding=encodings[rng.integers(len(encodings))],
            is_bigendian=int(rng.integers(2)),
        )
        msg.data = array.array('B', rng.bytes(int(rng.integers(0, 300))))
        try:
            rgb = conversions.image_to_rgb(msg)
        except FrameError:
            continue
        assert rgb.shape == (msg.height, msg.width, 3) and rgb.dtype == np.uint8
        decoded += 1
    assert decoded > 100


def test_compressed():
    wide = COLORS.repeat(16, 0).repeat(16, 1)  # JPEG mixes the colours of neighbours
    for suffix, tolerance in (('.png', 0), ('.jpg', 4)):
        data = cv2.imencode(suffix, wide[..., ::-1])[1].tobytes()
        found = compressed_to_rgb(CompressedImage(format=suffix[1:], data=array.array('B', data)))
        assert found.shape == wide.shape
        assert np.abs(found[8::16, 8::16].astype(int) - COLORS).max() <= tolerance
    for damaged in (b'', b'junk', data[:40]):
        with pytest.raises(FrameError, match='truncated JPEG|neither PNG nor JPEG'):
            compressed_to_rgb(CompressedImage(format='jpeg', data=array.array('B', damaged)))


def compressed_depth(name, values, header=b''):
    """Return what compressed_depth_image_transport, or plain PNG, makes of 16-bit values."""
    png = cv2.imencode('.png', values)[1].tobytes()
    return CompressedImage(format=name, data=array.array('B', header + png))


def test_compressed_depth():
    metres = np.array([[0.4, 1.5, 9.0], [np.nan, 2.25, 0.75]], np.float32)
    millimetres = np.nan_to_num(metres * 1000).round().astype(np.uint16)
    header = struct.pack('<iff', 0, 0, 0)
    for name, before in (
        ('16UC1; compressedDepth png', header),
        ('16UC1; compressedDepth', header),
        ('16UC1; png compressed ', b''),
    ):
        found = compressed_to_metres(compressed_depth(name, millimetres, before))
        assert found.dtype == np.float32 and np.allclose(found, metres, equal_nan=True)
    # Inverse depth, in the plugin's quantisation of 100 and its range of 10 m.
    a = 100.0 * 101.0
    b = 1 - a / 10.0
    inverse = np.nan_to_num(a / metres + b).round().astype(np.uint16)
    message = compressed_depth('32FC1; compressedDepth png', inverse, struct.pack('<iff', 0, a, b))
    assert np.allclose(compressed_to_metres(message), metres, rtol=1e-2, equal_nan=True)


def test_compressed_depth_that_is_not_read_is_refused():
    values = np.ones((4, 4), np.uint16)
    for message, word in (
        (compressed_depth('16UC1; compressedDepth rvl', values), 'only its png'),
        (compressed_depth('mono16; png compressed ', values), 'neither of 16UC1'),
        (compressed_depth('16UC1; png compressed ', values.astype(np.uint8)), '16 bits'),
        (CompressedImage(format='16UC1; compressedDepth', data=b'12'), 'neither PNG nor JPEG'),
    ):
        with pytest.raises(FrameError, match=word):
            compressed_to_metres(message)
