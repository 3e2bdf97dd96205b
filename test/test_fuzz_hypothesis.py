"""What hypothesis finds among Images and CameraInfos: refused in one line, or used as they say."""

import array

import pytest

pytest.importorskip(
    'sensor_msgs', reason='sensor_msgs is not installed (extra: ros, or a sourced ROS 2)'
)
pytest.importorskip('hypothesis', reason='hypothesis is not installed (extra: test)')
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image
from test_fuzz import ENCODINGS, check_image, check_info


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(ENCODINGS) | st.text(max_size=8),
    *(st.integers(0, 40) | st.integers(0, 2**32 - 1) for _ in range(3)),
    st.integers(0, 255),
    st.binary(max_size=2000),
)
def test_images_of_hypothesis(encoding, height, width, step, bigendian, data):
    encoding = encoding.encode('utf8', 'ignore').decode()
    msg = Image(height=height, width=width, step=step, is_bigendian=bigendian)
    msg.encoding, msg.data = encoding, array.array('B', data)
    check_image(msg)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.floats(), min_size=9, max_size=9),
    st.lists(st.floats(), min_size=12, max_size=12),
    st.lists(st.floats(), max_size=14),
    *(st.integers(0, 2**32 - 1) for _ in range(8)),
    st.tuples(st.integers(1, 500), st.integers(1, 500)),
)
def test_camera_infos_of_hypothesis(k, p, d, width, height, bx, by, left, top, w, h, size):
    msg = CameraInfo(width=width, height=height, k=k, p=p, d=d, binning_x=bx, binning_y=by)
    msg.roi.x_offset, msg.roi.y_offset, msg.roi.width, msg.roi.height = left, top, w, h
    check_info(msg, size)
