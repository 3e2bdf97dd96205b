"""QoS on the wire: the defaults, `qos_overrides` of every topic, and delivery with the profile."""

import json
import os
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data

from dar_ros.ros import middleware, qos
from dar_ros.ros.middleware import (
    NEW_NAME,
    OLD_NAME,
    TRANSPORTS,
    profile_environment,
    shipped_profile,
)
from dar_ros.ros.outputs import TOPICS

ROOT = Path(__file__).resolve().parents[1]
BEST_EFFORT, RELIABLE = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
INPUTS = ('image', 'camera_info')


@pytest.fixture
def node(ros_environment):
    """Return a node of our own that looks at the others."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('watcher', context=context)
    node.executor_of = rclpy.executors.SingleThreadedExecutor(context=context)
    node.executor_of.add_node(node)
    yield node
    node.executor_of.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def wait(node, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        node.executor_of.spin_once(timeout_sec=0.05)


def reliabilities(node, publishers, subscriptions):
    """Return {topic: reliability on the wire}, once all are there."""
    wait(node, lambda: all(node.count_publishers(t) for t in publishers))
    wait(node, lambda: all(node.count_subscribers(t) for t in subscriptions))
    found = {}
    for topics, look in (
        (publishers, node.get_publishers_info_by_topic),
        (subscriptions, node.get_subscriptions_info_by_topic),
    ):
        for topic in topics:
            (endpoint,) = look(f'/{topic}')
            found[topic] = endpoint.qos_profile.reliability
    return found


def parameters(node, of, names):
    client = node.create_client(GetParameters, f'/{of}/get_parameters')
    wait(node, client.service_is_ready)
    future = client.call_async(GetParameters.Request(names=names))
    wait(node, future.done)
    return [parameter_value_to_python(value) for value in future.result().values]


def override_file(path, topics, kind, **policies):
    """Write a parameter file with the policies of the topics; {topic: depth} adds a depth."""
    lines = ['/**:', '  ros__parameters:', '    qos_overrides:']
    for topic, depth in topics.items():
        values = ', '.join(f'{k}: {v}' for k, v in {**policies, 'depth': depth}.items())
        lines += [f'      /{topic}:', f'        {kind}: {{{values}}}']
    path.write_text('\n'.join(lines))
    return path


def test_the_defaults(start_process, node):
    """Sensor data in, reliable out: what depth nodes of C++ do."""
    start_process('dar_ros.ros.node')
    found = reliabilities(node, TOPICS, INPUTS)
    assert found == {**dict.fromkeys(TOPICS, RELIABLE), **dict.fromkeys(INPUTS, BEST_EFFORT)}


@pytest.mark.parametrize('topic', TOPICS)
def test_a_publisher_is_overridden_alone(start_process, node, tmp_path, topic):
    file = override_file(tmp_path / 'qos.yaml', {topic: 7}, 'publisher', reliability='best_effort')
    start_process('dar_ros.ros.node', '--params-file', str(file), '-p', 'backend:=onnxruntime')
    found = reliabilities(node, TOPICS, ())
    assert found == {**dict.fromkeys(TOPICS, RELIABLE), topic: BEST_EFFORT}
    names = [f'qos_overrides./{name}.publisher.depth' for name in TOPICS]
    assert parameters(node, 'dar', names) == [7 if name == topic else 1 for name in TOPICS]


@pytest.mark.parametrize('topic', [*INPUTS, 'image/compressed'])
def test_a_subscription_is_overridden_alone(start_process, node, tmp_path, topic):
    transport = 'compressed' if topic == 'image/compressed' else 'raw'
    topics = ('image/compressed' if transport == 'compressed' else 'image', 'camera_info')
    file = override_file(tmp_path / 'qos.yaml', {topic: 9}, 'subscription', reliability='reliable')
    start_process(
        'dar_ros.ros.node', '--params-file', str(file), '-p', f'image_transport:={transport}'
    )
    assert reliabilities(node, (), topics) == {
        **dict.fromkeys(topics, BEST_EFFORT),
        topic: RELIABLE,
    }
    names = [f'qos_overrides./{name}.subscription.depth' for name in topics]
    assert parameters(node, 'dar', names) == [9 if name == topic else 5 for name in topics]


def test_the_camera_is_overridden_topic_by_topic(start_process, node, tmp_path):
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((20, 30, 3), np.uint8))
    topics = ('image', 'image/compressed', 'camera_info')
    file = override_file(
        tmp_path / 'qos.yaml', {'image': 3}, 'publisher', reliability='best_effort'
    )
    start_process('dar_ros.ros.camera', '--params-file', str(file), '-p', f'source:={tmp_path}')
    found = reliabilities(node, topics, ())
    assert found == {**dict.fromkeys(topics, RELIABLE), 'image': BEST_EFFORT}


def test_fresh_profiles_equal_rclpys():
    made = qos.sensor_data()
    assert made == qos_profile_sensor_data and made is not qos.sensor_data()


def test_a_profile_that_the_user_set_stays():
    assert profile_environment('x.xml', {}) == {NEW_NAME: 'x.xml'}
    assert profile_environment('x.xml', {'ROS_DISTRO': 'kilted'}) == {NEW_NAME: 'x.xml'}
    for distro in ('humble', 'jazzy'):
        assert profile_environment('x.xml', {'ROS_DISTRO': distro}) == {OLD_NAME: 'x.xml'}
    for name in (OLD_NAME, NEW_NAME):
        assert profile_environment('x.xml', {name: 'mine.xml'}) == {}


def test_transports_and_middleware_that_the_user_chose_stay(monkeypatch, capsys):
    """Fast DDS takes a profile before FASTDDS_BUILTIN_TRANSPORTS, without a word."""
    assert profile_environment('x.xml', {TRANSPORTS: '', 'RMW_IMPLEMENTATION': ''})
    assert profile_environment('x.xml', {'RMW_IMPLEMENTATION': 'rmw_fastrtps_dynamic_cpp'})
    monkeypatch.setattr(middleware, 'lacking_room', lambda profile: 'no room')
    for name, value in ((TRANSPORTS, 'UDPv4'), ('RMW_IMPLEMENTATION', 'rmw_cyclonedds_cpp')):
        with monkeypatch.context() as patch:
            for each in (OLD_NAME, NEW_NAME, TRANSPORTS, 'RMW_IMPLEMENTATION'):
                patch.setenv(each, '')
            patch.setenv(name, value)
            assert profile_environment('x.xml') == {}
            middleware.use_profile()
            assert not os.environ[OLD_NAME] and not os.environ[NEW_NAME]
            assert capsys.readouterr().err == ''


def test_a_profile_does_not_undo_what_keeps_humble_at_home():
    alone = {'ROS_DISTRO': 'humble', 'ROS_LOCALHOST_ONLY': '1'}
    assert profile_environment('x.xml', alone) == {}
    assert profile_environment('x.xml', {**alone, 'ROS_LOCALHOST_ONLY': '0'})
    assert profile_environment('x.xml', {**alone, 'ROS_DISTRO': 'jazzy'})


Room = namedtuple('Room', 'free')


def test_a_segment_that_does_not_fit_is_left_out_and_told(monkeypatch, capsys):
    """Docker's default /dev/shm has 64 MB: Fast DDS would come up without any shared memory."""
    for name in (OLD_NAME, NEW_NAME):
        monkeypatch.setenv(name, '')
    for name in ('ROS_LOCALHOST_ONLY', 'RMW_IMPLEMENTATION', TRANSPORTS):  # no profile with them
        monkeypatch.delenv(name, raising=False)
    size = middleware.segment_size(shipped_profile())
    assert size == 64 * 2**20
    for room, taken in ((size, False), (2 * size, True)):
        monkeypatch.setattr(middleware.shutil, 'disk_usage', lambda _, room=room: Room(room))
        assert bool(profile_environment(shipped_profile(), {})) == taken
        middleware.use_profile()
        assert bool(os.environ.get(middleware.profile_variable())) == taken
        assert ('--shm-size' in capsys.readouterr().err) == (not taken)
    assert middleware.lacking_room(shipped_profile(), processes=2)


def segment_bytes(pid):
    """Return the size of the largest shared-memory segment of Fast DDS that a process has open."""
    lines = Path(f'/proc/{pid}/maps').read_text().splitlines()
    files = {line.split()[-1] for line in lines if '/dev/shm/fast' in line}
    return max((os.stat(file).st_size for file in files if os.path.exists(file)), default=0)


@pytest.mark.parametrize('transports', ['', 'UDPv4'])
def test_a_node_started_by_hand_reads_the_shipped_profile(start_process, monkeypatch, transports):
    """
    Not only those that the launch file starts: who sends decides what gets lost. Unless the user
    wants no shared memory.
    """
    if not Path('/proc/self/maps').exists() or not Path('/dev/shm').is_dir():
        pytest.skip('no /proc and /dev/shm to look into')
    if rclpy.get_rmw_implementation_identifier() != 'rmw_fastrtps_cpp':
        pytest.skip('another middleware')
    if middleware.profile_listens_everywhere():
        pytest.skip('no profile is read in Humble with ROS_LOCALHOST_ONLY=1')
    reason = middleware.lacking_room(shipped_profile(), processes=2)
    if reason:
        pytest.skip(reason)
    for name in (OLD_NAME, NEW_NAME, TRANSPORTS):
        monkeypatch.delenv(name, raising=False)
    if transports:
        monkeypatch.setenv(TRANSPORTS, transports)
    process = start_process('dar_ros.ros.node')
    deadline = time.monotonic() + 60
    while 'dar_tiny on' not in process.log.read_text():  # alone: a peer's segment is mapped too
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (segment_bytes(process.pid) >= 64 * 2**20) == (not transports)


def test_delivery_is_measured(ros_environment):
    """Reliable images arrive either way; the profile is read by who should and by no other."""
    assert shipped_profile() == ROOT / 'config' / 'fastdds.xml'
    done = subprocess.run(
        [
            sys.executable,
            *('-m', 'dar_ros.ros.delivery', '--count', '12', '--rate', '5', '--json'),
            *('--sizes', 'image 640x480', '--profiles', 'none', 'both'),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    rows = {
        (row['profile'], row['reliability']): row
        for row in map(json.loads, done.stdout.split('\n')[:-1])
    }
    assert len(rows) == 4 and all(row['megabytes'] == 0.92 for row in rows.values())
    assert rows['none', 'reliable']['arrived'] == rows['both', 'reliable']['arrived'] == 12
    assert rows['both', 'best_effort']['arrived'] >= 6  # all, on a machine that is not busy
    assert rows['both', 'best_effort']['latency_p50_ms'] > 0


def test_a_missing_profile_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'dar_ros.ros.delivery', '--profile', str(tmp_path / 'no.xml')],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and 'no.xml' in done.stderr
