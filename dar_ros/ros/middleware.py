"""Where Fast DDS finds the profile that lets images pass between processes."""

import os
from pathlib import Path

OLD_NAME, NEW_NAME = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'


def profile_variable(environment=os.environ):
    """Return the variable that Fast DDS reads: Kilted renamed it and warns of the old one."""
    return OLD_NAME if environment.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy') else NEW_NAME


def profile_environment(profile, environment=os.environ):
    """
    Return {variable: profile} to set, or {} where the user has set a profile of either name.

    Nor in Humble with ROS_LOCALHOST_ONLY: there a profile's transport goes on listening on every
    interface.
    """
    humble = environment.get('ROS_DISTRO') == 'humble'
    if humble and environment.get('ROS_LOCALHOST_ONLY') == '1':
        return {}
    if environment.get(OLD_NAME) or environment.get(NEW_NAME):
        return {}
    return {profile_variable(environment): str(profile)}


def shipped_profile():
    """Return the path of config/fastdds.xml: of the source tree, else of the installed package."""
    here, name = Path(__file__).resolve(), Path('config', 'fastdds.xml')
    candidates = [here.parents[2], *(folder / 'share' / 'dar_ros' for folder in here.parents)]
    return next((c / name for c in candidates if (c / name).is_file()), candidates[0] / name)


def use_profile():
    """Let this process send through the shipped profile; call it before rclpy.init."""
    if shipped_profile().is_file():
        os.environ.update(profile_environment(shipped_profile()))
