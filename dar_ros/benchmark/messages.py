"""
What the node adds to inference: image message in, messages out, against a plain copy of the bytes.

`node_overhead_over_floor` = time to decode the image, build the depth image and the cloud, and
publish both, over the time of the copies that no rclpy node over Fast DDS's shared memory can do
without: the image once out of its message; every output byte once into a message, from there into
rcl's message, into the serialized one, and into the shared segment. The copies are made in the
same rounds, with the same allocator, of bytes that are in no cache: frames come at a camera's
pace.
"""

import array
import time
from collections import defaultdict

import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.listener import HEARD
from dar_ros.benchmark.processes import started
from dar_ros.benchmark.stages import VIEWS
from dar_ros.benchmark.timing import WARM_UPS, copy_seconds, median_ratio, p50, p50_p95
from dar_ros.geometry import Intrinsics
from dar_ros.ros.middleware import isolate

DISCOVERY_PATIENCE = 20.0  # seconds
PAUSE = 0.03  # seconds between two frames: the listener takes the last before the next
SEGMENT = 64 * 2**20  # bytes of the middleware's memory, which is used in turn


def run(bench):
    """Measure decoding, building and publishing with a listener in another process."""
    import rclpy

    from dar_ros.ros.memory import keep_freed_memory

    isolate()
    keep_freed_memory()  # as the node does
    part = Part()
    rclpy.init()
    node = rclpy.create_node('dar_benchmark')
    try:
        for view, size in VIEWS.items():
            times, floors = _measure(node, size, bench.rounds)
            part.tables.append(_table(view, size, times, floors))
            warm = sum(copy_seconds(count, bench.rounds) for count in bytes_moved(size).values())
            ratio = median_ratio(*(sum(map(np.array, x.values())) for x in (times, floors)))
            part.data[view] = round(ratio, 3)
            part.notes.append(
                f'{view}: {part.data[view]} times the floor. The same bytes between warm buffers '
                f'take {warm * 1000:.2f} ms.'
            )
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    part.values['node_overhead_over_floor'] = part.data['640x480']
    return part


def bytes_moved(size):
    """Bytes that every stage must copy at least, for an image of (H, W)."""
    pixels = size[0] * size[1]
    out = (4 + 16) * pixels  # depth/image: float32; depth/points: x y z rgb
    return {'decode': 3 * pixels, 'build': out, 'publish': 3 * out}


def _sum(times):
    return sum(p50(seconds) for seconds in times.values())


class Floor:
    """Makes the copies that remain when nothing is computed."""

    def __init__(self, size):
        pixels = size[0] * size[1]
        self._image = np.ones(3 * pixels, np.uint8)
        self._outputs = [np.ones(n * pixels, np.uint8) for n in (4, 16)]
        # Ones, not zeros: the middleware's memory has been written to before, page by page.
        self._serialized = [np.ones_like(output) for output in self._outputs]
        self._segment, self._place = np.ones(SEGMENT, np.uint8), 0

    def copy(self, times):
        """Append the seconds of every stage to `times`."""
        marks = [time.perf_counter()]
        self._image.copy()
        marks.append(time.perf_counter())
        messages = []
        for output in self._outputs:
            messages.append(array.array('B'))
            messages[-1].frombytes(output)
        marks.append(time.perf_counter())
        for message, serialized in zip(messages, self._serialized):
            serialized[:] = np.frombuffer(message, np.uint8).copy()
            if self._place + serialized.size > SEGMENT:
                self._place = 0
            self._segment[self._place : self._place + serialized.size] = serialized
            self._place += serialized.size
        marks.append(time.perf_counter())
        for stage, seconds in zip(('decode', 'build', 'publish'), np.diff(marks)):
            times[stage].append(float(seconds))


def _table(view, size, times, floors):
    rows = []
    for stage, count in bytes_moved(size).items():
        p50_ms, p95_ms = p50_p95(times[stage])
        floor = p50(floors[stage]) * 1000
        rows.append((stage, p50_ms, p95_ms, floor, f'{count / 1e6:.2f}'))
    rows.append(
        (
            '**sum**',
            _sum(times) * 1000,
            '',
            _sum(floors) * 1000,
            f'{sum(bytes_moved(size).values()) / 1e6:.2f}',
        )
    )
    title = f'Messages of {view}: image in, depth/image and depth/points out'
    return (title, ('stage', 'p50 ms', 'p95 ms', 'floor ms', 'MB copied'), rows)


class _TimedPublisher:
    """Stands for a publisher and keeps how long publishing took."""

    def __init__(self, publisher):
        self.publisher, self.seconds = publisher, 0.0

    def publish(self, message):
        before = time.perf_counter()
        self.publisher.publish(message)
        self.seconds += time.perf_counter() - before

    def get_subscription_count(self):
        return self.publisher.get_subscription_count()


class _TimedNode:
    """Stands for the node that Outputs publishes by; its publishers are timed."""

    def __init__(self, node):
        self._node, self.publishers = node, []

    def create_publisher(self, *arguments, **options):
        made = _TimedPublisher(self._node.create_publisher(*arguments, **options))
        self.publishers.append(made)
        return made

    def destroy_publisher(self, timed):
        self._node.destroy_publisher(timed.publisher)


def _measure(node, size, rounds):
    """Seconds of every round, {stage: [...]}, of the node's code and of the floor."""
    from dar_ros.ros import parameters
    from dar_ros.ros.conversions import image_to_rgb
    from dar_ros.ros.outputs import Outputs

    values = {p.name: p.default for p in parameters.PARAMETERS}
    frame, message, info = _frame(size)
    timed = _TimedNode(node)
    outputs = Outputs(timed)
    times, floors, floor = defaultdict(list), defaultdict(list), Floor(size)
    try:
        with started('dar_ros.benchmark.listener'):
            _await_listener(outputs)
            for number in range(WARM_UPS + rounds):
                for publisher in timed.publishers:
                    publisher.seconds = 0.0
                began = time.perf_counter()
                image = image_to_rgb(message)
                decoded = time.perf_counter()
                outputs.publish(
                    set(HEARD), frame, image, message.header, info, False, values, (0.1, 20.0)
                )
                publishing = sum(publisher.seconds for publisher in timed.publishers)
                if number >= WARM_UPS:
                    times['decode'].append(decoded - began)
                    times['build'].append(time.perf_counter() - decoded - publishing)
                    times['publish'].append(publishing)
                time.sleep(PAUSE)
                floor.copy(floors if number >= WARM_UPS else defaultdict(list))
                time.sleep(PAUSE)
    finally:
        outputs.destroy()
    return times, floors


def _frame(size):
    """Return a DepthFrame, its image as a message and its camera_info."""
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header

    from dar_ros.pipeline import DepthFrame
    from dar_ros.ros.conversions import info_for_depth, rgb_to_image

    random = np.random.default_rng(0)
    header = Header(frame_id='camera_optical_frame')
    intrinsics = Intrinsics.from_fov(70, size[1], size[0])
    rows = np.linspace(1, 8, size[0], dtype=np.float32)[:, None]
    depth = np.ascontiguousarray(np.broadcast_to(rows, size))
    depth[:, : size[1] // 8] = np.inf  # a part is beyond the range, as in real rooms
    image = random.integers(0, 256, (*size, 3), np.uint8)
    frame = DepthFrame(depth, depth * np.float32(0.1), intrinsics, 5)
    info = info_for_depth(CameraInfo(), header, size, intrinsics, True)
    return frame, rgb_to_image(image, header), info


def _await_listener(outputs):
    deadline = time.monotonic() + DISCOVERY_PATIENCE
    while not set(HEARD) <= outputs.wanted():
        if time.monotonic() > deadline:
            raise TimeoutError('the listener was not discovered: is DDS traffic blocked?')
        time.sleep(0.05)
