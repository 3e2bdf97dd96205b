"""The shipped Nav2 and RViz configurations against what the node publishes."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    'sensor_msgs', reason='sensor_msgs is not installed (extra: ros, or a sourced ROS 2)'
)
yaml = pytest.importorskip('yaml', reason='PyYAML is not installed (extra: train)')

from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from dar_ros.geometry import Intrinsics, unproject
from dar_ros.ros import conversions, qos
from dar_ros.ros.outputs import TOPICS
from dar_ros.ros.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
# What nav2_costmap_2d's VoxelLayer and its sources declare in each of Humble, Jazzy and Kilted.
LAYER = {
    'plugin',
    'enabled',
    'footprint_clearing_enabled',
    'max_obstacle_height',
    'z_voxels',
    'origin_z',
    'z_resolution',
    'unknown_threshold',
    'mark_threshold',
    'combination_method',
    'publish_voxel_map',
    'observation_sources',
}
SOURCE = {
    'topic',
    'sensor_frame',
    'observation_persistence',
    'expected_update_rate',
    'data_type',
    'min_obstacle_height',
    'max_obstacle_height',
    'inf_is_valid',
    'marking',
    'clearing',
    'obstacle_max_range',
    'obstacle_min_range',
    'raytrace_max_range',
    'raytrace_min_range',
}
HEIGHT = 0.3  # of the camera, as in docs/nav2.md


@pytest.fixture(scope='module')
def layer():
    tree = yaml.safe_load((ROOT / 'config' / 'nav2_voxel_layer.yaml').read_text())
    return tree['local_costmap']['local_costmap']['ros__parameters']['voxel_layer']


@pytest.fixture(scope='module')
def node_side():
    tree = yaml.safe_load((ROOT / 'config' / 'dar_nav2.yaml').read_text())
    return tree['/**']['ros__parameters']


def sources(layer):
    return {name: layer[name] for name in layer['observation_sources'].split()}


def test_nav2_knows_every_key(layer):
    assert layer.keys() - sources(layer).keys() <= LAYER
    assert layer['plugin'] == 'nav2_costmap_2d::VoxelLayer'
    for source in sources(layer).values():
        assert source.keys() <= SOURCE
        assert TOPICS[source['topic'].removeprefix('/')] is PointCloud2
        assert source['data_type'] == 'PointCloud2'


def test_nav2_marks_and_clears_at_all(layer, node_side):
    """The values that silently switch a layer off, and the order of the ranges."""
    top = layer['origin_z'] + layer['z_voxels'] * layer['z_resolution']
    assert layer['z_voxels'] <= 16 and 0 < layer['max_obstacle_height'] <= top
    mark, clear = sources(layer)['dar_mark'], sources(layer)['dar_clear']
    assert (mark['marking'], mark['clearing']) == (True, False)
    assert (clear['marking'], clear['clearing']) == (False, True)
    # Above the error of the floor on real images: 37 % of the camera's height (docs/nav2.md).
    assert 0.37 * HEIGHT < mark['min_obstacle_height'] < mark['max_obstacle_height']
    assert clear['min_obstacle_height'] < 0 < mark['max_obstacle_height']
    assert mark['obstacle_max_range'] < clear['raytrace_max_range'] < node_side['depth_max']


def test_the_node_knows_its_side(node_side):
    known = {parameter.name: parameter for parameter in PARAMETERS}
    for name, value in node_side.items():
        assert type(value) is type(known[name].default)
        assert not known[name].choices or value in known[name].choices


def rotation():
    """Optical frame -> base_link, from the roll, pitch and yaw of docs/nav2.md's command."""
    text = (ROOT / 'docs' / 'nav2.md').read_text()
    command = text.split('static_transform_publisher', 1)[1].split('```')[0]
    roll, pitch, yaw = (
        float(re.search(rf'--{name} (\S+)', command)[1]) for name in ('roll', 'pitch', 'yaw')
    )
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a), math.sin(a)) for a in (roll, pitch, yaw))
    x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return z @ y @ x


def scene(far):
    """Exact depth of a floor, a box 0.5 m high and wide, 2 m ahead, and nothing behind it."""
    camera, size = Intrinsics.from_fov(70, 640, 480), (480, 640)
    rays = unproject(np.ones(size, np.float32), camera)  # z = 1
    with np.errstate(divide='ignore'):
        depth = np.where(rays[..., 1] > 0, HEIGHT / rays[..., 1], np.inf)
    box = (abs(rays[..., 0] * 2) < 0.25) & (rays[..., 1] * 2 < HEIGHT)
    box &= rays[..., 1] * 2 > HEIGHT - 0.5
    depth[box] = 2.0
    return np.minimum(depth, far).astype(np.float32), camera, box


def seen(cloud):
    """Return points (n, 3) in base_link, and their distances from the camera, as Nav2 does."""
    data = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
    offsets = {field.name: field.offset for field in cloud.fields}
    xyz = np.stack(
        [data[:, offsets[axis] :][:, :4].copy().view('<f4')[:, 0] for axis in 'xyz'], axis=1
    )
    points = xyz @ rotation().T + [0.1, 0, HEIGHT]
    return points, np.linalg.norm(xyz, axis=1)


def test_only_the_box_marks_and_the_floor_clears(layer, node_side):
    """A known scene through cloud, transform and filters, as nav2_costmap_2d applies them."""
    stride = node_side['points_stride']
    depth, camera, box = scene(node_side['depth_max'])
    cloud = conversions.cloud(depth, camera, Header(), stride=stride)
    points, ranges = seen(cloud)
    box = box[::stride, ::stride].ravel()
    mark, clear = sources(layer)['dar_mark'], sources(layer)['dar_clear']

    def kept(source):
        z = points[:, 2]
        return (z >= source['min_obstacle_height']) & (z <= source['max_obstacle_height'])

    marks = kept(mark) & (ranges < mark['obstacle_max_range'])
    assert marks.sum() > 100 and not marks[~box].any()
    assert np.allclose(points[marks][:, 0], 2.1, atol=1e-3)  # 2 m ahead of the camera at 0.1
    assert abs(points[marks][:, 1]).max() == pytest.approx(0.25, abs=0.02)
    assert points[marks][:, 2].max() == pytest.approx(0.5, abs=0.02)
    clears = kept(clear)
    floor = abs(points[:, 2]) < 1e-3
    assert floor.sum() > 1000 and clears[floor].all()
    assert clears.all()  # the open lines too: they end at depth_max
    # Without the far policy of the node's file the open lines are no points.
    depth[depth >= node_side['depth_max']] = np.inf
    points, _ = seen(conversions.cloud(depth, camera, Header()))
    assert not kept(clear).all()


def test_rviz_shows_what_the_node_publishes():
    tree = yaml.safe_load((ROOT / 'config' / 'dar.rviz').read_text())['Visualization Manager']
    shown = {
        display['Topic']['Value']: display for display in tree['Displays'] if 'Topic' in display
    }
    assert {'image', 'depth/color', 'depth/uncertainty', 'depth/points'} <= shown.keys()
    kinds = {**TOPICS, 'image': Image}
    for topic, display in shown.items():
        assert display['Class'].split('/')[1] == kinds[topic].__name__
        wanted = display['Topic']['Reliability Policy']
        offered = qos.sensor_data() if topic == 'image' else qos.reliable()
        # A camera may offer best effort only; of the node's own topics no frame is missed.
        assert (wanted == 'Reliable') == (offered.reliability == ReliabilityPolicy.RELIABLE)
    assert tree['Global Options']['Fixed Frame'] == 'camera_optical_frame'
