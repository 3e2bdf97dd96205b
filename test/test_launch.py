"""The launch file against the real launch system, where a ROS install has it."""

import importlib.util
import json
import os
import signal
import sys
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
from launched import FILE, PATIENCE, Launched
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import Image, PointCloud2

try:
    SHARE = Path(get_package_share_directory('dar_ros'))
except (LookupError, OSError, PackageNotFoundError):
    pytest.skip('dar_ros is not in a sourced ROS 2 workspace', allow_module_level=True)

FAKE_RVIZ = """#!{python}
import json, os, sys, time
files = [open(text).read() for text in sys.argv[1:] if os.path.isfile(text)]
with open('{told}.new', 'w') as file:
    json.dump(dict(environment=dict(os.environ), arguments=sys.argv, files=files), file)
os.rename('{told}.new', '{told}')
time.sleep(1e6)
"""


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
        'use_sim_time',
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
        'image_rectified:=false',
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
        'image_rectified': 'false',
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


@pytest.mark.parametrize('blocks', [('/dar', '/**'), ('/**', '/dar')])
def test_an_argument_wins_over_every_block_of_the_file(start, tmp_path, blocks):
    """Of two blocks that concern a node the later one wins."""
    file = tmp_path / 'mine.yaml'
    values = '{num_steps: 2, backend: torch, rectify: false}'
    file.write_text(''.join(f'{block}:\n  ros__parameters: {values}\n' for block in blocks))
    arguments = 'autostart:=false', 'num_steps:=1', 'backend:=onnxruntime', 'rectify:=true'
    launched = start(f'params_file:={file}', *arguments)
    found = launched.parameters('autostart', 'num_steps', 'backend', 'rectify')
    assert found == [False, 1, 'onnxruntime', True]


def test_text_that_looks_like_yaml_stays_text(start, tmp_path):
    folder = tmp_path / 'room: 2'
    folder.mkdir()
    cv2.imwrite(str(folder / 'picture.png'), np.full((48, 64, 3), 90, np.uint8))
    launched = start('autostart:=false', 'model:=2024_05_01', f'camera:={folder}')
    assert launched.parameters('model') == ['2024_05_01']
    assert launched.parameters('source', node='/dar_camera') == [str(folder)]


def test_a_killed_node_comes_back(start):
    launched = start('use_respawn:=true')
    launched.wait(lambda: launched.node.count_subscribers('image'))  # only an active node has it
    os.kill(launched.pids('dar_node')[0], signal.SIGKILL)
    launched.wait(lambda: len(launched.pids('dar_node')) == 2)
    launched.wait(lambda: launched.text().count('dar_tiny on') == 2)
    launched.wait(lambda: launched.node.count_subscribers('image'))
    assert launched.interrupt() == 0


def test_a_device_that_was_unplugged_comes_back(start, tmp_path):
    """A film of /dev in its place."""
    from test_camera import write_video

    device = Path('/dev/shm', f'{tmp_path.name}.{os.getpid()}.avi')
    if not device.parent.is_dir():
        pytest.skip('no /dev/shm to stand for a device')
    try:
        write_video(device, 8, 3)
        launched = start(f'camera:={device}', 'use_respawn:=true')
        launched.wait(lambda: len(launched.pids('dar_camera')) == 2)
        assert 'gives no more images' in launched.text()
        assert len(launched.pids('dar_node')) == 1
    finally:
        device.unlink(missing_ok=True)


def test_a_bag_keeps_its_stamps(start, tmp_path):
    pytest.importorskip('rosbags', reason='rosbags is not installed (extra: bags)')
    from test_bags import drive, image, write_bag

    other = [('/depth', 5000, image(5000, 20))]
    bag = write_bag(tmp_path / 'bag', [*drive(), *other])
    launched = start(f'camera:={bag}', 'bag_topic:=/cam/image_raw', 'keep_stamps:=true')
    depth = launched.receive(Image, 'depth/image')
    assert (depth.header.stamp.sec, depth.header.frame_id) == (5, 'lens')


@pytest.fixture
def rviz(tmp_path, monkeypatch):
    """Return the file in which a program in the place of RViz, which needs a display, tells."""
    told, prefix = tmp_path / 'rviz.json', tmp_path / 'prefix'
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    program = prefix / 'lib' / 'rviz2' / 'rviz2'
    for folder in (index, program.parent):
        folder.mkdir(parents=True)
    (index / 'rviz2').touch()
    program.write_text(FAKE_RVIZ.format(python=sys.executable, told=str(told)))
    program.chmod(0o755)
    monkeypatch.setenv(
        'AMENT_PREFIX_PATH', os.pathsep.join([str(prefix), os.environ['AMENT_PREFIX_PATH']])
    )
    return told


def test_rviz_alone_is_given_the_profile(start, rviz, monkeypatch):
    """Not the nodes, which find it themselves, nor what an including file starts later."""
    from test_qos import segment_bytes

    from dar_ros.ros.middleware import NEW_NAME, OLD_NAME, lacking_room, profile_environment

    mine, shipped = (str(folder / 'config' / 'fastdds.xml') for folder in (ROOT, SHARE))

    def chosen(environment):
        return {name: value for name, value in environment.items() if name in (OLD_NAME, NEW_NAME)}

    def variables():
        """Of dar_node and of RViz, as they were started."""
        rviz.unlink(missing_ok=True)
        launched = start('rviz:=true')
        launched.wait(lambda: 'dar_tiny on' in launched.text() and rviz.exists())
        (pid,) = launched.pids('dar_node')
        pairs = Path(f'/proc/{pid}/environ').read_bytes().decode().split('\0')
        found = chosen(dict(pair.partition('=')[::2] for pair in pairs))
        return pid, found, chosen(json.loads(rviz.read_text())['environment'])

    monkeypatch.delenv(NEW_NAME, raising=False)
    monkeypatch.setenv(OLD_NAME, mine)
    assert variables()[1:] == ({OLD_NAME: mine}, {OLD_NAME: mine})
    monkeypatch.delenv(OLD_NAME)
    given = profile_environment(shipped)
    if not given or lacking_room(shipped, processes=3):
        pytest.skip(
            lacking_room(shipped, processes=3)
            or 'no profile is set for this middleware, or with ROS_LOCALHOST_ONLY=1 in Humble'
        )
    pid, *found = variables()
    assert found == [{}, given]
    if rclpy.get_rmw_implementation_identifier() == 'rmw_fastrtps_cpp':
        assert segment_bytes(pid) >= 64 * 2**20


def test_simulated_time_is_for_all_nodes(start, rviz, tmp_path):
    cv2.imwrite(str(tmp_path / 'picture.png'), np.full((48, 64, 3), 90, np.uint8))
    launched = start('rviz:=true', f'camera:={tmp_path}', 'use_sim_time:=true')
    for node in ('/dar', '/dar_camera'):
        assert launched.parameters('use_sim_time', node=node) == [True]
    launched.wait(rviz.exists)
    told = json.loads(rviz.read_text())
    given = ' '.join([*told['arguments'], *told['files']]).replace(':=', ': ')
    assert 'use_sim_time: true' in given


@pytest.mark.parametrize(
    'argument, text',
    [
        ('num_steps:=two', 'num_steps:=two is no int'),
        ('depth_max:=far', 'depth_max:=far is no float'),
        ('rectify:=perhaps', 'perhaps'),
        ('log_level:=loud', 'log_level'),
        ('use_respawn:=perhaps', 'perhaps'),
        ('image:=', 'image:= is no topic'),
        ('camera_info:=', 'camera_info:= is no topic'),
        ('points:=', 'points:= is no topic'),
        ('params_file:=/no/such.yaml', '/no/such.yaml'),
    ],
)
def test_a_wrong_argument_is_named(start, argument, text):
    launched = start(argument)
    assert launched.process.wait(PATIENCE) != 0
    assert text in launched.text()
