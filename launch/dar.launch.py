"""
Start the depth node and, if wanted, a camera and RViz.

All arguments: `ros2 launch dar_ros dar.launch.py --show-args`.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node, PushRosNamespace

from dar_ros.ros.middleware import profile_variable

SHARE = get_package_share_directory('dar_ros')

ARGUMENTS = (
    ('params_file', os.path.join(SHARE, 'config', 'dar.yaml'), 'Parameters of the node.'),
    ('namespace', '', 'Namespace of all nodes and topics.'),
    ('log_level', 'info', 'debug, info, warn, error or fatal.'),
    ('autostart', 'true', 'Configure and activate at once; false: a lifecycle manager will.'),
    ('model', '', 'Model bundle folder; empty: params_file decides.'),
    ('backend', '', 'auto, onnxruntime, ...; empty: params_file decides.'),
    ('num_steps', '', 'Autoregressive steps; empty: params_file decides.'),
    ('depth_min', '', 'Nearest depth in metres; empty: params_file decides.'),
    ('depth_max', '', 'Farthest depth in metres; empty: params_file decides.'),
    ('image', 'image', 'Image topic to subscribe to.'),
    ('camera_info', 'camera_info', 'CameraInfo topic to subscribe to.'),
    ('image_transport', '', 'raw or compressed; empty: params_file decides.'),
    ('rviz', 'false', 'Show image, depth and cloud in RViz.'),
    (
        'camera',
        'none',
        'sim, an image folder, a video file or /dev/videoN: start it as camera; none: do not.',
    ),
    ('fov', '0.0', 'Horizontal field of view in degrees of that camera; 0: unknown (sim: 70).'),
    ('use_respawn', 'false', 'Start the node again when it dies.'),
)
# Arguments that, unless empty, override params_file; with the type they are read as.
OVERRIDES = {
    'model': str,
    'backend': str,
    'num_steps': int,
    'depth_min': float,
    'depth_max': float,
    'image_transport': str,
}


def nodes(context):
    """Build the actions, now that every argument has its value."""

    def value(name):
        return LaunchConfiguration(name).perform(context)

    overrides = {name: kind(value(name)) for name, kind in OVERRIDES.items() if value(name)}
    overrides['autostart'] = value('autostart').lower() in ('true', '1')
    logging = ['--ros-args', '--log-level', value('log_level')]
    actions = [PushRosNamespace(value('namespace'))] if value('namespace') else []
    actions.append(
        LifecycleNode(
            package='dar_ros',
            executable='dar_node',
            name='dar',
            namespace='',
            output='screen',
            parameters=[value('params_file'), overrides],
            arguments=logging,
            remappings=[
                ('image', value('image')),
                ('image/compressed', value('image') + '/compressed'),
                ('camera_info', value('camera_info')),
            ],
            respawn=value('use_respawn').lower() in ('true', '1'),
            respawn_delay=2.0,
        )
    )
    if value('camera') != 'none':
        actions.append(
            Node(
                package='dar_ros',
                executable='dar_camera',
                name='dar_camera',
                output='screen',
                arguments=logging,
                parameters=[{'source': value('camera'), 'fov': float(value('fov'))}],
                remappings=[('image', value('image')), ('camera_info', value('camera_info'))],
            )
        )
    actions.append(
        Node(
            package='rviz2',
            executable='rviz2',
            name='rviz2',
            output='screen',
            arguments=['-d', os.path.join(SHARE, 'config', 'dar.rviz')],
            remappings=[('image', value('image'))],
            condition=IfCondition(value('rviz')),
        )
    )
    return [GroupAction(actions)]


def generate_launch_description():
    """Entry point of `ros2 launch`."""
    variable = profile_variable()
    profile = os.path.join(SHARE, 'config', 'fastdds.xml')
    return LaunchDescription(
        [
            # A profile that the user has set stays in force.
            SetEnvironmentVariable(variable, os.environ.get(variable, profile)),
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in ARGUMENTS
            ),
            OpaqueFunction(function=nodes),
        ]
    )
