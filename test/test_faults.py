"""Faults and load: what the node does when its surroundings misbehave, over DDS."""

import array
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from ros_client import FOCAL, SIZE, Client, array_of
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

FAULTY = str(Path(__file__).with_name('faulty_node.py'))
MEASURED = str(Path(__file__).with_name('measured_node.py'))
NODE = 'dar_ros.ros.node'
ROUNDS = 16  # of a lifecycle, from configure to cleanup
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
STALLED = """
import sys, rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
rclpy.init()
node = rclpy.create_node('stalled')
seen = lambda msg: print('seen', flush=True)
node.create_subscription(Image, 'depth/image', seen, QoSProfile(depth=1))
node.create_subscription(PointCloud2, 'depth/points', seen, QoSProfile(depth=1))
rclpy.spin(node)
"""


class Stream:
    """A camera in a thread of its own: messages of one picture at a rate, stamps counting up."""

    def __init__(self, client, rgb, rate, first=10_000):
        self.sent, self._client, self._pause = 0, client, 1 / rate
        height, width = rgb.shape[:2]
        self._image = Image(
            height=height,
            width=width,
            encoding='rgb8',
            step=3 * width,
            data=array.array('B', rgb.tobytes()),
        )
        self._info = CameraInfo(
            height=height,
            width=width,
            k=[FOCAL, 0.0, width / 2, 0.0, FOCAL, height / 2, 0.0, 0.0, 1.0],
        )
        self._stop, self._first = threading.Event(), first
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        due = time.monotonic()
        while not self._stop.is_set():
            for msg in (self._info, self._image):
                msg.header.stamp.sec = self._first + self.sent
            self._client.infos.publish(self._info)
            self._client.images.publish(self._image)
            self.sent += 1
            due += self._pause
            time.sleep(max(0.0, due - time.monotonic()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()


def count(client, topic='depth/image'):
    return len(client.received[topic])


def serves(client, frames=5):
    """Whether that many more depth images come."""
    goal = count(client) + frames
    return client.spin_until(lambda: count(client) >= goal)


def resident(process):
    """Megabytes of memory of a process."""
    text = Path(f'/proc/{process.pid}/statm').read_text()
    return int(text.split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


def handles(process):
    """(open files, threads) of a process."""
    return tuple(len(os.listdir(f'/proc/{process.pid}/{name}')) for name in ('fd', 'task'))


# The backend


def test_every_tenth_frame_fails_and_nothing_else_serves(start_process, client, rgb):
    process = start_process(FAULTY, FAULTY='onnxruntime:10')
    client.wait_for_node()
    with Stream(client, rgb, 20):
        assert client.sees(ERROR, 'fails on purpose')
        assert serves(client, 40)
        client.spin_until(lambda: int(client.status()[2].get('backend failures', 0)) >= 3)
    values = client.status()[2]
    failures, processed = int(values['backend failures']), int(values['processed'])
    assert failures >= 3 and processed > 6 * failures
    assert values['refused'] == '0' and 'fails on purpose' in values['last error']
    assert process.poll() is None
    log = process.log.read_text()
    assert 'was opened again' in log and 'Traceback' not in log
    assert 'still held' not in log  # closed first, and no traceback keeps it


def test_the_next_backend_takes_over(start_process, client, rgb):
    process = start_process(FAULTY, FAULTY='fast:1,onnxruntime:0')
    client.wait_for_node()
    with Stream(client, rgb, 10):
        assert client.sees(ERROR, 'fast: fails on purpose')
        assert serves(client)
        assert client.sees(WARN, 'onnxruntime serves instead of fast')
        assert serves(client)
    values = client.status()[2]
    assert values['backend'] == 'onnxruntime' and values['precision'] == 'fp32'
    assert values['backend failures'] == '2'
    assert process.poll() is None


# Camera and subscribers


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_backend_that_hangs_leaves_the_node_its_answers_and_its_end(
    start_process, client, rgb, number
):
    """A signal ends it before `ros2 launch` would kill it, and not with 0: it was no clean end."""
    process = start_process(FAULTY, FAULTY='onnxruntime:hang')
    client.wait_for_node()
    with Stream(client, rgb, 5):
        assert client.sees(ERROR, 'no depth for')
        if number == signal.SIGINT:
            assert not client.transition(Transition.TRANSITION_DEACTIVATE)
            assert client.set(num_steps=2).successful
            assert 'deactivate again' in process.log.read_text()
    process.send_signal(number)
    assert process.wait(30) == 1
    log = process.log.read_text()
    assert 'the process ends without it' in log and 'Traceback' not in log


def test_a_camera_at_200_hz(node, client, rgb):
    """What cannot be served is dropped and counted, and memory stays."""
    with Stream(client, rgb, 200) as camera:
        assert serves(client, 10)
        before, began = resident(node), camera.sent
        assert client.spin_until(lambda: camera.sent >= began + 1200)
        after = resident(node)
        assert serves(client, 3)
    assert after - before < 30
    assert client.spin_until(lambda: int(client.status()[2]['dropped']) > 0)
    stamps = list(client.received['depth/image'])  # in the order of their arrival
    assert stamps == sorted(stamps)
    assert node.poll() is None


def test_a_stalled_reliable_subscriber_stalls_nobody_else(node, client, rgb):
    """Four seconds of frames for the others, far more than any queue holds."""
    reader = subprocess.Popen([sys.executable, '-c', STALLED], stdout=subprocess.PIPE, text=True)
    try:
        with Stream(client, rgb, 10):
            assert reader.stdout.readline() == 'seen\n'
            reader.send_signal(signal.SIGSTOP)
            assert serves(client, 10)
            memory = resident(node)
            assert serves(client, 40)
            assert resident(node) - memory < 20
    finally:
        reader.kill()
        reader.wait()
    print('publish p50/p95 (ms):', client.status()[2].get('publish p50/p95 (ms)'))
    assert node.poll() is None


def test_two_nodes_on_one_machine(start_process, client, rgb):
    start_process(NODE, '-r', '__ns:=/left')
    start_process(NODE, '-r', '__ns:=/right', '-p', 'depth_scale:=2.0')
    cameras = [Client(namespace=name) for name in ('/left', '/right')]
    try:
        depths = []
        for camera in cameras:
            camera.wait_for_node()
            (depth,) = camera.ask(rgb)
            depths.append(array_of(depth))
        good = np.isfinite(depths[0]) & np.isfinite(depths[1])
        assert good.any() and np.median(depths[1][good] / depths[0][good]) > 1.2
        names = set()
        assert client.spin_until(
            lambda: names.update(d.status[0].name for d in client.diagnostics) or len(names) == 2
        )
        assert names == {'left/dar: depth', 'right/dar: depth'}
    finally:
        for camera in cameras:
            camera.close()


def test_the_latest_camera_info_serves_with_a_warning(node, client, rgb):
    client.ask(rgb)
    client.ask(rgb, ('depth/points',), info=False)
    assert client.told(rgb, WARN, "no camera_info has the image's stamp", info=False)
    assert client.told(rgb, OK, 'running')


def test_distortion_another_shape_and_the_trained_span_are_announced(node, client, rgb):
    client.ask(rgb)
    bent = {'d': [0.1, 0.0, 0.0, 0.0, 0.0], 'distortion_model': 'plumb_bob'}
    assert client.told(rgb, WARN, 'the image is distorted', camera=bent)
    # Zeros of this model are an ideal fisheye, or a straight image whose model nobody changed.
    fisheye = {'d': [0.0] * 4, 'distortion_model': 'equidistant'}
    assert client.told(rgb, WARN, 'equidistant with D of zeros', camera=fisheye)
    other = {'width': 640, 'height': 480}
    assert client.told(rgb, WARN, 'camera_info is of 640x480 pixels', camera=other)
    sibling = {'header': Header(frame_id='right')}
    assert client.told(rgb, WARN, 'is of frame right, the image of eye', camera=sibling)
    assert client.set(depth_max=500.0).successful
    assert client.told(rgb, WARN, 'outside the trained')


def test_an_uncalibrated_camera_gets_depth_and_no_cloud(node, client, rgb):
    client.ask(rgb)
    unknown = {'k': [0.0] * 9}
    topics = ('depth/image', 'depth/camera_info')
    _, info = client.ask(rgb, topics, cloud=False, camera=unknown)
    assert info.k[0] == 0
    assert client.told(rgb, WARN, 'uncalibrated', camera=unknown)  # one frame later
    assert info.header.stamp.sec not in client.received['depth/points']


def test_a_silent_camera_and_a_slow_one_are_announced(start_process, client, rgb):
    start_process(NODE, '-p', 'min_rate:=8.0')
    client.wait_for_node()
    client.ask(rgb)
    assert client.sees(WARN, 'no image for')
    with Stream(client, rgb, 3):
        assert client.sees(WARN, 'less than min_rate')
    assert client.set(min_rate=0.1).successful
    with Stream(client, rgb, 5, first=20_000):
        assert client.sees(OK, 'running')


# Parameters and life


def test_500_parameter_changes_under_load(node, client, rgb):
    """Every answer comes, every frame is whole, and the last value holds."""
    encodings = {'32FC1': 4, '16UC1': 2}
    with Stream(client, rgb, 15):
        assert serves(client, 3)
        for i in range(500):
            result = client.set(
                num_steps=1 + i % 4,
                depth_encoding=list(encodings)[i % 2],
                points_stride=1 + i % 3,
                depth_max=5.0 + i % 7,
            )
            assert result.successful, result.reason
            client.spin_until(lambda: False, 0.02)  # so that frames fall between the changes
            if i % 50 == 0:
                assert not client.set(num_steps=2, depth_max=-1.0).successful
        assert serves(client, 3)
    assert {msg.encoding for msg in client.received['depth/image'].values()} == encodings.keys()
    for msg in client.received['depth/image'].values():
        assert msg.step == SIZE[1] * encodings[msg.encoding]
        assert len(msg.data) == msg.step * SIZE[0]
    for msg in client.received['depth/points'].values():
        assert len(msg.data) == msg.row_step * msg.height == 16 * msg.width * msg.height
    (depth,) = client.ask(rgb)
    assert depth.encoding == '16UC1' and array_of(depth, '<u2').max() <= (5 + 499 % 7) * 1000
    assert client.told(rgb, OK, 'running')
    assert client.spin_until(lambda: client.status()[2]['steps used'] == '4')


def test_kill_9_and_respawn(start_process, client, rgb):
    with Stream(client, rgb, 10):
        for _ in range(2):
            process = start_process(NODE)
            assert serves(client)
            process.kill()
            process.wait()
        start_process(NODE)
        assert serves(client)


@pytest.mark.parametrize('leak', [0, 2**19])
def test_cycles_of_the_lifecycle_leak_nothing(start_process, client, rgb, leak):
    """A model has 30 MB; half a megabyte kept of each round is seen, a tenth is not."""
    process = start_process(MEASURED, '-p', 'autostart:=false', LEAK=str(leak))
    steps = (
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
    )
    seen = []
    with Stream(client, rgb, 20):
        for _ in range(ROUNDS):
            for step in steps:
                assert client.transition(step)
                if step == Transition.TRANSITION_ACTIVATE:
                    assert serves(client, 2)
            seen.append(handles(process))
    told = re.findall(r'in use: (\d+)', process.log.read_text())
    assert len(told) == ROUNDS
    memory = np.array(told, float) / 2**20
    each = (memory[-1] - memory[ROUNDS // 2 - 1]) / (ROUNDS - ROUNDS // 2)
    assert (each < 0.25) == (leak == 0), memory
    files, threads = zip(*seen)
    assert files[-1] <= files[3] and threads[-1] <= threads[3], (files, threads)


def test_a_transition_that_cannot_be_made_fails_with_one_line(start_process, client):
    """And the node can be brought on by whoever sets it right: nothing half made is left."""
    process = start_process(  # camera_info: image is subscribed before it
        NODE, '-p', 'autostart:=false', '-p', 'qos_overrides./camera_info.subscription.depth:=many'
    )
    assert client.transition(Transition.TRANSITION_CONFIGURE)
    for _ in range(2):
        assert not client.transition(Transition.TRANSITION_ACTIVATE)
    log = process.log.read_text()
    assert log.count('[ERROR]') == 2 and 'Traceback' not in log
    client.spin_until(lambda: False, 1.0)  # until a subscription that was left would be known
    assert client.spin_until(lambda: client.node.count_subscribers('image') == 0, 5)
    assert client.transition(Transition.TRANSITION_CLEANUP)


def test_publishers_that_cannot_be_made_leave_none_behind(start_process, client):
    process = start_process(
        NODE, '-p', 'autostart:=false', '-p', 'qos_overrides./depth/color.publisher.depth:=many'
    )
    for _ in range(2):
        assert not client.transition(Transition.TRANSITION_CONFIGURE)
    log = process.log.read_text()
    assert log.count('[ERROR]') == 2 and 'Traceback' not in log
    assert client.spin_until(lambda: client.node.count_publishers('depth/image') == 0, 5)


def test_simulated_time_that_stands_still_stops_nothing(start_process, client, rgb):
    start_process(NODE, '-p', 'use_sim_time:=true')
    client.wait_for_node()
    client.ask(rgb)  # a node that serves nothing says `running` too, for two seconds
    assert client.told(rgb, OK, 'running')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('transitions', [(), (1,), (1, 3), (1, 3, 4), (1, 3, 4, 2)])
def test_a_signal_in_every_state_ends_with_code_0(start_process, client, transitions, number):
    process = start_process(NODE, '-p', 'autostart:=false')
    for transition in transitions:
        assert client.transition(transition)
    if not transitions:
        assert client.spin_until(lambda: client.node.count_services('dar/change_state'))
    process.send_signal(number)
    assert process.wait(30) == 0
    assert 'Traceback' not in process.log.read_text()


def test_configure_fails_with_one_line_whatever_is_wrong(start_process, client, copied_bundle):
    """Even with what nobody thought of: a bundle whose fields are of another kind."""
    manifest = copied_bundle / 'model.json'
    manifest.write_text(
        manifest.read_text().replace('"sigma_factors": [', '"sigma_factors": 3, "x": [')
    )
    manifest.write_text(
        manifest.read_text().replace('"depth_grid_sizes": [', '"depth_grid_sizes": 3, "y": [')
    )
    process = start_process(NODE, '-p', 'autostart:=false', '-p', f'model:={copied_bundle}')
    for _ in range(2):
        assert not client.transition(Transition.TRANSITION_CONFIGURE)
    log = process.log.read_text()
    assert log.count('[ERROR]') == 2 and 'Traceback' not in log
    assert client.node.count_publishers('depth/image') == 0 and process.poll() is None
