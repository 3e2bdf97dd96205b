"""The launch file inside a launch_pytest test, as other packages would test theirs with it."""

import time
from pathlib import Path

import pytest

launch_pytest = pytest.importorskip(
    'launch_pytest', reason='launch_pytest is not installed: it comes with a ROS 2 install'
)

import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource

try:
    get_package_share_directory('dar_ros')
except (LookupError, OSError, PackageNotFoundError):
    pytest.skip('dar_ros is not in a sourced ROS 2 workspace', allow_module_level=True)

FILE = Path(__file__).resolve().parents[1] / 'launch' / 'dar.launch.py'
CODES = []


@launch_pytest.fixture
def included(ros_environment):
    """Include the file with two arguments; exit codes go to CODES."""
    source = PythonLaunchDescriptionSource(str(FILE))
    arguments = [('namespace', 'front'), ('num_steps', '1')]
    CODES.clear()
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=arguments),
            RegisterEventHandler(
                OnProcessExit(on_exit=lambda event, context: CODES.append(event.returncode))
            ),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.mark.launch(fixture=included)
def test_it_becomes_active_and_ends_with_0():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('watcher', context=context)
    deadline = time.monotonic() + 60
    while not node.count_subscribers('/front/image'):  # only an active node has it
        assert time.monotonic() < deadline
        time.sleep(0.2)
    node.destroy_node()
    rclpy.shutdown(context=context)
    yield  # what follows runs after the shutdown
    assert CODES == [0]
