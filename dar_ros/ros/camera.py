"""
`dar_camera`: the simulated room, a ROS 2 bag, a folder of images, a video file or a webcam as a
ROS camera.
"""

import array
import sys
import time

import cv2
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dar_ros.errors import FrameError, UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.ros.compressed import compressed_to_rgb
from dar_ros.ros.conversions import image_to_rgb, info_for_depth, rgb_to_image
from dar_ros.ros.parameters import declare_one
from dar_ros.ros.process import run_node
from dar_ros.ros.qos import reliable
from dar_ros.ros.sources import open_source

RATE = 15.0  # images per second of a source without a pace of its own
THROTTLE = 5.0  # seconds between two log lines of one kind
PARAMETERS = (  # name, default, text
    ('rate', 0.0, 'Images per second; 0: as recorded or delivered, else 15.'),
    (
        'source',
        'sim',
        'sim, a ROS 2 bag, an image folder or pattern, a video file, or /dev/videoN.',
    ),
    ('loop', True, 'Begin again at the end of a bag, folder or file.'),
    ('width', 640, 'Width of the simulated image, pixels.'),
    ('height', 480, 'Height of the simulated image, pixels.'),
    ('focal', 0.0, 'Focal length in pixels; 0: from fov.'),
    ('cx', 0.0, 'Principal point, pixels; 0: the middle. Used with focal.'),
    ('cy', 0.0, 'Principal point, pixels; 0: the middle. Used with focal.'),
    ('fov', 0.0, 'Horizontal field of view in degrees; 0: unknown (uncalibrated); sim: 70.'),
    ('frame_id', '', "Frame of the images; empty: the bag's, else camera_optical_frame."),
    ('seed', 0, 'Seed of the simulated room.'),
    ('bag_topic', '', 'Image topic in the bag, raw or compressed; empty: its only.'),
    ('bag_info_topic', '', 'CameraInfo topic in the bag; empty: beside the image.'),
    ('keep_stamps', False, 'Stamps as in the bag, instead of now.'),
)


class CameraNode(Node):
    """
    Publishes image, image/compressed and camera_info; shuts down when the source ends, with an
    error if that is a device.
    """

    def __init__(self):
        super().__init__('dar_camera')
        # Read once, here: a change that is accepted later, and does nothing, would mislead.
        self.values = {
            name: declare_one(
                self, name, default, ParameterDescriptor(description=text, read_only=True)
            )
            for name, default, text in PARAMETERS
        }
        self.rate, source = self.values['rate'], self.values['source']
        if self.rate < 0:
            raise UsageError(f'rate {self.rate} must not be below 0')
        of_source = ('width', 'height', 'fov', 'seed', 'loop', 'bag_topic', 'bag_info_topic')
        self.frames = open_source(
            source, rate=self.rate or RATE, **{name: self.values[name] for name in of_source}
        )
        self.publishers_of = self._made_publishers()
        self.next, self.due = next(self.frames), time.monotonic()
        lens = {name: self.values[name] for name in ('fov', 'focal', 'cx', 'cy')}
        idle, why = idle_of_lens(self.next, lens)
        if idle:
            self.get_logger().warning(f'{", ".join(idle)} without effect: {why}')
        # Steady: it publishes no /clock, and would wait for one with use_sim_time.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.timer = self.create_timer(1 / RATE, self.tick, clock=steady)
        pace = f'{self.rate:g} Hz' if self.rate else 'its own pace, or 15 Hz'
        self.get_logger().info(f'{source}: at {pace}')

    def _made_publishers(self):
        return {
            kind: self.create_publisher(
                kind,
                topic,
                reliable(2),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for kind, topic in (
                (Image, 'image'),
                (CompressedImage, 'image/compressed'),
                (CameraInfo, 'camera_info'),
            )
        }

    def tick(self):
        """Publish one frame, fetch the next, and set the timer to when that is due."""
        try:
            self.publish(self.next)
        except FrameError as error:  # as it may stand in a bag
            self.get_logger().warning(f'left out: {error}', throttle_duration_sec=THROTTLE)
        self.next = next(self.frames, None)
        if self.next is None:
            self.get_logger().info('the source has ended')
            raise SystemExit(0)
        pause = self.next.pause if self.next.pause is not None and not self.rate else None
        now = time.monotonic()
        # A source that fell behind goes on from here; it does not hurry to catch up.
        self.due = max(self.due + (1 / (self.rate or RATE) if pause is None else pause), now)
        self.timer.timer_period_ns = int((self.due - now) * 1e9) + 1
        self.timer.reset()

    def publish(self, shot):
        """Publish a Shot as whatever is listened to; what a bag holds goes out as it is."""
        message, rgb, info = shot.message, shot.rgb, shot.info
        header = self._header(message)
        raw, packed = (self._is_listened_to(kind) for kind in (Image, CompressedImage))
        if message is not None:
            message.header = header
            if isinstance(message, Image):
                rgb = image_to_rgb(message) if packed or info is None else None
            else:
                rgb = compressed_to_rgb(message) if raw or info is None else None
        if info is None:
            info = info_for_depth(
                CameraInfo(), header, rgb.shape[:2], self._intrinsics(shot, rgb), True
            )
        info.header = header
        self.publishers_of[CameraInfo].publish(info)
        if raw:
            self.publishers_of[Image].publish(
                message if isinstance(message, Image) else rgb_to_image(rgb, header)
            )
        if packed:
            self.publishers_of[CompressedImage].publish(
                message if isinstance(message, CompressedImage) else rgb_to_jpeg(rgb, header)
            )

    def _is_listened_to(self, kind):
        return self.publishers_of[kind].get_subscription_count() > 0

    def _header(self, message):
        recorded = message.header if message is not None else Header()
        kept = self.values['keep_stamps'] and message is not None
        return Header(
            stamp=recorded.stamp if kept else self.get_clock().now().to_msg(),
            frame_id=self.values['frame_id'] or recorded.frame_id or 'camera_optical_frame',
        )

    def _intrinsics(self, shot, rgb):
        """Of the source, else by the parameters, else None."""
        height, width = rgb.shape[:2]
        focal, cx, cy, fov = (self.values[name] for name in ('focal', 'cx', 'cy', 'fov'))
        if shot.intrinsics is None and focal > 0:
            return Intrinsics(focal, focal, cx or (width - 1) / 2, cy or (height - 1) / 2)
        if shot.intrinsics is None and fov > 0:
            return Intrinsics.from_fov(fov, width, height)
        return shot.intrinsics


def idle_of_lens(shot, lens):
    """
    Return the names in `lens` ({parameter: value, 0 where it is not set}) that are set, and that
    a source of such Shots does not use; and why.
    """
    if shot.info is not None:
        used, why = (), 'the bag has the camera_info of its images'
    elif shot.intrinsics is not None:
        used, why = ('fov',), 'the simulated camera has a fov alone'
    elif lens['focal'] > 0:
        used, why = ('focal', 'cx', 'cy'), 'focal is used'
    else:
        used, why = ('fov', 'focal'), 'they are used with focal'
    return [name for name, value in lens.items() if value and name not in used], why


def rgb_to_jpeg(rgb, header):
    """RGB uint8 (H, W, 3) -> CompressedImage, as image_transport's compressed plugin names it."""
    _, data = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return CompressedImage(
        header=header, format='rgb8; jpeg compressed bgr8', data=array.array('B', data.tobytes())
    )


def main(args=None):
    """Run the camera until Ctrl-C, SIGTERM or the source's end."""
    return run_node(CameraNode, 'dar_camera', args)


if __name__ == '__main__':
    sys.exit(main())
