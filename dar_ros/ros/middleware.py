"""Where Fast DDS finds the profile that lets images pass between processes."""

import os
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

SHARED_MEMORY = Path('/dev/shm')
SHARED_MEMORY_CURE = 'give the container more: docker run --shm-size=1g (or --ipc=host)'
OLD_NAME, NEW_NAME = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
TRANSPORTS = 'FASTDDS_BUILTIN_TRANSPORTS'  # what a profile silently wins over


def profile_variable(environment=os.environ):
    """Return the variable that Fast DDS reads: Kilted renamed it and warns of the old one."""
    return OLD_NAME if environment.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy') else NEW_NAME


def profile_environment(profile, environment=os.environ, processes=1):
    """
    Return {variable: profile} to set, or {} where the user has chosen a profile or transports.

    Nor where it would listen on every interface. Nor where the segments of so many processes do
    not fit: Fast DDS would fail, and not fall back to less. Nor for another middleware, which does
    not read it.
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

    Fast DDS takes a segment as a whole, when a process starts.
    """
    try:
        size, free = segment_size(profile), shutil.disk_usage(SHARED_MEMORY).free
    except (OSError, ElementTree.ParseError, ValueError):
        return ''
    if free >= 1.05 * processes * size:
        return ''
    return (
        f'{SHARED_MEMORY} has {free / 2**20:.0f} MB free, and each process takes '
        f'{size / 2**20:.0f} MB for large messages'
    )


def shipped_profile():
    """Return the path of config/fastdds.xml: of the source tree, else of the installed package."""
    here, name = Path(__file__).resolve(), Path('config', 'fastdds.xml')
    candidates = [here.parents[2], *(folder / 'share' / 'dar_ros' for folder in here.parents)]
    return next((c / name for c in candidates if (c / name).is_file()), candidates[0] / name)


def isolate():
    """Keep this process's topics, and its children's, on this machine; and use_profile()."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')  # not read by Humble
    os.environ.setdefault('ROS_DOMAIN_ID', str(100 + os.getpid() % 100))
    use_profile(processes=3)  # a camera, the node and who listens


def use_profile(processes=1):
    """
    Let this process send through the shipped profile; call it before rclpy.init.

    Its children inherit that, and do not ask again whether it fits: `processes` are all of them.
    """
    profile = shipped_profile()
    if not profile.is_file():
        return
    chosen = profile_environment(profile, processes=processes)
    os.environ.update(chosen)
    if not chosen and _is_ours_to_choose(os.environ):
        reason = lacking_room(profile, processes)
        if reason:
            print(f'{reason}: images will get lost; {SHARED_MEMORY_CURE}', file=sys.stderr)
