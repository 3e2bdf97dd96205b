"""What killed processes leave in shared memory is removed, and nothing else."""

import fcntl
import os
import time
from collections import namedtuple
from pathlib import Path

import pytest

from dar_ros.ros import middleware
from dar_ros.ros.middleware import SHARED_MEMORY, remove_dead_segments, shipped_profile

OLD = 2 * middleware.JUST_MADE
Room = namedtuple('Room', 'free')


def make(folder, name, age=OLD):
    path = folder / name
    path.write_bytes(b'')
    os.utime(path, (time.time() - age,) * 2)
    return path


def segment(folder, name, age=OLD):
    make(folder, name, age)
    return make(folder, f'{name}_el', age)


@pytest.fixture
def dead(tmp_path):
    """Return a folder with a segment of a process that is no more."""
    segment(tmp_path, 'fastdds_0123456789abcdef')
    return tmp_path


def test_only_what_the_dead_hold_is_removed(dead):
    segment(dead, 'fastrtps_00112233445566aa')  # Humble, Jazzy
    make(dead, 'fastdds_00112233445566bb_el')  # whose segment somebody has removed
    gone = {path.name for path in dead.iterdir()}
    living = segment(dead, 'fastdds_00112233445566cc')
    segment(dead, 'fastdds_00112233445566dd', age=0)  # just about to take its lock
    segment(dead, 'fastdds_00112233445566ee', age=-OLD)  # the clock went back
    for name in ('fastdds_port7411', 'fastdds_00112233', 'other_00112233445566ff'):
        segment(dead, name)
    make(dead, 'fastdds_00112233445566ff')  # without a lock nobody knows
    (dead / 'fastdds_0011223344556600_el').mkdir()
    target = make(dead, 'mine')
    (dead / 'fastdds_0011223344556611_el').symlink_to(target)
    before = {path.name for path in dead.iterdir()}
    with living.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_dead_segments(dead) == 3
        assert {path.name for path in dead.iterdir()} == before - gone
    assert remove_dead_segments(dead) == 1  # now its process has ended too


def test_what_cannot_be_removed_stays(dead, monkeypatch):
    names = {path.name for path in dead.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, 'geteuid', lambda: 12345)  # another user's
        assert remove_dead_segments(dead) == 0
    for module, function in ((os, 'open'), (fcntl, 'flock'), (Path, 'unlink')):

        def refuse(*_, **__):
            raise PermissionError('no')

        with monkeypatch.context() as patch:
            patch.setattr(module, function, refuse)
            assert remove_dead_segments(dead) == 0
    assert {path.name for path in dead.iterdir()} == names
    assert remove_dead_segments(dead / 'none such') == 0  # not on every system


@pytest.mark.parametrize('removed', [0, 2])
def test_room_that_the_dead_take_is_not_lacking(monkeypatch, removed):
    size = middleware.segment_size(shipped_profile())
    free = [size]

    def tidy():
        free[0] += removed * size

    monkeypatch.setattr(middleware.shutil, 'disk_usage', lambda _: Room(free[0]))
    monkeypatch.setattr(middleware, 'remove_dead_segments', tidy)
    assert bool(middleware.lacking_room(shipped_profile())) == (not removed)


def segments_of(pid):
    """Return the segments whose lock files a process has open."""
    links = [os.readlink(link) for link in Path(f'/proc/{pid}/fd').iterdir() if link.is_symlink()]
    locks = [Path(link) for link in links if middleware.SEGMENT_LOCK.fullmatch(Path(link).name)]
    return [lock for lock in locks if lock.parent == SHARED_MEMORY]


def test_a_node_removes_what_a_killed_one_left(start_process, rgb):
    """Else each `kill -9` and respawn costs 68 MB, until images get lost again."""
    rclpy = pytest.importorskip('rclpy', reason='rclpy is not installed')
    from ros_client import Client

    if not Path('/proc/self/fd').is_dir() or not SHARED_MEMORY.is_dir():
        pytest.skip('no /proc and /dev/shm to look into')
    if rclpy.get_rmw_implementation_identifier() != 'rmw_fastrtps_cpp':
        pytest.skip('another middleware')
    killed = start_process('dar_ros.ros.node')
    deadline = time.monotonic() + 60
    while 'dar_tiny on' not in killed.log.read_text():  # alone: a peer might tidy up after it
        assert time.monotonic() < deadline
        time.sleep(0.1)
    left = segments_of(killed.pid)
    if not left:
        pytest.skip('Fast DDS uses no shared memory here')
    killed.kill()
    killed.wait()
    client = Client()
    try:
        mine = segments_of(os.getpid())
        for lock in left:
            os.utime(lock, (time.time() - OLD,) * 2)
        start_process('dar_ros.ros.node')
        assert client.spin_until(lambda: not any(lock.exists() for lock in left))
        assert not any(lock.with_name(lock.name.removesuffix('_el')).exists() for lock in left)
        client.ask(rgb)
        assert mine and all(lock.exists() for lock in mine)  # of a process that lives
    finally:
        client.close()
