"""Where Fast DDS finds the profile that lets images pass between processes."""

import os

OLD_NAME, NEW_NAME = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'


def profile_variable(environment=os.environ):
    """Return the variable that Fast DDS reads: Kilted renamed it and warns of the old one."""
    return OLD_NAME if environment.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy') else NEW_NAME


def profile_environment(profile, environment=os.environ):
    """Return {variable: profile} to set, or {} where the user has set a profile of either name."""
    if environment.get(OLD_NAME) or environment.get(NEW_NAME):
        return {}
    return {profile_variable(environment): str(profile)}
