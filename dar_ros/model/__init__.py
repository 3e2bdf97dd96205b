"""The DAR network in torch; imports neither ROS nor the runtime backends."""
