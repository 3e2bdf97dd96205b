"""`dar extract`: a bag of an RGB-D camera becomes a data set (evaluation.datasets, `folder`)."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from dar_ros.errors import FrameError, UsageError
from dar_ros.ros.conversions import (
    compressed_to_rgb,
    image_to_metres,
    image_to_rgb,
    intrinsics_from_info,
    is_rectified,
)


def extract(bag, topics, out, every=1, slop=0.02):
    """
    Write pairs of image and depth whose stamps differ by at most `slop` seconds; return how many.

    `topics`: image (raw or compressed), depth registered to it, camera_info of the image. A frame
    that cannot be decoded is left out. Each is the other's nearest: where one is missing, its
    partner does not take a neighbour's. Memory holds the frames of one second at most.
    """
    bag, out = Path(bag), Path(out)
    if not bag.exists():
        raise UsageError(f'{bag}: no such bag')
    try:
        with AnyReader([bag], default_typestore=get_typestore(Stores.LATEST)) as reader:
            found = {c.topic for c in reader.connections}
            for topic in topics:
                if topic not in found:
                    raise UsageError(f'{bag} has no topic {topic}; it has {", ".join(found)}')
            messages, rectified = _messages(reader, topics), is_rectified(topics[0])
            return _write_pairs(messages, out, every, int(slop * 1e9), rectified)
    except (AnyReaderError, FileNotFoundError) as error:
        raise UsageError(f'{bag} cannot be read: {error}') from None


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


def _write_pairs(messages, out, every, slop, rectified):
    for name in ('image', 'depth', 'intrinsics'):
        (out / name).mkdir(parents=True, exist_ok=True)
    written = 0
    for number, (stamp, rgb, depth, info) in enumerate(_pairs(messages, slop)):
        if number % every == 0 and _write(out, stamp, rgb, depth, info, rectified):
            written += 1
    if not written:
        raise UsageError('no image with depth and a calibrated camera_info was found in the bag')
    return written


def _pairs(messages, slop):
    """Yield (stamp of the image, RGB, metres, the latest CameraInfo) of every pair."""
    info, waiting, newest = None, ({}, {}), [0, 0]  # images and depth by their stamps

    def settled(everything=False):
        images, depths = waiting
        for now in sorted(images):
            # Whatever comes later is farther than `slop` from this image and from its partner.
            seen = min(newest) > now + 2 * slop or max(newest) > now + 10**9
            if not (seen or everything):
                return
            match = min(depths, key=lambda stamp: abs(stamp - now), default=None)
            if match is not None and abs(match - now) <= slop and info is not None:
                if min(images, key=lambda stamp: abs(stamp - match)) == now:
                    yield now, images[now], depths.pop(match), info
            del images[now]
        for old in [stamp for stamp in depths if stamp < max(newest) - 10**9]:
            del depths[old]

    for kind, msgtype, message in messages:
        if kind == 2:
            info = message
            continue
        now = _stamp(message)
        if now < newest[kind] - 10**9:  # the clock was set back
            yield from settled(everything=True)
            waiting, newest = ({}, {}), [0, 0]
        newest[kind] = max(newest[kind], now)
        try:
            if kind == 1:
                waiting[1][now] = image_to_metres(message)
            else:
                decode = compressed_to_rgb if 'Compressed' in msgtype else image_to_rgb
                waiting[0][now] = decode(message)
        except FrameError:
            continue
        yield from settled()
    yield from settled(everything=True)


def _write(out, stamp, rgb, depth, info, rectified):
    try:
        intrinsics = intrinsics_from_info(info, rgb.shape[:2], rectified)
    except FrameError:
        return False
    if intrinsics is None:
        return False
    if depth.shape != rgb.shape[:2]:
        # A registered depth image of another resolution: nearest, depth is never blended.
        depth = cv2.resize(depth, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    name = f'{stamp:019d}'
    millimetres = np.nan_to_num(depth * 1000, nan=0, posinf=0, neginf=0)
    millimetres = np.where(millimetres < 65535, millimetres, 0).round().astype(np.uint16)
    cv2.imwrite(str(out / 'image' / f'{name}.png'), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(out / 'depth' / f'{name}.png'), millimetres)
    camera = {key: getattr(intrinsics, key) for key in ('fx', 'fy', 'cx', 'cy')}
    (out / 'intrinsics' / f'{name}.json').write_text(json.dumps(camera))
    return True
