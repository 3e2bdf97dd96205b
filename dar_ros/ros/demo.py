"""
`make demo`: a camera and the depth node as two processes over DDS, seen by a third.

First the real frames of an OAK-D camera (PyPI stereodemo, MIT), then the simulated room. Writes
demo/*.png: image, depth, uncertainty and the cloud seen from above. DEMO_SECONDS (default 20) is
split between the two; 0 runs the simulated room until Ctrl-C.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dar_ros.cures import pip_install
from dar_ros.ros.middleware import isolate

ROOT = Path(__file__).resolve().parents[2]
FAILED = 1
START_PATIENCE = 60.0  # seconds for the first depth image to come


def main():
    """Run both scenes; returns the exit code."""
    isolate()
    out = ROOT / 'demo'
    out.mkdir(exist_ok=True)
    seconds = float(os.environ.get('DEMO_SECONDS', 20))
    with tempfile.TemporaryDirectory() as folder:
        scenes = [] if seconds == 0 else [('oakd', real_camera(Path(folder)), seconds * 0.4)]
        scenes.append(
            (
                'room',
                ['-p', 'source:=sim', '-p', 'seed:=5', '-p', 'fov:=70.0', '-p', 'rate:=15.0'],
                seconds * 0.6 or float('inf'),
            )
        )
        lines = []
        for name, arguments, duration in scenes:
            if arguments is None:
                print(
                    'demo: the stereodemo package is missing, real frames are skipped: '
                    + pip_install('--no-deps', '--ignore-requires-python', 'stereodemo==0.7'),
                    file=sys.stderr,
                )
                continue
            lines.append(run_scene(name, arguments, duration, out))
    failed = [line for line in lines if line is None]
    print('\n'.join(line for line in lines if line))
    return FAILED if failed or not lines else 0


def real_camera(folder):
    """
    Arguments of dar_camera for the left images of stereodemo's OAK-D; None without the package.
    """
    found = importlib.util.find_spec('stereodemo')
    if found is None:
        return None
    source = Path(found.submodule_search_locations[0]) / 'datasets' / 'oak-d'
    for file in sorted(source.glob('*_left.png')):
        shutil.copy(file, folder / file.name)
    calibration = json.loads((source / 'stereodemo_calibration.json').read_text())
    names = {'focal': 'fx', 'cx': 'cx0', 'cy': 'cy'}
    camera = [
        part
        for name, key in names.items()
        for part in ('-p', f'{name}:={float(calibration[key])}')
    ]
    return ['-p', f'source:={folder}', '-p', 'rate:=10.0', *camera]


def start(module, *arguments):
    """Start a ROS process of this package."""
    return subprocess.Popen(
        [sys.executable, '-m', module, '--ros-args', '--log-level', 'warn', *arguments]
    )


def stop(process):
    """Ctrl-C, then wait."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()


def run_scene(name, camera_arguments, duration, out):
    """
    Run camera, node and viewer; write pictures; return the line that sums it up, None if no depth
    came.
    """
    processes = [start('dar_ros.ros.node'), start('dar_ros.ros.camera', *camera_arguments)]
    viewer = None
    try:
        viewer = Viewer(name, out)
        viewer.watch(duration)
    except KeyboardInterrupt:
        pass
    finally:
        for process in processes:
            stop(process)
        if viewer:
            viewer.close()
    if viewer is None or not viewer.count:
        print(f'demo: no depth image arrived in scene {name}', file=sys.stderr)
        return None
    return viewer.summary()


class Viewer:
    """Collects what the node publishes, paired by stamp."""

    def __init__(self, name, out):
        import rclpy
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, PointCloud2

        self.name, self.out, self.count, self.saved = name, out, 0, 0
        self.latencies, self.low, self.high, self.valid = [], np.inf, 0.0, []
        self.first, self.last, self.pending, self.next_save = None, None, {}, 0.0
        rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
        self.rclpy, self.node = rclpy, rclpy.create_node('dar_demo')
        for topic, kind in (
            ('image', Image),
            ('depth/image', Image),
            ('depth/uncertainty', Image),
            ('depth/points', PointCloud2),
        ):
            self.node.create_subscription(
                kind,
                topic,
                lambda msg, topic=topic: self.receive(topic, msg),
                qos_profile_sensor_data,
            )

    def receive(self, topic, msg):
        """Count depth images; keep the messages of a stamp until all four are there."""
        if topic == 'depth/image':
            self.measure(msg)
        stamp = (msg.header.stamp.sec, msg.header.stamp.nanosec)
        views = self.pending.setdefault(stamp, {})
        views[topic] = msg
        if len(views) == 4:
            if time.monotonic() >= self.next_save and self.saved < 12:
                self.save(views)
                self.next_save = time.monotonic() + 0.4
            self.valid.append(valid_points(views['depth/points']))
            self.pending = {key: value for key, value in self.pending.items() if key > stamp}
        while len(self.pending) > 30:
            self.pending.pop(next(iter(self.pending)))

    def measure(self, msg):
        """Latency from the camera's stamp to arrival here, and the depths seen."""
        now = time.monotonic()
        stamp = msg.header.stamp.sec + msg.header.stamp.nanosec * 1e-9
        self.first, self.last, self.count = self.first or now, now, self.count + 1
        self.latencies.append(time.time() - stamp)
        depth = np.frombuffer(msg.data, np.float32)
        depth = depth[np.isfinite(depth)]
        if depth.size:
            self.low, self.high = min(self.low, depth.min()), max(self.high, depth.max())

    def watch(self, duration):
        """Spin for `duration` seconds after the first depth image."""
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < (self.first + duration if self.first else deadline):
            self.rclpy.spin_once(self.node, timeout_sec=0.2)

    def save(self, views):
        """Write one picture."""
        import cv2

        self.saved += 1
        picture = compose(
            *(
                views[topic]
                for topic in ('image', 'depth/image', 'depth/uncertainty', 'depth/points')
            )
        )
        cv2.imwrite(str(self.out / f'{self.name}_{self.saved:02d}.png'), picture[..., ::-1])

    def summary(self):
        """One line for people."""
        rate = (self.count - 1) / (self.last - self.first) if self.count > 1 else 0.0
        p50, p95 = np.quantile(self.latencies, (0.5, 0.95)) * 1000
        share = np.mean(self.valid) if self.valid else 0.0
        return (
            f'{self.name}: {self.count} frames, {rate:.1f} Hz, '
            f'latency p50 {p50:.0f} ms p95 {p95:.0f} ms, '
            f'depth {self.low:.2f}-{self.high:.2f} m, {share:.1%} valid points, pictures in demo/'
        )

    def close(self):
        """Leave the graph."""
        self.node.destroy_node()
        self.rclpy.shutdown()


def points_of(cloud):
    """PointCloud2 with x y z first -> (n, 3) float32."""
    values = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    return values[:, :3]


def valid_points(cloud):
    """Share of points that are not NaN."""
    return float(np.isfinite(points_of(cloud)[:, 2]).mean())


def compose(image_msg, depth_msg, sigma_msg, cloud_msg, near=0.3, far=10.0):
    """Side by side: image, depth, relative uncertainty, cloud from above; RGB uint8."""
    import cv2

    from dar_ros.postprocess import colorize
    from dar_ros.ros.conversions import image_to_rgb

    size = (depth_msg.height, depth_msg.width)
    image = image_to_rgb(image_msg)
    depth, sigma = (
        np.frombuffer(m.data, np.float32).reshape(size) for m in (depth_msg, sigma_msg)
    )
    with np.errstate(invalid='ignore'):
        level = np.nan_to_num(np.clip(sigma / depth / 0.5, 0, 1), posinf=0, neginf=0) * 255
    uncertainty = cv2.cvtColor(
        cv2.applyColorMap(level.astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )
    panels = [
        ('image', image),
        (f'depth {near:g} m (red) - {far:g} m (blue)', colorize(depth, near, far)),
        ('uncertainty, 0 - 50 % of depth', uncertainty),
        ('cloud from above, 1 m grid', top_view(cloud_msg, size, far)),
    ]
    tiles = []
    for title, panel in panels:
        tile = cv2.resize(panel, (480, 480 * size[0] // size[1]), interpolation=cv2.INTER_AREA)
        bar = np.full((28, 480, 3), 255, np.uint8)
        cv2.putText(bar, title, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        tiles.append(np.vstack([bar, tile]))
    return np.hstack(tiles)


def top_view(cloud_msg, size, far):
    """
    Points from above in their colours; the camera is at the middle of the lower edge, far is up.
    """
    points = points_of(cloud_msg)
    colors = np.frombuffer(cloud_msg.data, np.uint8).reshape(len(points), -1)[:, 14:11:-1]
    good = np.isfinite(points[:, 2])
    points, colors = points[good], colors[good]
    height, width = size
    reach = min(far, float(np.quantile(points[:, 2], 0.98)) * 1.1) if len(points) else far
    scale = height / reach
    view = np.full((height, width, 3), 20, np.uint8)
    for metre in range(1, int(reach) + 1):
        view[max(0, height - 1 - int(metre * scale))] = 70
    for metre in range(-int(width / 2 / scale), int(width / 2 / scale) + 1):
        view[:, int(np.clip(width / 2 + metre * scale, 0, width - 1))] = 70
    column = (width / 2 + points[:, 0] * scale).astype(int)
    row = (height - 1 - points[:, 2] * scale).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    order = np.argsort(-points[inside, 1])  # lowest first: what stands higher covers the floor
    view[row[inside][order], column[inside][order]] = np.maximum(colors[inside][order], 60)
    return view


if __name__ == '__main__':
    sys.exit(main())
