"""What `dar_camera` plays: every source is an iterator of Shots, read one at a time."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dar_ros.cures import pip_install
from dar_ros.errors import UsageError, first_line
from dar_ros.files import read_rgb
from dar_ros.geometry import Intrinsics
from dar_ros.ros.conversions import rectified_by, rectified_info

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')
BAG_SUFFIXES = ('.mcap', '.db3')
IMAGE_TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'


@dataclass
class Shot:
    """
    One frame: `rgb`, uint8 (H, W, 3), or a bag's `message` (Image or CompressedImage).

    `intrinsics` or a bag's `info` (CameraInfo) where the source knows them; `pause`: seconds since
    the frame before, where the source has a pace of its own.
    """

    rgb: np.ndarray | None = None
    intrinsics: Intrinsics | None = None
    message: Image | CompressedImage | None = None
    info: CameraInfo | None = None
    pause: float | None = None


def sim_shots(width, height, fov, seed, rate):
    """Yield a slow drive through a simulated room, endlessly."""
    from dar_ros.simulation.room import RoomCamera

    room = RoomCamera(height, width, fov or 70.0, seed)
    for i in itertools.count():
        frame = room.frame(i / rate)
        yield Shot(frame.image, frame.intrinsics)


def folder_shots(path, loop):
    """Yield the images in a folder, or that a pattern names, in the order of their names."""
    files = sorted(path.glob('*') if path.is_dir() else path.parent.glob(path.name))
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise UsageError(f'{path}: no images there')
    for file in itertools.cycle(files) if loop else files:
        yield Shot(read_rgb(file))


def video_shots(source, loop):
    """
    Yield the frames of a video file at its own pace, or of a /dev/videoN as they come; UsageError
    for a device that gives none any more.
    """
    live = source.startswith('/dev/')
    while True:
        capture = cv2.VideoCapture(source)
        if live:
            # Where the driver heeds it: what waits in a longer queue is old when it is published.
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        fps = capture.get(cv2.CAP_PROP_FPS)
        # A live frame is due at once: read() has waited for it, and its stamp is when it goes out.
        pause = 0.0 if live else 1 / fps if fps > 0 else None
        count = 0
        while True:
            good, image = capture.read()
            if not good:
                break
            count += 1
            yield Shot(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), pause=pause)
        capture.release()
        if count == 0:
            raise UsageError(f'{source}: no video can be read from there')
        if live:  # no end of a film: the robot is blind, and whoever started this should know
            raise UsageError(f'{source} gives no more images; plug it in, and start again')
        if not loop:
            return


def bag_shots(path, topic, info_topic, loop):
    """
    Yield the images of a ROS 2 bag (folder, .mcap or .db3) in their recorded order and pace.

    `topic`: of the images, raw or compressed; empty: the bag's only one. `info_topic`: of their
    camera_info; empty: the one beside them, else the bag's only one, else none. UsageError for a
    bag without such topics, or one that cannot be read.
    """
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise UsageError(f'{error.name} is missing: {pip_install("rosbags")}') from None
    rest = 0.0  # seconds between the last image of one pass and the first of the next
    try:
        while True:
            with Reader(path) as reader:
                pairs = _bag_pairs(reader, path, topic, info_topic, rest)
                for rest, message, info in pairs:
                    yield Shot(message=message, info=info, pause=rest or None)
            if not loop:
                return
    except UsageError:
        raise
    except Exception as error:  # a damaged bag raises whatever its storage and serialization do
        raise UsageError(f'bag {path} cannot be read: {first_line(error)}') from None


def _bag_pairs(reader, path, topic, info_topic, pause):
    """
    Yield (pause, image message, CameraInfo or None) of one pass through the bag.

    An image takes the camera_info of its stamp, which may be recorded before or after it, else the
    last one before it, else the bag's first. `pause`: that of the first image, seconds.
    """
    images, infos = _bag_topics(reader, path, topic, info_topic)
    # Played under another name, nothing else tells that the images are rectified.
    rectified = rectified_by(images[0].topic) is not None
    info, stamp = None, None  # the stamp as recorded: who gets the info may write another into it

    def decoded_info(connection, data):
        message = _decode(connection, data)
        return rectified_info(message) if rectified else message

    if infos:
        info = next((decoded_info(c, data) for c, _, data in reader.messages(infos)), None)
        stamp = info and info.header.stamp
    waiting, before = None, None
    for connection, time, data in reader.messages([*images, *infos]):
        if connection.msgtype == INFO_TYPE:
            info = decoded_info(connection, data)
            stamp = info.header.stamp
        else:
            message = _decode(connection, data)
            if waiting:  # no camera_info of its stamp came
                yield waiting
            pause = pause if before is None else max(time - before, 0) / 1e9
            waiting, before = (pause, message, info), time
        if waiting and (info is None or stamp == waiting[1].header.stamp):
            yield *waiting[:2], info
            waiting = None
    if waiting:
        yield waiting
    if before is None:
        raise UsageError(f'bag {path} has no message on {images[0].topic}')


def _bag_topics(reader, path, topic, info_topic):
    """Return the connections of the images and of their camera_info (none: an empty list)."""
    kinds = {c.topic: c.msgtype for c in reader.connections}
    images = sorted(
        name
        for name, kind in kinds.items()
        if kind in IMAGE_TYPES and not name.endswith('/compressedDepth')
    )
    if not topic:
        # A compressed topic beside its raw one shows the same.
        images = [n for n in images if n.removesuffix('/compressed') not in {*images} - {n}]
        if len(images) > 1:
            raise UsageError(f'bag {path} has several images: set bag_topic to one of {images}')
        topic = images[0] if images else 'of an image'
    if topic not in images:
        raise UsageError(f'bag {path} has no topic {topic}; images: {", ".join(images) or "none"}')
    infos = sorted(name for name, kind in kinds.items() if kind == INFO_TYPE)
    if info_topic and info_topic not in infos:
        raise UsageError(
            f'bag {path} has no topic {info_topic}; camera_info: {", ".join(infos) or "none"}'
        )
    beside = topic.removesuffix('/compressed').rpartition('/')[0] + '/camera_info'
    if not info_topic and (beside in infos or len(infos) == 1):
        info_topic = beside if beside in infos else infos[0]
    return tuple([c for c in reader.connections if c.topic == t] for t in (topic, info_topic))


def _decode(connection, data):
    kind = IMAGE_TYPES.get(connection.msgtype, CameraInfo)
    return deserialize_message(bytes(data), kind)


def is_bag(path):
    """Whether a path is a ROS 2 bag: its folder, or one of its files."""
    if path.is_dir():
        return any(file.suffix in BAG_SUFFIXES for file in path.iterdir())
    return path.suffix in BAG_SUFFIXES and path.is_file()


def open_source(source, width, height, fov, seed, rate, loop, bag_topic='', bag_info_topic=''):
    """
    Return the Shots of `sim`, a bag, a folder or pattern, a video file or /dev/videoN; UsageError
    for anything else.
    """
    if source == 'sim':
        return sim_shots(width, height, fov, seed, rate)
    if source.startswith('/dev/'):
        return video_shots(source, loop)
    path = Path(source)
    if path.suffix == '.bag':
        raise UsageError(f'{path} is a ROS 1 bag; make a ROS 2 bag of it with rosbags-convert')
    if is_bag(path):
        return bag_shots(path, bag_topic, bag_info_topic, loop)
    if path.is_dir() or '*' in path.name or path.suffix.lower() in IMAGE_SUFFIXES:
        return folder_shots(path, loop)
    if path.is_file():
        return video_shots(source, loop)
    raise UsageError(
        f'source {source!r} is neither sim, a folder, a pattern, a bag, a video file nor '
        '/dev/videoN'
    )
