"""Shared memory of Fast DDS: the profile that lets images pass, and what killed nodes leave."""

import fcntl
import os
import re
import shutil
import stat
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from dar_ros.paths import shared

SHARED_MEMORY = Path('/dev/shm')
SHARED_MEMORY_CURE = 'give the container more: docker run --shm-size=1g (or --ipc=host)'
OLD_NAME, NEW_NAME = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
SEGMENT_LOCK = re.compile(r'fast(dds|rtps)_[0-9a-f]{16}_el')
JUST_MADE = 10.0  # seconds in which a lock file may not be locked yet
TRANSPORTS = 'FASTDDS_BUILTIN_TRANSPORTS'  # what a profile silently wins over


def profile_variable(environment=os.environ):
    """Return the variable that Fast DDS reads: Kilted renamed it and warns of the old one."""
    return OLD_NAME if environment.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy') else NEW_NAME


def profile_environment(profile, environment=os.environ, processes=1):
    """
    Return {variable: profile} to set, or {} where the user has chosen a profile or transports.

    Nor where it would listen on every interface. Nor where the segments of so many processes do
    not fit: Fast DDS would log errors and come up without shared memory, where its default's
    smaller segment would have fitted. Nor for another middleware, which does not read it.
    """
    if profile_listens_everywhere(environment) or not _is_ours_to_choose(environment):
        return {}
    if lacking_room(profile, processes):
        return {}
    return {profile_variable(environment): str(profile)}


def _is_ours_to_choose(environment):
    rmw = environment.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'
    chosen = any(environment.get(name) for name in (OLD_NAME, NEW_NAME, TRANSPORTS))
    return rmw.startswith('rmw_fastrtps') and not chosen


def profile_listens_everywhere(environment=os.environ):
    """Whether a profile would undo ROS_LOCALHOST_ONLY: Humble adds its transport to that."""
    humble = environment.get('ROS_DISTRO') == 'humble'
    return humble and environment.get('ROS_LOCALHOST_ONLY') == '1'


def segment_size(profile):
    """
    Bytes of shared memory that a profile asks for, 0 if it does not say; OSError, ParseError or
    ValueError for no such profile.
    """
    return max(
        (
            int(element.text or '')
            for element in ElementTree.parse(profile).iter()
            if element.tag.rpartition('}')[2] == 'segment_size'
        ),
        default=0,
    )


def lacking_room(profile, processes=1):
    """
    Return '' or one line: shared memory has no room for the segments of so many more processes.

    Fast DDS takes a segment as a whole, when a process starts. What only the dead hold is removed
    before it is called lacking.
    """
    try:
        size = segment_size(profile)
        needed = 1.05 * processes * size
        if shutil.disk_usage(SHARED_MEMORY).free < needed:
            remove_dead_segments()
        free = shutil.disk_usage(SHARED_MEMORY).free
    except (OSError, ElementTree.ParseError, ValueError):
        return ''
    if free >= needed:
        return ''
    return (
        f'{SHARED_MEMORY} has {free / 2**20:.0f} MB free, and each process takes '
        f'{size / 2**20:.0f} MB for large messages'
    )


def remove_dead_segments(folder=SHARED_MEMORY):
    """
    Remove what killed processes of this user left in shared memory; returns how many segments.

    Fast DDS takes a lock beside its segment, which ends with the process; but nobody removes the
    segment, so that each kill -9 would cost 68 MB for good. The small files of ports have the same
    few names again and again, and Fast DDS itself replaces dead ones.
    """
    removed = 0
    try:
        names = os.listdir(folder)
    except OSError:
        return removed
    for name in filter(SEGMENT_LOCK.fullmatch, names):
        lock = Path(folder, name)
        try:
            file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # gone meanwhile, or not ours to read
            continue
        try:
            found = os.fstat(file)
            age = time.time() - found.st_mtime
            if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode) or age < JUST_MADE:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(folder, name.removesuffix('_el')).unlink(missing_ok=True)
            lock.unlink()  # last: as long as it is there, the next one may try again
            removed += 1
        except OSError:  # its process lives
            continue
        finally:
            os.close(file)
    return removed


def shipped_profile():
    """Return the path of config/fastdds.xml, as a file of the package."""
    return shared(Path('config', 'fastdds.xml'))


def isolate():
    """Keep this process's topics, and its children's, on this machine; and use_profile()."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')  # not read by Humble
    os.environ.setdefault('ROS_DOMAIN_ID', str(100 + os.getpid() % 100))
    use_profile(processes=3)  # a camera, the node and who listens


def use_profile(processes=1):
    """
    Let this process send through the shipped profile; call it before rclpy.init.

    Its children inherit that, and do not ask again whether it fits: `processes` are all of them.
    What earlier ones left in shared memory, killed and perhaps started again since, is removed.
    """
    remove_dead_segments()
    profile = shipped_profile()
    if not profile.is_file():
        return
    chosen = profile_environment(profile, processes=processes)
    os.environ.update(chosen)
    if not chosen and _is_ours_to_choose(os.environ):
        reason = lacking_room(profile, processes)
        if reason:
            print(f'{reason}: images will get lost; {SHARED_MEMORY_CURE}', file=sys.stderr)
