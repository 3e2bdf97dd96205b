"""CameraInfo and image by stamp; else the latest, without waiting for what never comes."""

import threading
import time

import pytest

pytest.importorskip(
    'sensor_msgs', reason='sensor_msgs is not installed (extra: ros, or a sourced ROS 2)'
)
from sensor_msgs.msg import CameraInfo, Image

from dar_ros.ros import pairing
from dar_ros.ros.pairing import KEPT, CameraInfos, other_camera


def stamped(kind, second, **fields):
    msg = kind(**fields)
    msg.header.stamp.sec = second
    return msg


def info(second, width=1):
    return stamped(CameraInfo, second, width=width)


@pytest.fixture
def infos(monkeypatch):
    monkeypatch.setattr(pairing, 'PATIENCE', 3.0)
    return CameraInfos()


def find(infos, second):
    """(width of the CameraInfo or None, paired, seconds that it took)."""
    began = time.monotonic()
    found, paired = infos.find(stamped(Image, second))
    return found and found.width, paired, time.monotonic() - began


def test_another_camera_is_noticed_by_its_frame():
    """A frame that is left out says nothing."""
    (told,) = other_camera('right', 'left')
    assert told == 'camera_info is of frame right, the image of left: another camera?'
    for frames in (('left', 'left'), ('right', ''), ('', 'left')):
        assert other_camera(*frames) == []


def test_nothing_yet(infos):
    width, paired, took = find(infos, 1)
    assert (width, paired) == (None, False) and took < 2


def test_the_stamp_decides(infos):
    for second in (3, 1, 2):
        infos.add(info(second, second))
    assert find(infos, 1)[:2] == (1, True) and find(infos, 3)[:2] == (3, True)


def test_frames_of_one_second_are_told_apart(infos):
    for width, nanosec in ((10, 0), (20, 33_000_000), (30, 66_000_000)):
        msg = info(1, width)
        msg.header.stamp.nanosec = nanosec
        infos.add(msg)
    image = stamped(Image, 1)
    image.header.stamp.nanosec = 33_000_000
    found, paired = infos.find(image)
    assert found.width == 20 and paired


def test_of_one_stamp_the_later(infos):
    infos.add(info(1, 10))
    infos.add(info(1, 20))
    assert find(infos, 1)[:2] == (20, True)


def test_an_info_that_comes_after_its_image_is_waited_for(infos):
    infos.add(info(1, 1))
    threading.Timer(0.1, infos.add, [info(2, 2)]).start()
    width, paired, took = find(infos, 2)
    assert (width, paired) == (2, True) and took < 3


def test_stamps_that_never_match_are_waited_for_once(infos):
    infos.add(info(1, 7))
    assert find(infos, 100)[:2] == (7, False)
    width, paired, took = find(infos, 101)
    assert (width, paired) == (7, False) and took < 2
    # A late twin shows that they do match after all.
    infos.add(info(101, 8))
    threading.Timer(0.1, infos.add, [info(102, 9)]).start()
    assert find(infos, 102)[:2] == (9, True)


def test_the_clock_may_jump_back(infos):
    infos.add(info(5000, 1))
    infos.add(info(10, 2))
    assert find(infos, 10)[:2] == (2, True)
    assert find(infos, 11)[:2] == (2, False)  # the latest to arrive, not the greatest stamp


def test_memory_is_bounded(infos):
    last = 10 * KEPT
    for second in range(last + 1):
        infos.add(info(second, second))
    assert len(infos._messages) == KEPT
    assert find(infos, last)[:2] == (last, True)  # the oldest are forgotten, not the newest
    infos.clear()
    assert find(infos, 1)[0] is None
