"""
The node end to end over DDS: camera, node and listener are processes of their own.

The camera is dar_camera at 30 Hz, the listener takes depth/image and depth/points.
"""

import json
import time

import cv2
import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.listener import HEARD
from dar_ros.benchmark.processes import started
from dar_ros.benchmark.stages import VIEWS
from dar_ros.benchmark.timing import cpu_seconds, resident_mb
from dar_ros.ros.middleware import isolate

RATE = 30.0  # Hz
STARTS = 3
PATIENCE = 60.0  # seconds for the first depth image
SETTLE = 2.0  # seconds before anything counts
# An image counts as there this long after the middleware received it: rclpy has to take it and to
# make a message of it.
TAKING = 0.010


def run(bench):
    """`newest_frame_share` over all runs, `start_seconds` (process start to first depth image)."""
    isolate()
    part, rows, fresh = Part(), [], []
    for view, size in VIEWS.items():
        source = _images(bench, view, size)
        row, newest = _stream(bench, source, bench.folder / f'{view}.json')
        rows.append((view, *row))
        fresh += newest
    starts = [_start(bench, source_of(bench, '640x480')) for _ in range(STARTS)]
    part.values['newest_frame_share'] = round(float(np.mean(fresh)), 4)
    part.values['start_seconds'] = round(float(np.median(starts)), 2)
    columns = (
        'image',
        'rate Hz',
        'latency p50 ms',
        'p95 ms',
        'CPU cores',
        'host memory MB',
        'frames offered',
        'dropped',
        'newest at start',
        'age at start ms',
    )
    title = f'Node over DDS, camera at {RATE:g} Hz, depth/image and depth/points heard'
    part.tables.append((title, columns, rows))
    part.notes.append(
        f'Latency is from the stamp to the arrival of depth/image. From the start of the process '
        f'to the first depth image: {", ".join(f"{seconds:.2f}" for seconds in starts)} s.'
    )
    return part


def source_of(bench, view):
    """Folder of a view's images."""
    return bench.folder / f'images_{view}'


def _images(bench, view, size):
    """Write a few pictures that cost a camera little to read; returns their folder."""
    folder = source_of(bench, view)
    folder.mkdir(exist_ok=True)
    picture = cv2.resize(bench.bundle.reference()['image'][0], size[::-1])
    for i in range(4):
        shifted = np.roll(picture, 7 * i, axis=1)
        cv2.imwrite(str(folder / f'{i}.bmp'), cv2.cvtColor(shifted, cv2.COLOR_RGB2BGR))
    return folder


def _camera(source):
    parameters = {'source': source, 'rate': RATE, 'fov': 70.0}
    return ['--ros-args', '--log-level', 'warn', *_parameters(parameters)]


def _parameters(values):
    return [word for name, value in values.items() for word in ('-p', f'{name}:={value}')]


def _node_arguments(bench):
    return ['--ros-args', '--log-level', 'error', *_parameters({'model': bench.bundle.path})]


class Ears:
    """Hears what camera and node publish, in this process."""

    def __init__(self):
        import rclpy
        from rclpy.qos import QoSProfile, qos_profile_sensor_data
        from sensor_msgs.msg import CameraInfo

        from dar_ros.benchmark.probe import stamp_of
        from dar_ros.ros.outputs import TOPICS

        self._rclpy = rclpy
        rclpy.init()
        self.node = rclpy.create_node('dar_benchmark')
        self.offered, self.arrived = [], []  # stamps; (stamp, time of arrival)
        # Sent just before every image, and small: the list of what the node was offered.
        self.node.create_subscription(
            CameraInfo,
            'camera_info',
            lambda message: self.offered.append(stamp_of(message)),
            QoSProfile(depth=100),
        )
        for topic in HEARD:
            self.node.create_subscription(
                TOPICS[topic],
                topic,
                (lambda message: self.arrived.append((stamp_of(message), time.time())))
                if topic == 'depth/image'
                else (lambda message: None),
                qos_profile_sensor_data,
            )

    def spin(self, seconds):
        """Listen for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._rclpy.spin_once(self.node, timeout_sec=0.05)

    def await_depth(self):
        """Listen until a depth image comes; returns when (time.monotonic)."""
        end = time.monotonic() + PATIENCE
        while not self.arrived:
            if time.monotonic() > end:
                raise TimeoutError(f'no depth image in {PATIENCE:g} s: is DDS traffic blocked?')
            self._rclpy.spin_once(self.node, timeout_sec=0.05)
        return time.monotonic()

    def close(self):
        """Leave the graph."""
        self.node.destroy_node()
        self._rclpy.try_shutdown()


def _stream(bench, source, notes):
    """Run camera and node; the row of the table, and whether each frame was the newest."""
    ears = Ears()
    try:
        with (
            started('dar_ros.ros.camera', *_camera(source)),
            started('dar_ros.benchmark.probe', notes, *_node_arguments(bench)) as node,
        ):
            ears.await_depth()
            ears.spin(SETTLE)
            begin, cpu = time.time(), cpu_seconds(node.pid)
            ears.spin(bench.seconds)
            end, cpu = time.time(), cpu_seconds(node.pid) - cpu
            memory = resident_mb(node.pid)
            ears.spin(1.0)  # what was under way arrives
    finally:
        ears.close()
    offered = [stamp for stamp in ears.offered if begin <= stamp < end]
    latencies = [now - stamp for stamp, now in ears.arrived if begin <= stamp < end]
    noted = json.loads(notes.read_text())
    begun = [(stamp, at) for stamp, at in noted['begun'] if begin <= stamp < end]
    newest = newest_at_start(begun, noted['received'])
    span = end - begin
    row = (
        len(latencies) / span,
        *(float(x) * 1000 for x in np.quantile(latencies, (0.5, 0.95))),
        cpu / span,
        round(memory),
        len(offered),
        len(offered) - len(latencies),
        f'{np.mean(newest):.3f}',
        float(np.median([at - stamp for stamp, at in begun])) * 1000,
    )
    return row, newest


def newest_at_start(begun, received):
    """
    Whether each frame (stamp, begin) was the newest image that was there when it began.

    `received`: (stamp, when the middleware had it) of every image that the node took.
    """
    stamps, times = np.array(sorted(received, key=lambda pair: pair[1])).T
    newest = np.maximum.accumulate(stamps)
    result = []
    for stamp, at in begun:
        count = np.searchsorted(times, at - TAKING, side='right')
        result.append(bool(count == 0 or newest[count - 1] <= stamp))
    return result


def _start(bench, source):
    """Seconds from the start of the node's process to the first depth image, camera running."""
    ears = Ears()
    try:
        with started('dar_ros.ros.camera', *_camera(source)):
            while not ears.offered:
                ears.spin(0.1)
            before = time.monotonic()
            with started('dar_ros.ros.node', *_node_arguments(bench)):
                return ears.await_depth() - before
    finally:
        ears.close()
