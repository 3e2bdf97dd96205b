"""The launch file against the real launch system, where a ROS install has it."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
for module in ('launch', 'launch_ros', 'ament_index_python'):
    if importlib.util.find_spec(module) is None or importlib.util.find_spec(module).origin is None:
        pytest.skip(
            f'{module} is not installed: it comes with a ROS 2 install', allow_module_level=True
        )

import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, PointCloud2

try:
    SHARE = Path(get_package_share_directory('dar_ros'))
except (LookupError, OSError, PackageNotFoundError):
    pytest.skip('dar_ros is not in a sourced ROS 2 workspace', allow_module_level=True)

FILE = ROOT / 'launch' / 'dar.launch.py'
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


@pytest.fixture
def start(ros_environment, tmp_path):
    """Launch with arguments; what still runs at the end is interrupted."""
    running = []

    def launch(*arguments):
        running.append(Launched(tmp_path / f'launch.{len(running)}.log', arguments))
        return running[-1]

    yield launch
    for launched in running:
        launched.close()


def need_mujoco():
    if importlib.util.find_spec('mujoco') is None:
        pytest.skip('mujoco is not installed (extra: sim)')


def test_every_argument_is_described():
    description = get_launch_description_from_python_launch_file(str(FILE))
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
    assert all(text and text != 'no description given' for text in declared.values())


def test_rviz_gets_the_configuration_the_frame_and_the_topics():
    """What would be started: RViz itself needs a display."""
    description = get_launch_description_from_python_launch_file(str(FILE))
    context = LaunchContext()
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
    context.launch_configurations.update(rviz='true', fixed_frame='base_link', image='/eye/image')
    (group,) = description.entities[-1].execute(context)
    nodes = {
        getattr(action, 'node_executable', None): action for action in group.get_sub_entities()
    }
    assert {'dar_node', 'rviz2'} <= nodes.keys() and 'dar_camera' not in nodes
    parts = [''.join(text.perform(context) for text in part) for part in nodes['rviz2'].cmd[1:5]]
    assert parts == ['-d', str(SHARE / 'config' / 'dar.rviz'), '-f', 'base_link']
    assert Path(parts[1]).is_file()
    context.launch_configurations['rviz'] = 'False'
    (group,) = description.entities[-1].execute(context)
    assert 'rviz2' not in {getattr(a, 'node_executable', None) for a in group.get_sub_entities()}


def test_a_simulated_camera_gives_depth_and_ctrl_c_ends_it(start):
    need_mujoco()
    launched = start('camera:=sim')
    depth = launched.receive(Image, 'depth/image')
    assert (depth.height, depth.width, depth.encoding) == (480, 640, '32FC1')
    assert launched.receive(PointCloud2, 'depth/points').header.frame_id == 'camera_optical_frame'
    assert 'dar_tiny on' in launched.text()  # log_level info
    assert launched.interrupt() == 0
    assert launched.text().count('process has finished cleanly') == 2
    for name in ('dar_node', 'dar_camera'):
        (pid,) = launched.pids(name)
        assert not Path(f'/proc/{pid}').exists()


def test_arguments_reach_the_nodes(start, tmp_path):
    cv2.imwrite(str(tmp_path / 'picture.png'), np.full((48, 64, 3), 90, np.uint8))
    launched = start(
        'namespace:=front',
        'num_steps:=2',
        'depth_min:=1',
        'depth_max:=5.5',
        'depth_scale:=1.2',
        'rectify:=True',
        'precision:=fp32',
        'threads:=1',
        'latency_budget_ms:=500',
        'backend:=onnxruntime',
        f'model:={ROOT / "models" / "dar_tiny"}',
        'image_transport:=compressed',
        'image:=/eye/image',
        'camera_info:=/eye/info',
        'points:=/pipeline/points',
        f'camera:={tmp_path}',
        'fov:=90',
        'log_level:=error',
    )
    assert launched.receive(PointCloud2, '/pipeline/points').width == 64
    expected = {
        'num_steps': 2,
        'depth_min': 1.0,
        'depth_max': 5.5,
        'depth_scale': 1.2,
        'rectify': True,
        'precision': 'fp32',
        'threads': 1,
        'latency_budget_ms': 500.0,
        'backend': 'onnxruntime',
        'model': str(ROOT / 'models' / 'dar_tiny'),
        'image_transport': 'compressed',
    }
    assert launched.parameters(*expected, node='/front/dar') == [*expected.values()]

    def ends(topic):
        """Full names of who publishes on a topic and who subscribes to it."""
        node = launched.node
        for look in (node.get_publishers_info_by_topic, node.get_subscriptions_info_by_topic):
            yield [f'{end.node_namespace}/{end.node_name}' for end in look(topic)]

    for topic in ('/eye/image/compressed', '/eye/info'):
        # A name may be discovered later than its endpoint.
        launched.wait(lambda t=topic: [*ends(t)] == [['/front/dar_camera'], ['/front/dar']])
    assert launched.node.count_publishers('/front/depth/image') == 1
    assert '[INFO] [' not in launched.text().split('process started')[-1]


def test_params_file_and_a_lifecycle_manager(start, tmp_path):
    """The file decides what no argument does; services drive the node that waits."""
    file = tmp_path / 'mine.yaml'
    file.write_text(
        '/**:\n  ros__parameters:\n'
        '    {autostart: false, num_steps: 3, depth_max: 4, beyond_range: nan, model: ""}\n'
    )
    launched = start(f'params_file:={file}', 'depth_max:=6.0')
    assert launched.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert launched.parameters('num_steps', 'depth_max', 'beyond_range') == [3, 6.0, 'nan']
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    ):
        launched.call(ChangeState, '/dar/change_state', transition=Transition(id=transition))
        assert launched.state() == state  # the answer to a change asked for twice may be a no
    assert launched.interrupt() == 0


def test_autostart_overrides_the_file(start):
    launched = start('autostart:=false')
    assert launched.state() == State.PRIMARY_STATE_UNCONFIGURED


def test_a_killed_node_comes_back(start):
    launched = start('use_respawn:=true')
    launched.wait(lambda: launched.node.count_subscribers('image'))  # only an active node has it
    os.kill(launched.pids('dar_node')[0], signal.SIGKILL)
    launched.wait(lambda: len(launched.pids('dar_node')) == 2)
    launched.wait(lambda: launched.text().count('dar_tiny on') == 2)
    launched.wait(lambda: launched.node.count_subscribers('image'))
    assert launched.interrupt() == 0


def test_a_bag_keeps_its_stamps(start, tmp_path):
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    from test_bags import drive, image, write_bag

    other = [('/depth', 5000, image(5000, 20))]
    bag = write_bag(tmp_path / 'bag', [*drive(), *other])
    launched = start(f'camera:={bag}', 'bag_topic:=/cam/image_raw', 'keep_stamps:=true')
    depth = launched.receive(Image, 'depth/image')
    assert (depth.header.stamp.sec, depth.header.frame_id) == (5, 'lens')


def test_processes_find_the_profile(start, monkeypatch):
    """Fast DDS reads the shipped profile, unless the user has set one."""
    from dar_ros.ros.middleware import (
        NEW_NAME,
        OLD_NAME,
        profile_listens_everywhere,
        profile_variable,
    )

    if profile_listens_everywhere():
        pytest.skip('no profile is set in Humble with ROS_LOCALHOST_ONLY=1')

    def variables():
        launched = start('camera:=none')
        launched.wait(lambda: launched.pids('dar_node'))
        environment = Path(f'/proc/{launched.pids("dar_node")[0]}/environ').read_bytes()
        pairs = [entry.decode().partition('=') for entry in environment.split(b'\0')]
        return {name: value for name, _, value in pairs if name in (OLD_NAME, NEW_NAME)}

    mine = str(ROOT / 'config' / 'fastdds.xml')
    monkeypatch.delenv(NEW_NAME, raising=False)
    monkeypatch.setenv(OLD_NAME, mine)
    assert variables() == {OLD_NAME: mine}
    monkeypatch.delenv(OLD_NAME)
    assert variables() == {profile_variable(): str(SHARE / 'config' / 'fastdds.xml')}


@pytest.mark.parametrize(
    'argument, text',
    [
        ('num_steps:=two', 'num_steps:=two is no int'),
        ('depth_max:=far', 'depth_max:=far is no float'),
        ('rectify:=perhaps', 'perhaps'),
        ('log_level:=loud', 'log_level'),
        ('use_respawn:=perhaps', 'perhaps'),
        ('params_file:=/no/such.yaml', '/no/such.yaml'),
    ],
)
def test_a_wrong_argument_is_named(start, argument, text):
    launched = start(argument)
    assert launched.process.wait(PATIENCE) != 0
    assert text in launched.text()
