"""The ROS 2 face: messages in, the pipeline once, messages out."""
