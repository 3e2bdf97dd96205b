"""dar_camera on bags that are written here, mcap and sqlite3: topics, pairing, stamps, faults."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')

import rclpy
from rclpy.qos import QoSProfile
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.ros import sources
from dar_ros.ros.compressed import compressed_to_rgb
from dar_ros.ros.conversions import image_to_rgb, intrinsics_from_info

SIZE = (24, 32)
STORE = get_typestore(Stores.LATEST)
TYPES = STORE.types


def header(ms):
    time = TYPES['builtin_interfaces/msg/Time'](ms // 1000, ms % 1000 * 10**6)
    return TYPES['std_msgs/msg/Header'](time, 'lens')


def image(ms, shade):
    data = np.full((*SIZE, 3), shade, np.uint8)
    data[..., 2] = 0  # a conversion that swaps red and blue shows
    return TYPES['sensor_msgs/msg/Image'](header(ms), *SIZE, 'rgb8', 0, 96, data.ravel())


def jpeg(ms, shade):
    _, data = cv2.imencode('.jpg', np.full((*SIZE, 3), shade, np.uint8))
    return TYPES['sensor_msgs/msg/CompressedImage'](header(ms), 'jpeg', data.ravel())


def camera_info(ms, focal):
    k = np.array([focal, 0, 15.5, 0, focal, 11.5, 0, 0, 1])
    roi = TYPES['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    distortion = np.array([0.1, 0, 0, 0, 0])
    return TYPES['sensor_msgs/msg/CameraInfo'](
        header(ms), *SIZE, 'plumb_bob', distortion, k, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
    )


def write_bag(path, messages, plugin=StoragePlugin.MCAP):
    """Write (topic, milliseconds, message) in this order; returns the path."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, ms, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], ms * 10**6, STORE.serialize_cdr(message, kind))
    return path


def drive(count=4, period=100):
    """Messages of a camera: camera_info comes before its image in odd frames, else after."""
    for i in range(count):
        ms = 5000 + i * period
        picture = ('/cam/image_raw', ms, image(ms, (40 * i + 20) % 200))
        calibration = ('/cam/camera_info', ms, camera_info(ms, 100.0 + i))
        yield from (calibration, picture) if i % 2 else (picture, calibration)


def shots(path, loop=False, topic='', info_topic=''):
    return sources.open_source(str(path), 0, 0, 0.0, 0, 15.0, loop, topic, info_topic)


def receive(process, kinds, counts=1, patience=60):
    """Return {topic: messages} once each topic of {topic: type} has `counts`, or the bag ended."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('viewer', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    received = {topic: [] for topic in kinds}
    whole = QoSProfile(depth=100)  # reliable: none is missing between the first and the last
    for topic, kind in kinds.items():
        node.create_subscription(kind, topic, received[topic].append, whole)
    end = node.get_clock().now().nanoseconds + patience * 1e9
    while (
        min(map(len, received.values())) < counts
        and node.get_clock().now().nanoseconds < end
        and process.poll() is None
    ):
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert min(map(len, received.values())) >= counts, process.log.read_text()
    return received


@pytest.mark.parametrize('plugin', list(StoragePlugin))
def test_a_bag_is_a_camera(start_process, tmp_path, plugin):
    """Its images and calibration as recorded, under stamps of now that pair."""
    bag = write_bag(tmp_path / 'bag', drive(), plugin)
    process = start_process('dar_ros.ros.camera', '-p', f'source:={bag}', '-p', 'fov:=90')
    got = receive(process, {'image': Image, 'camera_info': CameraInfo}, 9)
    shades = [int(image_to_rgb(msg)[0, 0, 0]) for msg in got['image'][1:9]]
    start = [20, 60, 100, 140].index(shades[0])
    assert shades == [[20, 60, 100, 140][(start + i) % 4] for i in range(8)]
    focals = {(m.header.stamp.sec, m.header.stamp.nanosec): m.k[0] for m in got['camera_info']}
    for msg in got['image'][1:8]:
        assert msg.header.frame_id == 'lens' and msg.header.stamp.sec > 10**9
        own = focals[msg.header.stamp.sec, msg.header.stamp.nanosec]
        assert own == 100 + (int(msg.data[0]) - 20) // 40
    assert got['camera_info'][0].d[0] == pytest.approx(0.1)
    assert 'fov without effect: the bag has the camera_info' in process.log.read_text()


def test_stamps_are_kept_on_request(start_process, tmp_path):
    bag = write_bag(tmp_path / 'bag', drive())
    process = start_process(
        'dar_ros.ros.camera',
        '-p',
        f'source:={bag}',
        '-p',
        'keep_stamps:=true',
        '-p',
        'frame_id:=eye',
        '-p',
        'rate:=20',
    )
    got = receive(process, {'image': Image, 'camera_info': CameraInfo}, 4)
    for msg in got['image'] + got['camera_info']:
        assert msg.header.frame_id == 'eye' and msg.header.stamp.sec == 5
        shade = msg.data[0] if isinstance(msg, Image) else (msg.k[0] - 100) * 40 + 20
        assert msg.header.stamp.nanosec == (shade - 20) // 40 * 10**8


def test_a_compressed_bag_serves_both_transports(start_process, tmp_path):
    """The JPEG goes out as recorded, and decoded to who wants it raw; focal and fov calibrate."""
    message = jpeg(1000, 90)
    bag = write_bag(
        tmp_path / 'bag', [('/cam/compressed', t, message) for t in range(1000, 4000, 100)]
    )
    process = start_process('dar_ros.ros.camera', '-p', f'source:={bag}', '-p', 'fov:=90')
    kinds = {'image': Image, 'image/compressed': CompressedImage, 'camera_info': CameraInfo}
    got = receive(process, kinds)
    assert bytes(got['image/compressed'][0].data) == bytes(message.data)
    assert abs(int(image_to_rgb(got['image'][0]).mean()) - 90) <= 2
    assert got['camera_info'][0].k[0] == pytest.approx(16)
    assert (got['camera_info'][0].width, got['camera_info'][0].height) == SIZE[::-1]


def test_a_raw_bag_serves_the_compressed_transport(start_process, tmp_path):
    bag = write_bag(tmp_path / 'bag', drive(), StoragePlugin.SQLITE3)
    process = start_process('dar_ros.ros.camera', '-p', f'source:={bag}')
    (msg, *_) = receive(process, {'image/compressed': CompressedImage})['image/compressed']
    red, _, blue = compressed_to_rgb(msg).mean(axis=(0, 1))
    assert red > 15 and blue < 15


def test_a_bag_ends_and_leaves_out_what_does_not_decode(start_process, tmp_path):
    broken = jpeg(1000, 90)
    broken.data = broken.data[:9]
    messages = [('/c/compressed', 1000, broken), ('/c/compressed', 3000, jpeg(3000, 90))]
    bag = write_bag(tmp_path / 'bag', messages)
    process = start_process('dar_ros.ros.camera', '-p', f'source:={bag}', '-p', 'loop:=false')
    assert process.wait(60) == 0
    assert 'left out: truncated JPEG image' in process.log.read_text()


def test_pace_and_loop(tmp_path):
    """Recorded gaps are kept; after the end comes the first again, one gap later."""
    messages = [('/a', ms, image(ms, 20)) for ms in (1000, 1100, 1400)]
    played = shots(write_bag(tmp_path / 'bag', messages), loop=True)
    pauses = [next(played).pause for _ in range(6)]
    assert pauses[0] is None and pauses[1:] == pytest.approx([0.1, 0.3, 0.3, 0.1, 0.3])
    assert len(list(shots(tmp_path / 'bag'))) == 3
    # A bag of one image has no pace: it is shown at the camera's, not as fast as can be.
    played = shots(write_bag(tmp_path / 'one', messages[:1]), loop=True)
    assert [next(played).pause for _ in range(3)] == [None] * 3


def test_camera_info_is_of_the_image(tmp_path):
    """Of the same stamp; without one the last before; before any, the bag's first."""
    messages = [
        ('/cam/image_raw', 1000, image(1000, 20)),
        ('/cam/image_raw', 1100, image(1100, 20)),
        ('/cam/camera_info', 1100, camera_info(1100, 1.0)),
        ('/cam/image_raw', 1200, image(1200, 20)),
        ('/cam/camera_info', 1300, camera_info(1300, 3.0)),
        ('/cam/image_raw', 1301, image(1300, 20)),
    ]
    bag = write_bag(tmp_path / 'bag', messages)
    assert [shot.info.k[0] for shot in shots(bag)] == [1, 1, 1, 3]
    seen = []
    for shot in shots(bag):  # what is done to the messages does not matter to those that follow
        seen.append(shot.info.k[0])
        shot.info.header.stamp = shot.message.header.stamp = type(shot.info.header.stamp)()
    assert seen == [1, 1, 1, 3]


def test_rectified_images_are_played_with_the_camera_they_are_of(tmp_path):
    """image_rect has P, not K and D; under the name `image` only camera_info can say so."""
    info = camera_info(1000, 100.0)
    info.p[:] = [80, 0, 15, 0, 0, 81, 11, 0, 0, 0, 1, 0]
    of_p, of_k = Intrinsics(80, 81, 15, 11), Intrinsics(*(info.k[i] for i in (0, 4, 2, 5)))
    for topic, camera, distortion in (('image_rect', of_p, 0), ('image_raw', of_k, 0.1)):
        messages = [(f'/cam/{topic}', 1000, image(1000, 20)), ('/cam/camera_info', 1000, info)]
        (shot,) = shots(write_bag(tmp_path / topic, messages))
        assert intrinsics_from_info(shot.info, SIZE) == camera
        assert shot.info.d[0] == distortion and list(shot.info.p) == list(info.p)
    info.d[:] = 0  # image_proc passed the raw image on
    messages = [('/cam/image_rect', 1000, image(1000, 20)), ('/cam/camera_info', 1000, info)]
    (shot,) = shots(write_bag(tmp_path / 'straight', messages))
    assert intrinsics_from_info(shot.info, SIZE) == of_k


def test_topics_are_found_or_asked_for(tmp_path):
    rgb, depth = ('/rgb/image', 1, image(1, 20)), ('/depth/image', 1, image(1, 40))
    packed = ('/rgb/image/compressed', 1, jpeg(1, 60))
    infos = [('/rgb/camera_info', 1, camera_info(1, 5)), ('/x/info', 1, camera_info(1, 7))]
    (shot,) = shots(write_bag(tmp_path / 'one', [packed, rgb, *infos]))
    assert isinstance(shot.message, Image) and shot.info.k[0] == 5
    bag = write_bag(tmp_path / 'two', [rgb, depth, packed, *infos])
    with pytest.raises(UsageError, match=r"bag_topic to one of \['/depth/image', '/rgb/image'\]"):
        next(shots(bag))
    (shot,) = shots(bag, topic='/depth/image', info_topic='/x/info')
    assert shot.message.data[0] == 40 and shot.info.k[0] == 7
    (shot,) = shots(bag, topic='/depth/image')
    assert shot.info is None  # two to choose from, none of them beside it
    (shot,) = shots(bag, topic='/rgb/image/compressed')
    assert isinstance(shot.message, CompressedImage) and shot.info.k[0] == 5
    with pytest.raises(UsageError, match='has no topic /nope; images: '):
        next(shots(bag, topic='/nope'))
    with pytest.raises(UsageError, match='has no topic /nope; camera_info: '):
        next(shots(bag, topic='/depth/image', info_topic='/nope'))
    with pytest.raises(UsageError, match='has no topic of an image; images: none'):
        next(shots(write_bag(tmp_path / 'none', infos)))


def test_frames_are_read_one_at_a_time(tmp_path, monkeypatch):
    bag = write_bag(tmp_path / 'bag', drive(50))
    decode, decoded = sources.deserialize_message, []
    monkeypatch.setattr(
        sources, 'deserialize_message', lambda *args: decoded.append(args) or decode(*args)
    )
    played = shots(bag)
    next(played)
    assert len(decoded) <= 3
    assert len(list(played)) == 49


@pytest.mark.parametrize('plugin', list(StoragePlugin))
@pytest.mark.parametrize('damage', ['garbage', 'half', 'bytes', 'no metadata', 'bad metadata'])
def test_a_damaged_bag_is_one_line(tmp_path, plugin, damage):
    """Whatever is damaged: frames, or UsageError in one line that names the bag."""
    bag = write_bag(tmp_path / 'bag', drive(), plugin)
    (storage,) = (file for file in bag.iterdir() if file.suffix in sources.BAG_SUFFIXES)
    good = storage.read_bytes()
    random = np.random.default_rng(0)
    for trial in range(30 if damage == 'bytes' else 1):
        data = np.frombuffer(good, np.uint8).copy()
        data[random.integers(0, len(data), 1 + 20 * trial)] = random.integers(0, 256)
        if damage == 'bytes':
            storage.write_bytes(data.tobytes())
        elif damage in ('garbage', 'half'):
            storage.write_bytes(b'nothing' * 99 if damage == 'garbage' else good[: len(good) // 2])
        elif damage == 'no metadata':
            (bag / 'metadata.yaml').unlink()
        else:
            (bag / 'metadata.yaml').write_text('rosbag2_bagfile_information: 3')
        try:
            list(shots(bag))
            assert damage == 'bytes'
        except UsageError as error:
            assert str(bag) in str(error) and '\n' not in str(error)


@pytest.mark.parametrize(
    'name, text', [('x.mcap', 'cannot be read'), ('x.bag', 'rosbags-convert')]
)
def test_a_file_that_is_no_bag_is_one_line(start_process, tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(b'nothing')
    process = start_process('dar_ros.ros.camera', '-p', f'source:={path}')
    assert process.wait(60) == 1
    lines = [line for line in process.log.read_text().splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith('dar_camera: ') and text in lines[0]


def test_a_missing_rosbags_is_named_with_its_cure(tmp_path):
    bag = write_bag(tmp_path / 'bag', drive(1))
    code = (
        'import sys; sys.modules["rosbags"] = None\n'
        'from dar_ros.ros.sources import open_source\n'
        f'next(open_source({str(bag)!r}, 0, 0, 0.0, 0, 15.0, True))'
    )
    done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True)
    assert '-m pip install rosbags' in done.stderr.splitlines()[-1]
