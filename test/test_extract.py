"""What `dar extract` makes of a bag."""

import numpy as np
import pytest

from dar_ros.cli import main
from dar_ros.datasets import open_dataset
from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics

RNG = np.random.default_rng(5)


@pytest.fixture
def bag(tmp_path):
    """Write a bag with a camera_info for each image."""
    return write_bag(tmp_path / 'drive')


def write_bag(path, infos=range(6), shape=(24, 32), frame='camera', apart=5):
    """
    Six images at 10 Hz, depth `apart` ms later and none for the third; the second image is
    truncated. `infos`: the images with a camera_info.
    """
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    types = store.types

    def header(ns, frame='camera'):
        time = types['builtin_interfaces/msg/Time'](ns // 10**9, ns % 10**9)
        return types['std_msgs/msg/Header'](time, frame)

    def image(ns, encoding, data, size, step):
        kind = types['sensor_msgs/msg/Image']
        return kind(header(ns), *size, encoding, 0, step, np.frombuffer(data, np.uint8))

    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {}
        for topic, kind in (('/rgb', 'Image'), ('/depth', 'Image'), ('/info', 'CameraInfo')):
            name = f'sensor_msgs/msg/{kind}'
            topics[topic] = writer.add_connection(topic, name, typestore=store), name

        def write(topic, ns, message):
            connection, name = topics[topic]
            writer.write(connection, ns, store.serialize_cdr(message, name))

        roi = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        k = np.array([50.0, 0, 15.5, 0, 50, 11.5, 0, 0, 1])
        info = types['sensor_msgs/msg/CameraInfo']
        for i in range(6):
            ns = 10**9 + i * 10**8
            if i in infos:
                message = info(
                    header(ns, frame), *shape, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(),
                    np.zeros(12), 0, 0, roi,
                )  # fmt: skip
                write('/info', ns, message)
            rgb = np.full((24, 32, 3), 40 * i, np.uint8).tobytes()
            write('/rgb', ns, image(ns, 'rgb8', rgb if i != 1 else rgb[:99], (24, 32), 96))
            if i != 2:
                millimetres = np.full((24, 32), 1000 + i, np.uint16)
                later = ns + apart * 10**6
                message = image(later, '16UC1', millimetres.tobytes(), (24, 32), 64)
                write('/depth', later, message)
    return path


def test_a_bag_becomes_a_data_set(bag, tmp_path):
    from dar_ros.ros.extract import extract

    topics = ('/rgb', '/depth', '/info')
    out = tmp_path / 'mine'
    said = []
    assert extract(bag, topics, out, warn=said.append) == 4
    assert len(said) == 2 and said[0].startswith('1 frames did not decode, the last: truncated')
    assert said[1] == '1 of 5 images have no depth within 0.02 s (--slop)'
    frames = open_dataset('folder', out)
    values = [(int(f.image[0, 0, 0]), round(float(f.depth[0, 0]), 3)) for f in frames]
    assert values == [(0, 1.0), (120, 1.003), (160, 1.004), (200, 1.005)]
    assert frames[0].intrinsics == Intrinsics(50, 50, 15.5, 11.5)
    assert extract(bag, topics, tmp_path / 'half', every=2) == 2
    with pytest.raises(UsageError, match='no image with depth'):
        extract(bag, topics, tmp_path / 'none', slop=0.001)
    with pytest.raises(UsageError, match='has no topic /nope'):
        extract(bag, ('/nope', '/depth', '/info'), tmp_path / 'none')
    with pytest.raises(UsageError, match='image and depth are both /rgb'):
        extract(bag, ('/rgb', '/rgb', '/info'), tmp_path / 'none')
    with pytest.raises(UsageError, match='no such bag'):
        extract(tmp_path / 'absent', topics, tmp_path / 'none')
    with pytest.raises(UsageError, match='/rgb is of type Image, not CameraInfo'):
        extract(bag, ('/rgb', '/depth', '/rgb'), tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='cannot be read'):
        extract(tmp_path / 'empty', topics, tmp_path / 'none')


def test_pairs_before_the_first_camera_info_take_it(tmp_path):
    from dar_ros.ros.extract import extract

    topics = ('/rgb', '/depth', '/info')
    said = []
    assert (
        extract(write_bag(tmp_path / 'late', [4]), topics, tmp_path / 'a', warn=said.append) == 4
    )
    assert len(said) == 2  # as with a camera_info for each
    with pytest.raises(UsageError, match='no message on /info: no camera is known'):
        extract(write_bag(tmp_path / 'never', []), topics, tmp_path / 'b')


@pytest.mark.parametrize(
    'changes, word',
    [
        ({'shape': (480, 480)}, 'camera_info is of 480x480 pixels, the image has 32x24'),
        ({'frame': 'right'}, 'camera_info is of frame right, the image of camera'),
    ],
)
def test_a_camera_info_of_another_camera_is_told_once(tmp_path, changes, word):
    from dar_ros.ros.extract import extract

    said, bag = [], write_bag(tmp_path / 'drive', **changes)
    assert extract(bag, ('/rgb', '/depth', '/info'), tmp_path / 'mine', warn=said.append) == 4
    assert sum(word in line for line in said) == 1


@pytest.mark.parametrize('apart, nearest', [(30, '0.03'), (7200, '6.7')])
def test_stamps_that_never_meet_are_told(tmp_path, apart, nearest):
    """A depth camera on another clock, say."""
    from dar_ros.ros.extract import extract

    bag = write_bag(tmp_path / 'drive', apart=apart)
    text = (
        f'5 of 5 images have no depth within 0.02 s .--slop.: the nearest stamps are {nearest} s'
    )
    with pytest.raises(UsageError, match='among 5 images and 5 depth images; .*' + text):
        extract(bag, ('/rgb', '/depth', '/info'), tmp_path / 'mine')


@pytest.mark.parametrize('slop', ['nan', 'inf', '-1', 'soon'])
def test_a_slop_that_is_no_time_is_refused(capsys, slop):
    topics = ['--image', '/rgb', '--depth', '/depth', '--camera-info', '/info']
    with pytest.raises(SystemExit) as caught:
        main(['extract', 'drive.bag', *topics, f'--slop={slop}', '--out', 'mine'])
    assert caught.value.code == 2 and '--slop' in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_one_line(bag, tmp_path, capsys):
    (tmp_path / 'mine').touch()
    topics = ['--image', '/rgb', '--depth', '/depth', '--camera-info', '/info']
    assert main(['extract', str(bag), *topics, '--out', str(tmp_path / 'mine')]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'mine is no folder to write to' in said


def test_the_command_extracts(bag, tmp_path, capsys):
    topics = ['--image', '/rgb', '--depth', '/depth', '--camera-info', '/info']
    out = str(tmp_path / 'mine')
    assert main(['extract', str(bag), *topics, '--every', '2', '--out', out]) == 0
    said = capsys.readouterr()
    assert said.out == f'2 frames in {out}\n' and 'did not decode' in said.err
    assert [int(frame.image[0, 0, 0]) for frame in open_dataset('folder', out)] == [0, 160]
    assert main(['extract', str(bag), *topics, '--slop', '0.001', '--out', out + '2']) == 2
    assert 'no image with depth' in capsys.readouterr().err


def test_a_missing_image_moves_no_other_pair():
    """At 60 Hz the next image is nearer than the slop: each would take its neighbour's depth."""
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    from dar_ros.ros.extract import _Pairs

    missing = {0: (1, 5), 1: (5, 8, 9)}  # images, depths
    messages = [(2, 'CameraInfo', 'the camera')]
    for i in range(12):
        for kind in (0, 1):
            if i not in missing[kind]:
                messages.append((kind, 'Image', numbered(i, kind)))
    found = [(int(rgb[0, 0, 0]), round(1000 * depth[0, 0])) for _, rgb, depth, _ in
             _Pairs(messages, 20_000_000)]  # fmt: skip
    assert found == [(i + 1, i + 1) for i in range(12) if i not in (1, 5, 8, 9)]
    again = [(kind, name, m) for kind, name, m in messages if kind != 1 or m.header.stamp.sec == 9]
    assert list(_Pairs(again, 20_000_000)) == []


def test_a_clock_that_is_set_back_begins_anew():
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    from dar_ros.ros.extract import _Pairs

    messages = [(2, 'CameraInfo', 'the camera')]
    for i in [*range(200, 204), *range(4)]:
        messages += [(kind, 'Image', numbered(i, kind)) for kind in (0, 1)]
    found = [round(1000 * depth[0, 0]) for _, _, depth, _ in _Pairs(messages, 20_000_000)]
    assert found == [*range(201, 205), *range(1, 5)]


def numbered(i, kind):
    """Return image or depth number `i` of a 60 Hz camera, its number, from 1, in every pixel."""
    from sensor_msgs.msg import Image

    pixels = np.full((2, 2), i + 1, np.uint16) if kind else np.full((2, 2, 3), i + 1, np.uint8)
    msg = Image(height=2, width=2, encoding='16UC1' if kind else 'rgb8', step=4 if kind else 6)
    msg.data = pixels.tobytes()
    stamp = 10**9 + i * 10**9 // 60
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp, 10**9)
    return msg


def test_depth_of_another_camera_is_noticed():
    """Depth that is not registered to the image would be learnt beside what it belongs to."""
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    from dar_ros.ros.extract import _Pairs

    for name, count in (('color', 0), ('depth', 1)):
        messages = [(0, 'Image', numbered(0, 0)), (1, 'Image', numbered(0, 1))]
        messages[0][2].header.frame_id, messages[1][2].header.frame_id = 'color', name
        pairs = _Pairs(messages, 20_000_000)
        list(pairs)
        assert len(pairs.faults()) == count
        assert all('not registered to' in fault for fault in pairs.faults())


def test_a_camera_that_is_no_pinhole_or_not_known_is_noticed(tmp_path):
    """What is learnt of a distorted image as if a pinhole had taken it is wrong at the edges."""
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    from sensor_msgs.msg import CameraInfo

    from dar_ros.ros.extract import _Pairs, _write_pairs

    camera = CameraInfo(height=2, width=2, k=[2.0, 0.0, 0.5, 0.0, 2.0, 0.5, 0.0, 0.0, 1.0])
    bent = CameraInfo(height=2, width=2, k=camera.k, d=[0.1, 0.0, 0.0, 0.0, 0.0])
    images = [(kind, 'Image', numbered(0, kind)) for kind in (0, 1)]
    for number, (info, rectified, fault) in enumerate(
        ((camera, False, None), (bent, True, None), (bent, False, 'image is distorted'))
    ):
        pairs = _Pairs([(2, 'CameraInfo', info), *images], 20_000_000, rectified)
        assert _write_pairs(pairs, tmp_path / str(number), 1) == 1
        found = pairs.faults()
        assert not found if fault is None else len(found) == 1 and fault in found[0]
    pairs = _Pairs([(2, 'CameraInfo', CameraInfo(height=2, width=2)), *images], 20_000_000)
    with pytest.raises(UsageError, match='1 pairs without a camera, the last: .*K is zero'):
        _write_pairs(pairs, tmp_path / 'none', 1)


def test_a_bag_of_ros_1(tmp_path):
    """Its CameraInfo has K, D, R and P."""
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    from dar_ros.ros.extract import extract

    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    time = types['builtin_interfaces/msg/Time'](1, 0)
    header = types['std_msgs/msg/Header'](0, time, 'camera')
    image = types['sensor_msgs/msg/Image']
    k, roi = np.array([50.0, 0, 15.5, 0, 50, 11.5, 0, 0, 1]), (0, 0, 0, 0, False)
    messages = {
        '/info': types['sensor_msgs/msg/CameraInfo'](
            header, 24, 32, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0,
            types['sensor_msgs/msg/RegionOfInterest'](*roi),
        ),
        '/rgb': image(header, 24, 32, 'rgb8', 0, 96, np.zeros(24 * 96, np.uint8)),
        '/depth': image(header, 24, 32, '16UC1', 0, 64, np.full(24 * 32, 1500, '<u2').view('u1')),
    }  # fmt: skip
    with Writer(tmp_path / 'drive.bag') as writer:
        for topic, message in messages.items():
            connection = writer.add_connection(topic, message.__msgtype__, typestore=store)
            data = store.serialize_ros1(message, message.__msgtype__)
            writer.write(connection, 10**9, data)
    assert extract(tmp_path / 'drive.bag', ('/rgb', '/depth', '/info'), tmp_path / 'mine') == 1
    (frame,) = open_dataset('folder', tmp_path / 'mine')
    assert frame.intrinsics == Intrinsics(50, 50, 15.5, 11.5)
    assert np.allclose(frame.depth, 1.5)
