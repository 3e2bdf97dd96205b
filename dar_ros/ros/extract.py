"""`dar extract`: a bag of an RGB-D camera becomes a data set (dar_ros.datasets, `folder`)."""

import itertools
import json
from array import array
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from dar_ros.errors import FrameError, UsageError
from dar_ros.ros.compressed import compressed_to_metres, compressed_to_rgb
from dar_ros.ros.conversions import (
    image_to_metres,
    image_to_rgb,
    intrinsics_from_info,
    millimetres,
    rectified_by,
    shape_warning,
)
from dar_ros.ros.pairing import other_camera

# What each topic may be, in the order image, depth, camera_info.
_TYPES = (('Image', 'CompressedImage'), ('Image', 'CompressedImage'), ('CameraInfo',))
_DECODE = {
    (0, False): image_to_rgb,
    (0, True): compressed_to_rgb,
    (1, False): image_to_metres,
    (1, True): compressed_to_metres,
}


def extract(bag, topics, out, every=1, slop=0.02, warn=print):
    """
    Write pairs of image and depth whose stamps differ by at most `slop` seconds; return how many.

    `topics`: image and depth registered to it, each raw or compressed, camera_info of the image:
    the last before a pair, else the bag's first. A frame that cannot be decoded, has no partner or
    whose camera is not known is left out, and `warn` gets a line on each of these in the end. Each
    is the other's nearest: where one is missing, its partner does not take a neighbour's. Memory
    holds the frames of one second at most.
    """
    bag, out = Path(bag), Path(out)
    if topics[0] == topics[1]:
        raise UsageError(f'image and depth are both {topics[0]}: each has a topic of its own')
    if not bag.exists():
        raise UsageError(f'{bag}: no such bag')
    try:
        with AnyReader([bag], default_typestore=get_typestore(Stores.LATEST)) as reader:
            _check_topics(bag, topics, {c.topic: c.msgtype for c in reader.connections})
            first = next(_messages(reader, topics[2:]), None)
            if first is None:
                raise UsageError(f'{bag} has no message on {topics[2]}: no camera is known')
            messages = itertools.chain([(2, *first[1:])], _messages(reader, topics))
            pairs = _Pairs(messages, int(slop * 1e9), rectified_by(topics[0]))
            written = _write_pairs(pairs, out, every)
    except (AnyReaderError, FileNotFoundError) as error:
        raise UsageError(f'{bag} cannot be read: {error}') from None
    for fault in pairs.faults():
        warn(fault)
    return written


def _check_topics(bag, topics, found):
    """UsageError unless the bag has every topic, of one of the types that it may be."""
    for topic, kinds in zip(topics, _TYPES):
        if topic not in found:
            raise UsageError(f'{bag} has no topic {topic}; it has {", ".join(found)}')
        kind = found[topic].split('/')[-1]
        if kind not in kinds:
            raise UsageError(f'{topic} is of type {kind}, not {" or ".join(kinds)}')


def _messages(reader, topics):
    """Yield (position of the topic, message type, message) in the order of the bag."""
    wanted = [c for c in reader.connections if c.topic in topics]
    for connection, _, data in reader.messages(wanted):
        message = reader.deserialize(data, connection.msgtype)
        if connection.msgtype.endswith('CameraInfo'):  # K, D, R and P in a ROS 1 bag
            message = SimpleNamespace(**{k.lower(): v for k, v in vars(message).items()})
        yield topics.index(connection.topic), connection.msgtype, message


def _stamp(message):
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def _write_pairs(pairs, out, every):
    try:
        for name in ('image', 'depth', 'intrinsics'):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a file is in the way, or the folder is another's
        raise UsageError(f'{out} is no folder to write to: {error}') from None
    written = 0
    for number, (stamp, rgb, depth, info) in enumerate(pairs):
        if number % every:
            continue
        try:
            _write(out, stamp, rgb, depth, pairs.camera(info, rgb.shape[:2]))
            written += 1
        except FrameError as error:
            pairs.no_camera, pairs.camera_reason = pairs.no_camera + 1, error
    if not written:
        faults = ''.join(f'; {fault}' for fault in pairs.faults())
        images, depths = map(len, pairs.stamps)
        raise UsageError(
            f'no image with depth and a calibrated camera_info was found among {images} images '
            f'and {depths} depth images{faults}'
        )
    return written


class _Pairs:
    """Iterates over (stamp of the image, RGB, metres, the latest CameraInfo) of every pair."""

    def __init__(self, messages, slop, source=None):
        self.messages, self.slop, self.rectified_by = messages, slop, source
        self.frame_ids, self.refused, self.reason = {}, 0, ''
        self.no_camera, self.camera_reason, self.distorted = 0, '', False
        self.stamps, self.alone, self.shape = (array('q'), array('q')), 0, []

    def camera(self, info, size):
        """Return the Intrinsics of an image of `size`; FrameError if `info` has none."""
        intrinsics = intrinsics_from_info(info, size, self.rectified_by)
        if intrinsics is None:
            raise FrameError('camera_info is not calibrated (K is zero)')
        self.frame_ids[2] = info.header.frame_id
        self.distorted |= bool(np.any(info.d)) and not self.rectified_by
        self.shape = self.shape or shape_warning(info, size)
        return intrinsics

    def faults(self):
        """Lines on what is not as it should be in what was read so far."""
        faults = []
        if self.refused:
            faults.append(f'{self.refused} frames did not decode, the last: {self.reason}')
        if self.alone:
            faults.append(self._why_alone())
        if self.no_camera:
            faults.append(
                f'{self.no_camera} pairs without a camera, the last: {self.camera_reason}'
            )
        if self.distorted:
            faults.append(
                'the image is distorted, and a data set holds pinhole cameras: extract the '
                'rectified image (image_rect) and depth registered to it'
            )
        faults += self.shape
        image, depth, camera = (self.frame_ids.get(kind) for kind in range(3))
        faults += other_camera(camera, image)
        if image and depth and image != depth:
            faults.append(
                f'depth is of frame {depth}, the image of {image}: depth not registered to '
                'the image (aligned_depth_to_color, depth_registered) lies beside what it is of'
            )
        return faults

    def _why_alone(self):
        """Return a line on the images that were left out for want of depth."""
        images, depths = map(np.sort, self.stamps)
        text = f'{self.alone} of {len(images)} images have no depth within {self.slop / 1e9:g} s'
        if self.alone < len(images) or not len(depths):
            return f'{text} (--slop)'
        after = np.searchsorted(depths, images).clip(1, len(depths) - 1)
        nearest = min(np.abs(depths[after - side] - images).min() for side in (0, 1))
        if nearest <= self.slop:  # frames are kept for a second
            return f'{text} that was recorded within a second of them'
        return f'{text} (--slop): the nearest stamps are {nearest / 1e9:g} s apart'

    def __iter__(self):
        """Yield pairs as soon as nothing that comes later can be nearer."""
        info, self.waiting, self.newest = None, ({}, {}), [0, 0]  # images and depth by stamp
        for kind, msgtype, message in self.messages:
            if kind == 2:
                info = message
                continue
            now = _stamp(message)
            if now < self.newest[kind] - 10**9:  # the clock was set back
                yield from self._settled(info, everything=True)
                self.waiting, self.newest = ({}, {}), [0, 0]
            self.newest[kind] = max(self.newest[kind], now)
            self.frame_ids[kind] = message.header.frame_id
            try:
                self.waiting[kind][now] = _DECODE[kind, 'Compressed' in msgtype](message)
            except FrameError as error:
                self.refused, self.reason = self.refused + 1, error
                continue
            self.stamps[kind].append(now)
            yield from self._settled(info)
        yield from self._settled(info, everything=True)

    def _settled(self, info, everything=False):
        images, depths = self.waiting
        for now in sorted(images):
            # Whatever comes later is farther than `slop` from this image and from its partner.
            seen = min(self.newest) > now + 2 * self.slop or max(self.newest) > now + 10**9
            if not (seen or everything):
                return
            match = min(depths, key=lambda stamp: abs(stamp - now), default=None)
            if (
                match is not None
                and abs(match - now) <= self.slop
                and min(images, key=lambda stamp: abs(stamp - match)) == now
            ):
                yield now, images[now], depths.pop(match), info
            else:
                self.alone += 1
            del images[now]
        for old in [stamp for stamp in depths if stamp < max(self.newest) - 10**9]:
            del depths[old]


def _write(out, stamp, rgb, depth, intrinsics):
    if depth.shape != rgb.shape[:2]:
        # A registered depth image of another resolution: nearest, depth is never blended.
        depth = cv2.resize(depth, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    name = f'{stamp:019d}'
    cv2.imwrite(str(out / 'image' / f'{name}.png'), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(out / 'depth' / f'{name}.png'), millimetres(depth))
    camera = {key: getattr(intrinsics, key) for key in ('fx', 'fy', 'cx', 'cy')}
    (out / 'intrinsics' / f'{name}.json').write_text(json.dumps(camera))
