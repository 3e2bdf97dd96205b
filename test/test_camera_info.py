"""Camera intrinsics, rectification, and the messages of depth and cloud."""

import array

import cv2
import numpy as np
import pytest

pytest.importorskip(
    'sensor_msgs', reason='sensor_msgs is not installed (extra: ros, or a sourced ROS 2)'
)

from sensor_msgs.msg import CameraInfo, Image, PointField
from std_msgs.msg import Header

from dar_ros.errors import FrameError
from dar_ros.geometry import Intrinsics, unproject
from dar_ros.ros import conversions
from dar_ros.ros.rectification import Rectifier

HEADER = Header(frame_id='eye')
PICTURE = np.zeros((8, 12, 3), np.uint8)


def info(width=640, height=480, fx=500.0, **fields):
    return CameraInfo(
        width=width,
        height=height,
        k=[fx, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, 320.0, 0.0, 0.0, 510.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        **fields,
    )


def test_intrinsics_of_the_calibrated_size():
    assert conversions.intrinsics_from_info(info(), (480, 640)) == Intrinsics(500, 510, 320, 240)


def test_intrinsics_scale_to_a_resized_image():
    found = conversions.intrinsics_from_info(info(), (240, 320))
    assert found == Intrinsics(250, 255, 320.5 / 2 - 0.5, 240.5 / 2 - 0.5)


def test_region_of_interest_and_binning():
    msg = info(binning_x=2, binning_y=2)
    msg.roi.x_offset, msg.roi.y_offset, msg.roi.width, msg.roi.height = 100, 60, 400, 300
    found = conversions.intrinsics_from_info(msg, (150, 200))
    assert found == Intrinsics(250, 255, (320 - 100 + 0.5) / 2 - 0.5, (240 - 60 + 0.5) / 2 - 0.5)


def test_uncalibrated_and_impossible_cameras():
    assert conversions.intrinsics_from_info(info(fx=0.0), (480, 640)) is None
    for fx in (float('nan'), -500.0, float('inf')):
        with pytest.raises(FrameError):
            conversions.intrinsics_from_info(info(fx=fx), (480, 640))


@pytest.mark.parametrize('fx', [1e-5, 1e9])
def test_no_lens_is_so(fx):
    with pytest.raises(FrameError, match='no usable K'):
        conversions.intrinsics_from_info(info(fx=fx), (480, 640))


def test_a_rectified_image_is_of_the_projection_matrix():
    source = info()
    source.p[0], source.p[5], source.p[2] = 450.0, 460.0, 330.0
    assert conversions.intrinsics_from_info(source, (480, 640)) == Intrinsics(500, 510, 320, 240)
    found = conversions.intrinsics_from_info(source, (480, 640), 'image_rectified')
    assert found == Intrinsics(450, 460, 330, 240)
    source.p[0] = 0.0  # left out
    found = conversions.intrinsics_from_info(source, (480, 640), 'image_rectified')
    assert found == Intrinsics(500, 510, 320, 240)
    names = (
        '/cam/image_rect',
        '/cam/image_rect_color/compressed',
        '/cam/image_raw',
        '/rect/image',
    )
    found = [conversions.rectified_by(name) for name in names]
    assert found == [conversions.BY_NAME, conversions.BY_NAME, None, None]
    for name in names:  # a word for it counts more than a name
        assert conversions.rectified_by(name, 'true') == 'image_rectified'
        assert conversions.rectified_by(name, 'false') is None


def test_image_proc_passes_an_image_without_distortion_on_as_it_is():
    """Its image_rect is then of K, even if P has another focal length."""
    msg = info(d=[0.0] * 5)
    msg.p[0], msg.p[5] = 450.0, 460.0
    by_name = conversions.rectified_by('/cam/image_rect')
    of_k, of_p = Intrinsics(500, 510, 320, 240), Intrinsics(450, 460, 320, 240)
    for d, source, camera in (
        ([0.0] * 5, by_name, of_k),
        ([], by_name, of_k),
        ([0.1, 0.0, 0.0, 0.0, 0.0], by_name, of_p),
        ([0.0] * 5, conversions.rectified_by('/cam/image', 'true'), of_p),
        ([0.1, 0.0, 0.0, 0.0, 0.0], None, of_k),
    ):
        msg.d = d
        assert conversions.intrinsics_from_info(msg, (480, 640), source) == camera
        if source is by_name:
            played = conversions.rectified_info(msg)
            assert conversions.intrinsics_from_info(played, (480, 640)) == camera


def test_a_damaged_projection_is_replaced():
    source = info()
    source.p[0] = float('nan')
    camera = conversions.intrinsics_from_info(source, (480, 640))
    result = conversions.info_for_depth(source, HEADER, (480, 640), camera)
    assert np.isfinite(result.p).all() and result.p[0] == result.k[0]


def test_an_image_of_another_shape_than_the_camera_is_announced():
    assert conversions.shape_warning(info(), (240, 320)) == []
    assert conversions.shape_warning(info(binning_x=2), (480, 320)) == []
    assert conversions.shape_warning(info(width=0, height=0), (77, 320)) == []
    (text,) = conversions.shape_warning(info(), (360, 640))
    assert '640x480' in text and '640x360' in text


def test_depth_info_matches_the_depth_image():
    source = info(width=1280, height=960, distortion_model='plumb_bob', d=[0.1, 0, 0, 0, 0.0])
    intrinsics = conversions.intrinsics_from_info(source, (480, 640))
    result = conversions.info_for_depth(source, HEADER, (480, 640), intrinsics)
    assert (result.height, result.width, result.header) == (480, 640, HEADER)
    assert result.k[0] == result.p[0] == 250 and list(result.d) == [0.1, 0, 0, 0, 0]
    assert result.distortion_model == 'plumb_bob'
    rectified = conversions.info_for_depth(source, HEADER, (480, 640), intrinsics, rectified=True)
    assert not any(rectified.d)


def test_depth_in_metres():
    depth = np.array([[1.5, np.nan, np.inf], [-np.inf, 0.25, 70]], np.float32)
    msg = conversions.metres_to_image(depth, HEADER)
    assert (msg.encoding, msg.height, msg.width, msg.step) == ('32FC1', 2, 3, 12)
    assert np.array_equal(np.frombuffer(msg.data, '<f4').reshape(2, 3), depth, equal_nan=True)


def test_depth_in_millimetres_never_wraps():
    depth = np.array([[1.5, np.nan, np.inf], [-np.inf, 0.0004, 70]], np.float32)
    msg = conversions.metres_to_image16(depth, HEADER)
    assert msg.encoding == '16UC1'
    assert np.frombuffer(msg.data, '<u2').tolist() == [1500, 0, 0, 0, 0, 0]
    edges = np.array([[65.535, 65.5354, 65.536, -0.005, 0.0006]])
    assert conversions.millimetres(edges).tolist() == [[65535, 65535, 0, 0, 1]]


@pytest.mark.parametrize(
    'size, stride', [((6, 11), 1), ((6, 11), 3), ((480, 640), 1), ((480, 640), 2)]
)
def test_cloud_is_organized_and_16_bytes_a_point(size, stride):
    """The larger ones are made in several blocks of rows."""
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 4, size).astype(np.float32)
    depth[0, 0], depth[3, 3] = np.inf, np.nan
    rgb = rng.integers(0, 256, (*size, 3), np.uint8)
    invalid = rng.random(size) < 0.1
    invalid[0, 3] = True
    camera = Intrinsics(10, 11, 5, 3)
    msg = conversions.cloud(depth, camera, HEADER, rgb, invalid, stride)
    expected = unproject(depth, camera, stride)
    height, width = expected.shape[:2]
    assert (msg.height, msg.width, msg.point_step, msg.row_step) == (height, width, 16, 16 * width)
    assert [(f.name, f.offset) for f in msg.fields] == [('x', 0), ('y', 4), ('z', 8), ('rgb', 12)]
    assert {(f.datatype, f.count) for f in msg.fields} == {(PointField.FLOAT32, 1)}
    assert not msg.is_dense and not msg.is_bigendian  # some are NaN
    data = np.frombuffer(msg.data, '<f4').reshape(height, width, 4)
    bad = ~np.isfinite(depth[::stride, ::stride]) | invalid[::stride, ::stride]
    assert np.isnan(data[bad][:, :3]).all() and bad.any()
    assert np.array_equal(data[~bad][:, :3], expected[~bad])
    packed = np.frombuffer(msg.data, '<u4').reshape(height, width, 4)[..., 3]
    small = rgb[::stride, ::stride].astype(np.uint32)
    assert np.array_equal(packed, small[..., 0] * 65536 + small[..., 1] * 256 + small[..., 2])


def test_cloud_without_colour_has_12_bytes_a_point():
    msg = conversions.cloud(np.ones((2, 3), np.float32), Intrinsics(1, 1, 1, 1), HEADER)
    assert msg.point_step == 12 and len(msg.data) == 2 * 3 * 12


@pytest.mark.parametrize(
    'model, distortion',
    [
        ('plumb_bob', [-0.3, 0.1, 0.001, 0.0, 0.0]),
        ('rational_polynomial', [-0.3, 0.1, 0, 0, 0, 0.01, 0, 0]),
        ('equidistant', [-0.05, 0.01, 0, 0]),
    ],
)
def test_rectification_straightens(model, distortion):
    """A straight line of the world, drawn as the distorted camera sees it, comes back straight."""
    camera = Intrinsics(300, 300, 160, 120)
    ray = np.stack([np.linspace(-0.45, 0.45, 400), np.full(400, 0.3), np.ones(400)], -1)
    project = cv2.fisheye.projectPoints if model == 'equidistant' else cv2.projectPoints
    zero = np.zeros(3)
    if model == 'equidistant':
        pixels, _ = project(ray[:, None], zero, zero, camera.matrix(), np.array(distortion, float))
    else:
        pixels, _ = project(ray, zero, zero, camera.matrix(), np.array(distortion, float))
    image = np.zeros((240, 320, 3), np.uint8)
    cv2.polylines(image, [np.round(pixels).astype(np.int32)], False, (255, 255, 255), 2)
    msg = CameraInfo(distortion_model=model, d=[float(v) for v in distortion])
    found = Rectifier()(image, msg, camera)[0][..., 0] > 100
    rows, columns = np.nonzero(found)
    assert np.ptp(columns) > 150
    assert np.abs(rows - (120 + 0.3 * 300)).max() < 3.5


def test_unknown_distortion_is_refused():
    msg = CameraInfo(distortion_model='magic', d=[0.1])
    with pytest.raises(FrameError, match='magic'):
        Rectifier()(PICTURE, msg, Intrinsics(1, 1, 1, 1))


def test_data_is_given_without_a_copy():
    """Constructors and, in Kilted, setters copy megabytes."""
    message, data = Image(), array.array('B', bytes(12))
    conversions._give_data(message, data)
    assert message.data is data


def test_freed_memory_is_kept_where_the_c_library_can():
    import platform

    from dar_ros.ros.memory import keep_freed_memory

    assert keep_freed_memory() == (platform.libc_ver()[0] == 'glibc')


def test_distortion_that_is_not_finite_is_refused():
    msg = CameraInfo(distortion_model='plumb_bob', d=[0.1, float('nan'), 0.0, 0.0, 0.0])
    with pytest.raises(FrameError, match='finite'):
        Rectifier()(PICTURE, msg, Intrinsics(10, 10, 5, 5))


def test_maps_are_made_once_per_camera(monkeypatch):
    """Until size, camera or distortion change."""
    calls = []
    make = cv2.initUndistortRectifyMap
    monkeypatch.setattr(
        cv2, 'initUndistortRectifyMap', lambda *a: calls.append(a) or make(*a), raising=True
    )
    rectify, camera = Rectifier(), Intrinsics(10, 10, 5, 5)

    def run(image, k1, camera):
        rectify(image, CameraInfo(distortion_model='plumb_bob', d=[k1, 0, 0, 0, 0.0]), camera)
        return len(calls)

    assert [run(PICTURE, 0.1, camera) for _ in range(3)] == [1, 1, 1]
    assert run(PICTURE, 0.2, camera) == 2 and run(PICTURE[:4].copy(), 0.2, camera) == 3
    assert run(PICTURE[:4].copy(), 0.2, Intrinsics(12, 10, 5, 5)) == 4
    assert run(PICTURE, 0.0, camera) == 4  # no distortion, nothing to do


@pytest.mark.parametrize(
    'model, d, unseen',
    [
        ('plumb_bob', [-0.25, 0.0, 0.0, 0.0, 0.0], 1.155),  # 1 - 3 * 0.25 r^2 = 0
        ('rational_polynomial', [-0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1.155),
        ('equidistant', [-0.2, 0.0, 0.0, 0.0], 3.5),  # 1 - 3 * 0.2 t^2 = 0, tan(t) = 3.5
    ],
)
def test_where_the_distortion_turns_back_nothing_was_seen(model, d, unseen):
    """Its polynomial maps the corners of a wide lens to places farther in: a mirror image."""
    image = np.full((480, 640, 3), 200, np.uint8)
    camera = Intrinsics(80.0, 80.0, 319.5, 239.5)
    straight, outside = Rectifier()(image, CameraInfo(distortion_model=model, d=d), camera)
    radius = np.hypot(*(np.indices((480, 640)) - np.array([239.5, 319.5])[:, None, None])) / 80
    assert outside[radius > 1.01 * unseen].all() and not outside[radius < 0.99 * unseen].any()
    assert (straight[outside] == 0).all() and (straight[radius < 0.99 * unseen] > 0).all()


def test_depth_info_of_a_region_has_every_number_of_k_and_p():
    """As depth_image_proc reads them: no two are alike, and only the rows are binned."""
    source = info(binning_y=2, distortion_model='plumb_bob', d=[0.1, 0.0, 0.0, 0.0, 0.0])
    source.p[0], source.p[5], source.p[2], source.p[6] = 450.0, 460.0, 330.0, 250.0
    roi = source.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height = 100, 60, 400, 300
    camera = conversions.intrinsics_from_info(source, (150, 400))
    result = conversions.info_for_depth(source, HEADER, (150, 400), camera)
    assert list(result.k) == [500, 0, 220, 0, 255, 89.75, 0, 0, 1]
    assert list(result.p) == [450, 0, 230, 0, 0, 230, 94.75, 0, 0, 0, 1, 0]
    assert (result.roi.width, result.binning_y) == (0, 0)
    straight = conversions.info_for_depth(source, HEADER, (150, 400), camera, rectified=True)
    assert list(straight.k) == list(result.k) and list(straight.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert list(straight.p) == [500, 0, 220, 0, 0, 255, 89.75, 0, 0, 0, 1, 0]
