"""
`make soak`: a camera at 30 Hz, the node and a subscriber that checks every frame, for ten minutes.

Prints a table of what must hold, with limits; exits 1 if something does not.
"""

import argparse
import itertools
import os
import signal
import sys
import threading
import time

import numpy as np

from dar_ros.benchmark.timing import resident_mb
from dar_ros.ros.demo import start
from dar_ros.ros.middleware import isolate

WARM_UP = 60.0  # seconds, or a quarter of a shorter run
TOPICS = ('depth/image', 'depth/points', 'depth/camera_info')
LATE = 3.0  # seconds after which a frame of which a topic is still missing counts as incomplete
PATIENCE = 60.0  # seconds for the first depth image to come
MIB = 2**20


def main(arguments=None):
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(prog='soak', description=__doc__.strip().splitlines()[0])
    parser.add_argument('--minutes', type=float, default=10.0)
    parser.add_argument('--rate', type=float, default=30.0, help='images a second')
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=480)
    options = parser.parse_args(arguments)
    isolate()
    pictures = room_pictures(options.height, options.width)
    process = start('dar_ros.ros.node')
    try:
        soak = Soak(process.pid, pictures, options.rate)
        try:
            ran = soak.run(60 * options.minutes, process)
        finally:
            soak.close()
    finally:
        alive = process.poll() is None
        if alive:
            process.send_signal(signal.SIGINT)
        code = process.wait(30)
    if not ran or not alive:
        print(f'soak: no depth image came, or the node died (exit code {code})', file=sys.stderr)
        return 1
    rows = [*soak.checks(options.rate), ('exit code after Ctrl-C', abs(code), 0)]
    print(f'{options.minutes:g} minutes at {options.rate:g} Hz, {options.width}x{options.height}')
    return report(rows)


def report(rows):
    """Print (name, value, limit) with an upper limit each; 1 if a value is above its own."""
    bad = 0
    for name, value, limit in rows:
        good = value <= limit  # nan is not
        bad |= not good
        print(f'{"ok  " if good else "BAD "} {name:<46} {value:>10.2f}   limit {limit:g}')
    return int(bad)


def room_pictures(height, width, count=20):
    """Render (RGB, Intrinsics) of a simulated room."""
    from dar_ros.simulation.room import RoomCamera

    camera = RoomCamera(height, width)
    frames = [camera.frame(3.0 * i) for i in range(count)]
    camera.renderer.close()
    return [(np.ascontiguousarray(frame.image), frame.intrinsics) for frame in frames]


def process_state(pid):
    """(resident MiB, open files, threads) of a process."""
    files, threads = (len(os.listdir(f'/proc/{pid}/{name}')) for name in ('fd', 'task'))
    return resident_mb(pid) * 1e6 / MIB, files, threads


class Soak:
    """The camera, in a thread of its own, and the subscriber."""

    def __init__(self, pid, pictures, rate):
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import CameraInfo, Image, PointCloud2

        self._pid, self._rate = pid, rate
        self._pending, self._samples, self._status, self._errors = {}, [], [], 0
        self.whole = self.incomplete = self.inconsistent = 0
        self._longest, self._whole_time, self._stop = 0.0, time.monotonic(), threading.Event()
        rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
        self._rclpy, self._node = rclpy, rclpy.create_node('dar_soak')
        qos = QoSProfile(depth=5)
        self._image = self._node.create_publisher(Image, 'image', qos)
        self._info = self._node.create_publisher(CameraInfo, 'camera_info', qos)
        for topic, kind in zip(TOPICS, (Image, PointCloud2, CameraInfo)):
            self._node.create_subscription(
                kind, topic, lambda msg, topic=topic: self._arrived(topic, msg), qos
            )
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnosed, qos)
        self._messages = [self._pair(*picture) for picture in pictures]
        self._camera = threading.Thread(target=self._send, name='camera')

    def _pair(self, rgb, intrinsics):
        from sensor_msgs.msg import CameraInfo
        from std_msgs.msg import Header

        from dar_ros.ros.conversions import info_for_depth, rgb_to_image

        header = Header(frame_id='camera')
        info = info_for_depth(CameraInfo(), header, rgb.shape[:2], intrinsics, True)
        return rgb_to_image(rgb, header), info

    def _send(self):
        due = time.monotonic()
        for image, info in itertools.cycle(self._messages):
            if self._stop.is_set():
                return
            stamp = self._node.get_clock().now().to_msg()
            image.header.stamp = info.header.stamp = stamp
            self._info.publish(info)
            self._image.publish(image)
            due += 1 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))

    def run(self, seconds, process):
        """Spin for a time after the first whole frame; whether one came."""
        self._camera.start()
        deadline = time.monotonic() + PATIENCE
        while not self.whole and time.monotonic() < deadline and process.poll() is None:
            self._rclpy.spin_once(self._node, timeout_sec=0.1)
        if not self.whole:
            return False
        self.whole = self.incomplete = self.inconsistent = 0
        self._pending.clear()
        self._status.clear()
        began = due = time.monotonic()
        self._seconds, self._longest, self._whole_time = seconds, 0.0, began
        while time.monotonic() - began < seconds and process.poll() is None:
            self._rclpy.spin_once(self._node, timeout_sec=0.1)
            if time.monotonic() >= due:
                due += 1.0
                self._samples.append((time.monotonic() - began, *process_state(self._pid)))
                self._expire()
        return True

    def _arrived(self, topic, msg):
        key = (msg.header.stamp.sec, msg.header.stamp.nanosec)
        _, parts = self._pending.setdefault(key, (time.monotonic(), {}))
        parts[topic] = msg
        if len(parts) == len(TOPICS):
            del self._pending[key]
            self.whole += 1
            self._longest = max(self._longest, time.monotonic() - self._whole_time)
            self._whole_time = time.monotonic()
            self.inconsistent += not consistent(*(parts[topic] for topic in TOPICS))

    def _expire(self):
        """Count and forget frames of which a topic never came."""
        now = time.monotonic()
        for key in [key for key, (since, _) in self._pending.items() if now - since > LATE]:
            del self._pending[key]
            self.incomplete += 1

    def _diagnosed(self, msg):
        status = msg.status[0]
        values = {value.key: value.value for value in status.values}
        self._status.append((time.monotonic(), values))
        self._errors += status.level == status.ERROR

    def checks(self, rate):
        """Return (name, value, limit) of everything that must hold; a value above is a breach."""
        warm = [s for s in self._samples if s[0] >= min(WARM_UP, self._seconds / 4)]
        memory, files, threads = (np.array([s[i] for s in warm], float) for i in (1, 2, 3))
        part = max(1, len(memory) // 10)
        (first, before), (last, after) = self._status[0], self._status[-1]
        span = last - first or np.nan

        def grown(key):
            return int(after[key]) - int(before[key])

        received, processed = grown('received') / span, grown('processed') / span
        print(
            f'{received:.1f} images/s received, {processed:.1f} frames/s, '
            f'{np.median(memory):.0f} MiB, {int(files.max())} files, '
            f'{int(threads.max())} threads, '
            f'image to publication p50/p95 {after.get("total p50/p95 (ms)", "-")} ms'
        )
        return [
            ('images/s short of the rate, share', 1 - received / rate, 0.03),
            (
                'memory growth after warm-up, MiB',
                np.median(memory[-part:]) - np.median(memory[:part]),
                10,
            ),
            ('file handles above those after warm-up', (files - files[:part].max()).max(), 0),
            ('threads above those after warm-up', (threads - threads[:part].max()).max(), 0),
            ('frames that disagree in stamp, size, K or depth', self.inconsistent, 0),
            ('frames with a topic missing, share', self.incomplete / max(1, self.whole), 0.01),
            (
                'frames refused or lost to the backend',
                grown('refused') + grown('backend failures'),
                0,
            ),
            ('seconds with diagnostics at ERROR', self._errors, 0),
            ('seconds without a whole frame, longest', self._longest, 2),
        ]

    def close(self):
        """Stop the camera and leave the graph."""
        self._stop.set()
        if self._camera.is_alive():
            self._camera.join()
        self._node.destroy_node()
        self._rclpy.shutdown()


def consistent(depth, cloud, info):
    """Whether the three are views of one frame: header, size, camera, and depth of every point."""
    size = (depth.height, depth.width)
    if size != (cloud.height, cloud.width) or size != (info.height, info.width):
        return False
    if not depth.header == cloud.header == info.header:
        return False
    metres = np.frombuffer(depth.data, '<f4').reshape(size)
    points = np.frombuffer(cloud.data, '<f4').reshape(*size, cloud.point_step // 4)
    good = np.isfinite(points[..., 2])
    x = (np.arange(size[1], dtype=np.float32) - info.k[2]) / info.k[0] * metres
    return bool(
        np.array_equal(points[..., 2][good], metres[good])
        and np.allclose(points[..., 0][good], x[good], atol=1e-3)
    )


if __name__ == '__main__':
    sys.exit(main())
