"""
`dar_camera`: the simulated room, a folder of images, a video file or a webcam as a ROS camera.
"""

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.ros.conversions import info_for_depth, rgb_to_image
from dar_ros.ros.parameters import declare_one
from dar_ros.ros.process import run_node

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')


def sim_frames(width, height, fov, seed, rate):
    """Yield (RGB, Intrinsics) of a slow drive through a simulated room, endlessly."""
    from dar_ros.simulation.room import RoomCamera

    room = RoomCamera(height, width, fov or 70.0, seed)
    for i in itertools.count():
        frame = room.frame(i / rate)
        yield frame.image, frame.intrinsics


def folder_frames(path, loop):
    """
    Yield (RGB, None) of the images in a folder, or that a pattern names, in the order of their
    names.
    """
    path = Path(path)
    files = sorted(path.glob('*') if path.is_dir() else path.parent.glob(path.name))
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise UsageError(f'{path}: no images there')
    for file in itertools.cycle(files) if loop else files:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise UsageError(f'{file} is no readable image')
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None


def video_frames(source, loop):
    """Yield (RGB, None) of a video file or of a /dev/videoN."""
    while True:
        capture = cv2.VideoCapture(source)
        count = 0
        while True:
            good, image = capture.read()
            if not good:
                break
            count += 1
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None
        capture.release()
        if count == 0:
            raise UsageError(f'{source}: no video can be read from there')
        if not loop or source.startswith('/dev/'):
            return


def open_source(source, width, height, fov, seed, rate, loop):
    """
    Return the frames of `sim`, a folder or pattern, a video file or /dev/videoN; UsageError
    otherwise.
    """
    if source == 'sim':
        return sim_frames(width, height, fov, seed, rate)
    path = Path(source)
    if source.startswith('/dev/'):
        return video_frames(source, loop)
    if path.is_dir() or '*' in path.name or path.suffix.lower() in IMAGE_SUFFIXES:
        return folder_frames(path, loop)
    if path.is_file():
        return video_frames(source, loop)
    raise UsageError(
        f'source {source!r} is neither sim, a folder, a pattern, a video file nor /dev/videoN'
    )


class CameraNode(Node):
    """Publishes image and camera_info at a rate; shuts down when the source ends."""

    def __init__(self):
        super().__init__('dar_camera')

        def value(name, default, text):
            return declare_one(self, name, default, ParameterDescriptor(description=text))

        self.rate = value('rate', 15.0, 'Images per second.')
        source = value(
            'source', 'sim', 'sim, an image folder or pattern, a video file, or /dev/videoN.'
        )
        loop = value('loop', True, 'Begin again at the end of a folder or file.')
        width = value('width', 640, 'Width of the simulated image, pixels.')
        height = value('height', 480, 'Height of the simulated image, pixels.')
        self.focal = value('focal', 0.0, 'Focal length in pixels; 0: from fov.')
        self.center = (
            value('cx', 0.0, 'Principal point, pixels; 0: the middle. Used with focal.'),
            value('cy', 0.0, 'Principal point, pixels; 0: the middle. Used with focal.'),
        )
        self.fov = value(
            'fov', 0.0, 'Horizontal field of view in degrees; 0: unknown (uncalibrated); sim: 70.'
        )
        self.frame_id = value('frame_id', 'camera_optical_frame', 'Frame of the images.')
        seed = value('seed', 0, 'Seed of the simulated room.')
        if self.rate <= 0:
            raise UsageError(f'rate {self.rate} must be above 0')
        self.frames = open_source(source, width, height, self.fov, seed, self.rate, loop)
        # Reliable serves reliable and best-effort subscribers alike.
        qos = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
        override = {'qos_overriding_options': QoSOverridingOptions.with_default_policies()}
        self.image_publisher = self.create_publisher(Image, 'image', qos, **override)
        self.info_publisher = self.create_publisher(CameraInfo, 'camera_info', qos, **override)
        self.next = next(self.frames)
        self.timer = self.create_timer(1 / self.rate, self.tick)
        self.get_logger().info(
            f'{source}: {self.next[0].shape[1]}x{self.next[0].shape[0]} at {self.rate} Hz'
        )

    def tick(self):
        """Publish one frame and fetch the next."""
        rgb, intrinsics = self.next
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.frame_id)
        height, width = rgb.shape[:2]
        if intrinsics is None and self.focal > 0:
            intrinsics = Intrinsics(
                self.focal,
                self.focal,
                self.center[0] or (width - 1) / 2,
                self.center[1] or (height - 1) / 2,
            )
        elif intrinsics is None and self.fov > 0:
            intrinsics = Intrinsics.from_fov(self.fov, width, height)
        self.info_publisher.publish(
            info_for_depth(CameraInfo(), header, (height, width), intrinsics, True)
        )
        self.image_publisher.publish(rgb_to_image(np.ascontiguousarray(rgb), header))
        self.next = next(self.frames, None)
        if self.next is None:
            self.get_logger().info('the source has ended')
            raise SystemExit(0)


def main(args=None):
    """Run the camera until Ctrl-C, SIGTERM or the source's end."""
    return run_node(CameraNode, 'dar_camera', args)


if __name__ == '__main__':
    sys.exit(main())
