"""Metric depth images and point clouds from one camera by DAR, for ROS 2."""

__version__ = '0.1.0'
