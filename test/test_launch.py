"""The launch file against the real launch system, where a ROS install has it."""

import importlib.util
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
for module in ('launch', 'launch_ros', 'ament_index_python'):
    if importlib.util.find_spec(module) is None:
        pytest.skip(
            f'{module} is not installed: it comes with a ROS 2 install', allow_module_level=True
        )

import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchService
from launch.actions import DeclareLaunchArgument
from launch.launch_description_sources import get_launch_description_from_python_launch_file

try:
    get_package_share_directory('dar_ros')
except (OSError, PackageNotFoundError):
    pytest.skip('dar_ros is not in a sourced ROS 2 workspace', allow_module_level=True)


@pytest.fixture
def description():
    return get_launch_description_from_python_launch_file(str(ROOT / 'launch' / 'dar.launch.py'))


def test_every_argument_is_described(description):
    declared = {
        entity.name: entity.description
        for entity in description.entities
        if isinstance(entity, DeclareLaunchArgument)
    }
    assert {
        'params_file',
        'namespace',
        'autostart',
        'model',
        'backend',
        'num_steps',
        'depth_min',
        'depth_max',
        'image',
        'camera_info',
        'image_transport',
        'rviz',
        'camera',
        'use_respawn',
        'log_level',
    } <= set(declared)
    assert all(declared.values())


def test_arguments_become_nodes(description):
    context = LaunchContext()
    context.launch_configurations.update(
        {
            entity.name: ''.join(part.perform(context) for part in entity.default_value or [])
            for entity in description.entities
            if isinstance(entity, DeclareLaunchArgument)
        }
    )
    context.launch_configurations.update(camera='sim', num_steps='2', namespace='front')
    (group,) = description.entities[-1].execute(context)
    executables = [
        action.node_executable
        for action in group.get_sub_entities()
        if hasattr(action, 'node_executable')
    ]
    assert {'dar_node', 'dar_camera'} <= set(executables)


def test_it_runs_and_ends(description, ros_environment):
    """The node that it starts becomes active, and Ctrl-C ends everything."""
    service = LaunchService(argv=['camera:=none'])
    service.include_launch_description(description)
    seen = []

    def watch():
        context = rclpy.Context()
        rclpy.init(context=context)
        node = rclpy.create_node('watcher', context=context)
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            time.sleep(0.2)
            if node.count_subscribers('image'):  # only an active node has it
                seen.append('image')
        node.destroy_node()
        rclpy.shutdown(context=context)
        service.shutdown()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert service.run() == 0
    watcher.join()
    assert seen
