"""Training of DAR; imports torch, never ROS."""
