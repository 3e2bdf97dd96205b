"""`python -m dar_ros.benchmark.listener`: somebody who listens to depth/image and depth/points."""

import sys

from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from dar_ros.ros.outputs import TOPICS
from dar_ros.ros.process import run_node

HEARD = ('depth/image', 'depth/points')


class Listener(Node):
    """Takes every message and does nothing with it."""

    def __init__(self):
        super().__init__('dar_benchmark_listener')
        for topic in HEARD:
            self.create_subscription(
                TOPICS[topic], topic, lambda message: None, qos_profile_sensor_data
            )


if __name__ == '__main__':
    sys.exit(run_node(Listener, 'listener'))
