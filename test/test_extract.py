"""What `dar extract` makes of a bag."""

import numpy as np
import pytest

from dar_ros.errors import UsageError
from dar_ros.evaluation.datasets import open_dataset
from dar_ros.geometry import Intrinsics

RNG = np.random.default_rng(5)


@pytest.fixture
def bag(tmp_path):
    """
    Six images at 10 Hz, depth 5 ms later and none for the third; the second image is truncated.
    """
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    types = store.types
    path = tmp_path / 'drive'

    def header(ns):
        time = types['builtin_interfaces/msg/Time'](ns // 10**9, ns % 10**9)
        return types['std_msgs/msg/Header'](time, 'camera')

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
            write(
                '/info',
                ns,
                info(
                    header(ns), 24, 32, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(),
                    np.zeros(12), 0, 0, roi,
                ),
            )  # fmt: skip
            rgb = np.full((24, 32, 3), 40 * i, np.uint8).tobytes()
            write('/rgb', ns, image(ns, 'rgb8', rgb if i != 1 else rgb[:99], (24, 32), 96))
            if i != 2:
                millimetres = np.full((24, 32), 1000 + i, np.uint16)
                later = ns + 5 * 10**6
                message = image(later, '16UC1', millimetres.tobytes(), (24, 32), 64)
                write('/depth', later, message)
    return path


def test_a_bag_becomes_a_data_set(bag, tmp_path):
    from dar_ros.ros.extract import extract

    topics = ('/rgb', '/depth', '/info')
    out = tmp_path / 'mine'
    assert extract(bag, topics, out) == 4
    frames = open_dataset('folder', out)
    values = [(int(f.image[0, 0, 0]), round(float(f.depth[0, 0]), 3)) for f in frames]
    assert values == [(0, 1.0), (120, 1.003), (160, 1.004), (200, 1.005)]
    assert frames[0].intrinsics == Intrinsics(50, 50, 15.5, 11.5)
    assert extract(bag, topics, tmp_path / 'half', every=2) == 2
    with pytest.raises(UsageError, match='no image with depth'):
        extract(bag, topics, tmp_path / 'none', slop=0.001)
    with pytest.raises(UsageError, match='has no topic /nope'):
        extract(bag, ('/nope', '/depth', '/info'), tmp_path / 'none')
    with pytest.raises(UsageError, match='no such bag'):
        extract(tmp_path / 'absent', topics, tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='cannot be read'):
        extract(tmp_path / 'empty', topics, tmp_path / 'none')
