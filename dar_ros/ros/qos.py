"""
QoS profiles, each made anew: rclpy writes `qos_overrides` into the profile it is given, so that
topics which share one would share their overrides.
"""

from rclpy.qos import QoSProfile, ReliabilityPolicy


def sensor_data():
    """Return what qos_profile_sensor_data holds: best effort, keep last 5."""
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def reliable(depth=1):
    """Return a reliable, keep-last profile: it serves reliable and best-effort subscribers."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
