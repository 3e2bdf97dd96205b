"""What the tests of the launch file run it with: a launch, and a node that looks at it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import rclpy
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import qos_profile_sensor_data

FILE = Path(__file__).resolve().parents[1] / 'launch' / 'dar.launch.py'
PATIENCE = 60.0
# What `ros2 launch` does, for where there is no `ros2`.
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(text.split(':=', 1)) for text in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
included = IncludeLaunchDescription(source, launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""


class Launched:
    """A running launch with its output, and a node of our own that looks at what it started."""

    def __init__(self, log, arguments):
        self.log = log
        command = ['ros2', 'launch'] if shutil.which('ros2') else [sys.executable, '-c', RUN]
        with log.open('w') as file:
            self.process = subprocess.Popen(
                [*command, str(FILE), *arguments],
                env=dict(os.environ, PYTHONUNBUFFERED='1'),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('watcher', context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def wait(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            self.executor.spin_once(timeout_sec=0.05)

    def receive(self, kind, topic):
        """Return the first message on a topic."""
        received = []
        subscription = self.node.create_subscription(
            kind, topic, received.append, qos_profile_sensor_data
        )
        self.wait(lambda: received)
        self.node.destroy_subscription(subscription)
        return received[0]

    def call(self, kind, name, **request):
        """Ask a service, again where an answer got lost: the server may know our reader late."""
        client = self.node.create_client(kind, name)
        self.wait(client.service_is_ready)
        futures, asked = [], 0.0

        def answered():
            nonlocal asked
            if time.monotonic() - asked > 5.0:
                futures.append(client.call_async(kind.Request(**request)))
                asked = time.monotonic()
            return any(future.done() for future in futures)

        self.wait(answered)
        return next(future.result() for future in futures if future.done())

    def state(self, node='/dar'):
        return self.call(GetState, f'{node}/get_state').current_state.id

    def parameters(self, *names, node='/dar'):
        values = self.call(GetParameters, f'{node}/get_parameters', names=names).values
        return [parameter_value_to_python(value) for value in values]

    def pids(self, name):
        """Process ids of an executable, in the order of their starts."""
        found = re.findall(rf'{name}-\d+\]: process started with pid \[(\d+)\]', self.text())
        return [int(pid) for pid in found]

    def text(self):
        return self.log.read_text()

    def interrupt(self):
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.interrupt()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
