"""
Start the depth node and, if wanted, a camera and RViz.

All arguments: `ros2 launch dar_ros dar.launch.py --show-args`.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch.conditions import evaluate_condition_expression
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node, PushRosNamespace
from launch_ros.parameter_descriptions import Parameter

from dar_ros.ros.middleware import profile_environment

SHARE = get_package_share_directory('dar_ros')

DEFER = 'empty: params_file decides.'
ARGUMENTS = (
    ('params_file', os.path.join(SHARE, 'config', 'dar.yaml'), 'Parameters of the node (YAML).'),
    ('namespace', '', 'Namespace of all nodes and topics.'),
    ('log_level', 'info', 'Least severe log lines that are shown.'),
    (
        'autostart',
        '',
        f'true: configure and activate at once; false: a lifecycle manager will; {DEFER}',
    ),
    ('model', '', f'Folder of a model bundle, or of a training checkpoint; {DEFER}'),
    ('backend', '', f'Inference backend: auto, onnxruntime, ...; {DEFER}'),
    ('precision', '', f'auto, fp32, fp16, bf16; {DEFER}'),
    ('threads', '', f'CPU threads of the network; {DEFER}'),
    ('num_steps', '', f'Autoregressive steps, fewer are faster; {DEFER}'),
    ('latency_budget_ms', '', f'Take no further step that would overrun it; {DEFER}'),
    ('depth_min', '', f"Nearest depth in metres, no nearer than the model's; {DEFER}"),
    ('depth_max', '', f'Farthest depth in metres; {DEFER}'),
    ('depth_scale', '', f'Calibration factor on depth; {DEFER}'),
    ('rectify', '', f'true: undistort the image by camera_info first; {DEFER}'),
    ('image_rectified', '', f'Whether the image comes rectified: auto, true, false; {DEFER}'),
    ('image', 'image', "Image topic to subscribe to; compressed: without its '/compressed'."),
    ('camera_info', 'camera_info', 'CameraInfo topic to subscribe to.'),
    ('points', 'depth/points', 'Topic that the cloud is published on.'),
    ('image_transport', '', f'Subscribe to raw or compressed images; {DEFER}'),
    ('rviz', 'false', 'Show image, depth, uncertainty and cloud in RViz.'),
    ('fixed_frame', 'camera_optical_frame', "RViz's fixed frame: the camera's, or one tf knows."),
    (
        'camera',
        'none',
        'Start a camera: sim, a ROS 2 bag, an image folder, a video file or /dev/videoN; '
        'none: the robot has one.',
    ),
    ('bag_topic', '', 'Image topic in that bag, raw or compressed; empty: its only one.'),
    ('keep_stamps', 'false', 'Stamps as in that bag, instead of now.'),
    ('fov', '0.0', 'Horizontal field of view of that camera, degrees; 0: unknown (sim: 70).'),
    ('use_sim_time', '', f'true: all nodes take the time from /clock; {DEFER}'),
    ('use_respawn', 'false', 'Start the node again when it dies, and a camera of /dev/, too.'),
)
CHOICES = {'log_level': ['debug', 'info', 'warn', 'error', 'fatal']}
# Arguments that, unless empty, override params_file; with the type they are read as.
OVERRIDES = {
    'use_sim_time': bool,
    'autostart': bool,
    'model': str,
    'backend': str,
    'precision': str,
    'threads': int,
    'num_steps': int,
    'latency_budget_ms': float,
    'depth_min': float,
    'depth_max': float,
    'depth_scale': float,
    'rectify': bool,
    'image_rectified': str,
    'image_transport': str,
}


def nodes(context):
    """Build the actions, now that every argument has its value."""

    def value(name, kind=str):
        text = LaunchConfiguration(name).perform(context)
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f'{name}:={text} is no {kind.__name__}') from None

    def topic(name):
        if not value(name):
            raise ValueError(f'{name}:= is no topic: give it a name, or leave it out')
        return value(name)

    def flag(name):
        return evaluate_condition_expression(context, [LaunchConfiguration(name)])

    overrides = {
        name: flag(name) if kind is bool else value(name, kind)
        for name, kind in OVERRIDES.items()
        if value(name)
    }
    # Twice, under the node's name and under /**: of the two blocks in params_file the one that
    # comes later wins, whatever is given after the file to the earlier one. Without its type a
    # Parameter's text would be read as YAML.
    parameters = [
        value('params_file'),
        overrides,
        *(Parameter(name, it, value_type=OVERRIDES[name]) for name, it in overrides.items()),
    ]
    if not os.path.isfile(value('params_file')):  # launch_ros would only warn of it
        raise FileNotFoundError(f'params_file:={value("params_file")}: no such file')
    clock = {name: overrides[name] for name in ('use_sim_time',) if name in overrides}
    logging = ['--ros-args', '--log-level', value('log_level')]
    inputs = [
        ('image', topic('image')),
        ('image/compressed', topic('image') + '/compressed'),
        ('camera_info', topic('camera_info')),
    ]
    outputs = [('depth/points', topic('points'))]
    actions = [PushRosNamespace(value('namespace'))] if value('namespace') else []
    actions.append(
        LifecycleNode(
            package='dar_ros',
            executable='dar_node',
            name='dar',
            namespace='',
            output='screen',
            parameters=parameters,
            arguments=logging,
            remappings=inputs + outputs,
            respawn=flag('use_respawn'),
            respawn_delay=2.0,
        )
    )
    if value('camera') != 'none':
        camera = {
            'source': value('camera'),
            'fov': value('fov', float),
            'bag_topic': value('bag_topic'),
            'keep_stamps': flag('keep_stamps'),
            **clock,
        }
        actions.append(
            Node(
                package='dar_ros',
                executable='dar_camera',
                name='dar_camera',
                output='screen',
                parameters=[camera],
                arguments=logging,
                remappings=inputs,
                # A device may be plugged in again; what else ends has ended.
                respawn=flag('use_respawn') and value('camera').startswith('/dev/'),
                respawn_delay=2.0,
            )
        )
    if flag('rviz'):
        shown = os.path.join(SHARE, 'config', 'dar.rviz')
        actions.append(
            Node(
                package='rviz2',
                executable='rviz2',
                name='rviz2',
                output='screen',
                parameters=[clock] if clock else None,
                arguments=['-d', shown, '-f', value('fixed_frame')],
                remappings=inputs + outputs,
                # Of this process alone: set for all, it would reach the nodes of a file that
                # includes this one. Ours find the profile by themselves, and tell what it lacks.
                additional_env=profile_environment(os.path.join(SHARE, 'config', 'fastdds.xml')),
            )
        )
    return [GroupAction(actions)]


def generate_launch_description():
    """Entry point of `ros2 launch`."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name, default_value=default, description=text, choices=CHOICES.get(name)
                )
                for name, default, text in ARGUMENTS
            ),
            OpaqueFunction(function=nodes),
        ]
    )
