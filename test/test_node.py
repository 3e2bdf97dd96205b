"""The node as a user has it: a process of its own, real messages over DDS."""

import array
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.qos import ReliabilityPolicy
from ros_client import FOCAL, OUTPUTS, SIZE, Client, array_of
from sensor_msgs.msg import CameraInfo, Image

from dar_ros.geometry import Intrinsics, unproject
from dar_ros.pipeline import DepthSettings
from dar_ros.postprocess import colorize
from dar_ros.ros.node import THROTTLE
from dar_ros.ros.outputs import TOPICS
from dar_ros.ros.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[1]


def test_an_image_becomes_depth_info_and_cloud(node, client, rgb, pipeline):
    """Values, stamps, frame, fields and geometry, on an image that is not square."""
    depth, info, sigma, points, color = client.ask(rgb, tuple(OUTPUTS))
    intrinsics = Intrinsics(FOCAL, FOCAL, SIZE[1] / 2, SIZE[0] / 2)
    expected = pipeline(rgb, intrinsics)
    assert (depth.encoding, depth.height, depth.width) == ('32FC1', *SIZE)
    assert np.allclose(array_of(depth), expected.depth, rtol=1e-4, equal_nan=True)
    assert np.allclose(array_of(sigma), expected.sigma, rtol=1e-3, equal_nan=True)
    for msg in (depth, info, sigma, points, color):
        assert msg.header == depth.header and msg.header.frame_id == 'eye'
    assert (info.height, info.width, info.k[0], info.k[2]) == (*SIZE, FOCAL, SIZE[1] / 2)
    assert (points.height, points.width, points.point_step) == (*SIZE, 16)
    xyz = np.frombuffer(points.data, '<f4').reshape(*SIZE, 4)[..., :3]
    kept = np.isfinite(xyz[..., 2])
    assert kept.mean() > 0.2
    assert np.allclose(xyz[kept], unproject(array_of(depth), intrinsics)[kept])
    assert (color.encoding, len(color.data)) == ('rgb8', SIZE[0] * SIZE[1] * 3)
    shown = np.frombuffer(color.data, np.uint8).reshape(*SIZE, 3)
    assert np.array_equal(shown, colorize(array_of(depth), *pipeline.bundle.depth_range))


def test_parameters_act_at_run_time(node, client, rgb, pipeline):
    camera = Intrinsics(FOCAL, FOCAL, SIZE[1] / 2, SIZE[0] / 2)
    assert client.set(num_steps=1, depth_scale=1.5).successful
    (depth,) = client.ask(rgb)
    expected = pipeline(rgb, camera, DepthSettings(num_steps=1, depth_scale=1.5)).depth
    assert np.allclose(array_of(depth), expected, rtol=1e-4, equal_nan=True)
    assert client.set(
        depth_encoding='16UC1', points_stride=4, points_color=False, depth_max=3.0
    ).successful
    depth, points = client.ask(rgb, ('depth/image', 'depth/points'))
    assert depth.encoding == '16UC1' and array_of(depth, '<u2').max() <= 3000
    assert (points.height, points.width, points.point_step) == (30, 50, 12)
    assert client.set(depth_encoding='32FC1', beyond_range='clamp').successful
    (depth,) = client.ask(rgb)
    assert not np.isposinf(array_of(depth)).any() and np.nanmax(array_of(depth)) <= 3.0


def test_bad_parameters_change_nothing(node, client, rgb):
    (before,) = client.ask(rgb)
    for values, word in (
        ({'num_steps': 9}, 'num_steps'),
        ({'depth_min': 50.0}, 'depth'),
        ({'depth_scale': 2.0, 'beyond_range': 'no'}, 'beyond_range'),
        ({'model': '/x'}, 'read-only'),
        ({'depth_max': 'far'}, 'type'),
    ):
        result = client.set(**values)
        assert not result.successful and word in result.reason
    (after,) = client.ask(rgb)
    assert np.array_equal(array_of(before), array_of(after), equal_nan=True)
    described = client.call(
        DescribeParameters,
        'dar/describe_parameters',
        DescribeParameters.Request(names=['num_steps']),
    ).descriptors[0]
    assert 'steps' in described.description and described.integer_range[0].to_value == 16


def test_bad_images_are_refused_and_the_next_is_served(node, client, rgb):
    client.ask(rgb)
    began, sent = time.monotonic(), 0

    def refused():
        return int(client.status()[2]['refused'])

    for count, (changes, word) in enumerate(
        (
            ({'encoding': 'xyz9'}, 'unknown encoding'),
            ({'data': array.array('B', b'123')}, 'truncated image'),
            ({'width': 0}, 'image size'),
            ({'step': 3}, 'step 3'),
            ({'height': 2**31}, 'image size'),
        ),
        1,
    ):
        before = client.second
        # Best effort may lose an image: then the like of it is sent once more.
        assert client.told(rgb, DiagnosticStatus.WARN, f'frame refused: {word}', **changes)
        bad = {*range(before + 1, client.second + 1)}
        sent += len(bad)
        client.ask(rgb)
        assert not bad & client.received['depth/image'].keys()
        assert client.spin_until(lambda n=count, most=sent: n <= refused() <= most)
    assert node.poll() is None
    assert 'frame lost: unknown encoding' in node.log.read_text()
    before = refused()
    for _ in range(20):
        client.send(rgb, encoding='xyz9')
    assert client.spin_until(lambda: refused() > before + 3)
    lines = node.log.read_text().count('frame lost')
    assert lines <= 2 + (time.monotonic() - began) / THROTTLE  # a log must not fill the disk


def test_size_and_intrinsics_may_change_between_frames(node, client, rgb):
    views = (rgb, rgb[:60].copy(), np.ascontiguousarray(rgb.transpose(1, 0, 2)), rgb)
    for image, focal in zip(views, (150.0, 180.0, 120.0, 200.0)):
        height, width = image.shape[:2]
        k = [focal, 0.0, width / 2 - 3, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
        depth, info, points = client.ask(
            image, ('depth/image', 'depth/camera_info', 'depth/points'), camera={'k': k}
        )
        for message in (depth, info, points):
            assert (message.height, message.width) == (height, width)
        assert list(info.k) == k
        xyz = np.frombuffer(points.data, '<f4').reshape(height, width, 4)[..., :3]
        kept = np.isfinite(xyz[..., 2])
        camera = Intrinsics(focal, focal, width / 2 - 3, height / 2)
        assert kept.any() and np.allclose(xyz[kept], unproject(array_of(depth), camera)[kept])


def test_clock_jumps_are_served(node, client, rgb):
    client.ask(rgb, stamp=5000)
    client.received['depth/image'].clear()
    client.ask(rgb, stamp=10)
    client.received['depth/image'].clear()
    client.ask(rgb, stamp=10)


def test_without_camera_info_there_is_depth_but_no_cloud(node, client, rgb):
    (depth,) = client.ask(rgb, info=False)
    assert np.isfinite(array_of(depth)).any()
    assert client.told(rgb, DiagnosticStatus.WARN, 'no camera_info, so no cloud', info=False)
    assert not client.received['depth/points']
    assert 'is assumed' in client.status()[1]


def test_only_the_newest_frame_is_processed(node, client, rgb):
    """
    Of a burst, the last image is answered, others are dropped and counted, and memory holds one.
    """
    client.ask(rgb)
    big = np.ascontiguousarray(np.tile(rgb, (4, 4, 1)))
    client.infos.publish(
        CameraInfo(height=480, width=800, k=[FOCAL, 0.0, 400.0, 0.0, FOCAL, 240.0, 0.0, 0.0, 1.0])
    )
    for _ in range(3):  # best effort may lose the very last image of a burst, seldom of three
        stamps = [client.send(big, info=False) for _ in range(30)]
        last = stamps[-1]
        if client.spin_until(lambda last=last: last in client.received['depth/image'], 10.0):
            break
    else:
        raise AssertionError('the last image of no burst was answered')
    answered = [stamp for stamp in stamps if stamp in client.received['depth/image']]
    assert len(answered) < len(stamps)
    assert client.spin_until(
        lambda: any(
            value.key == 'dropped' and int(value.value) > 0
            for d in client.diagnostics
            for s in d.status
            for value in s.values
        )
    )


def test_nothing_is_computed_for_nobody(ros_environment, start_process, rgb):
    client = Client({})
    try:
        process = start_process('dar_ros.ros.node')
        client.wait_for_node()
        for _ in range(5):
            client.send(rgb)

        def value(key):
            return next(
                (
                    int(v.value)
                    for d in reversed(client.diagnostics)
                    for s in d.status
                    for v in s.values
                    if v.key == key
                ),
                0,
            )

        assert client.spin_until(lambda: value('received') >= 5)
        assert value('processed') == 0
        client.listen('depth/image', Image)
        client.ask(rgb)
        assert process.poll() is None
    finally:
        client.close()


def test_lifecycle(start_process, client, rgb):
    process = start_process('dar_ros.ros.node', '-p', 'autostart:=false')
    assert client.transition(Transition.TRANSITION_CONFIGURE)
    assert client.images.get_subscription_count() == 0
    assert client.transition(Transition.TRANSITION_ACTIVATE)
    client.wait_for_node()
    client.ask(rgb)
    assert client.transition(Transition.TRANSITION_DEACTIVATE)
    assert client.spin_until(lambda: client.images.get_subscription_count() == 0)
    assert client.transition(Transition.TRANSITION_ACTIVATE)
    client.wait_for_node()
    client.ask(rgb)
    assert client.transition(Transition.TRANSITION_DEACTIVATE)
    assert client.transition(Transition.TRANSITION_CLEANUP)
    assert client.spin_until(lambda: client.node.count_publishers('depth/image') == 0)
    assert process.poll() is None


def test_a_corrupt_model_is_not_served(start_process, client, copied_bundle):
    data = (copied_bundle / 'step.onnx').read_bytes()
    (copied_bundle / 'step.onnx').write_bytes(data[:-1])
    process = start_process('dar_ros.ros.node', '-p', f'model:={copied_bundle}')
    assert client.spin_until(lambda: 'step.onnx' in process.log.read_text())
    client.spin_until(lambda: False, 2)
    assert client.node.count_publishers('depth/image') == 0
    lines = [line for line in process.log.read_text().splitlines() if 'ERROR' in line]
    assert len(lines) == 1 and 'copy the bundle again' in lines[0]
    assert process.poll() is None


@pytest.mark.parametrize(
    'argument', ['beyond_range:=sideways', 'depth_max:=far', 'points_stride:=0', 'rectify:=3']
)
def test_bad_parameters_at_start_end_the_process(start_process, client, argument):
    process = start_process('dar_ros.ros.node', '-p', argument)
    assert process.wait(60) == 1
    log = process.log.read_text()
    assert f'dar_node: {argument.split(":")[0]}' in log and 'Traceback' not in log


def test_arguments_that_ros_does_not_understand_are_one_line(start_process, tmp_path):
    file = tmp_path / 'broken.yaml'
    file.write_text('a: [\n')
    for arguments, word in ((('--params-file', str(file)), 'broken.yaml'), (('-r', ':=x'), ':=x')):
        process = start_process('dar_ros.ros.node', *arguments)
        assert process.wait(60) == 1
        lines = process.log.read_text().splitlines()
        (line,) = [line for line in lines if line.startswith('dar_node: ')]
        assert word in line and 'Traceback' not in '\n'.join(lines)


def test_the_shipped_parameter_file_serves(start_process, client, rgb):
    path = ROOT / 'config' / 'dar.yaml'
    start_process(
        'dar_ros.ros.node',
        '--params-file',
        str(path),
        '-p',
        'model:=models/dar_tiny',
        '-p',
        'beyond_range:=nan',
    )
    client.wait_for_node()
    client.ask(rgb)
    request = GetParameters.Request(names=['beyond_range', 'model'])
    values = client.call(GetParameters, 'dar/get_parameters', request).values
    assert [value.string_value for value in values] == ['nan', 'models/dar_tiny']


def test_threads_are_those_of_the_network(start_process, client, rgb):
    """The network computes on the calling thread and on `threads` - 1 of its own."""
    counts = []
    for threads in (1, 4):
        process = start_process('dar_ros.ros.node', '-p', f'threads:={threads}')
        client.wait_for_node()
        assert client.ask(rgb)
        counts.append(len(list(Path(f'/proc/{process.pid}/task').iterdir())))
        process.terminate()
        process.wait(10)
    assert counts[1] >= counts[0] + 3


def test_an_integer_serves_as_a_float(start_process, client, rgb):
    """`depth_max: 10` in a YAML file is an integer; the commonest slip must not stop a robot."""
    start_process('dar_ros.ros.node', '-p', 'depth_max:=2')
    client.wait_for_node()
    (depth,) = client.ask(rgb)
    finite = array_of(depth)[np.isfinite(array_of(depth))]
    assert finite.size == 0 or finite.max() <= 2.0
    if hasattr(client.node, 'add_pre_set_parameters_callback'):
        assert client.set(depth_max=5).successful


def test_every_other_parameter_has_its_effect(node, client, rgb):
    """Those that act at run time and are not tested above."""

    def frame(**values):
        assert client.set(**values).successful
        depth, sigma, points = client.ask(
            rgb, ('depth/image', 'depth/uncertainty', 'depth/points')
        )
        return array_of(depth), array_of(sigma), array_of_points(points)

    depth, sigma, points = frame(edge_threshold=0.0)
    assert np.array_equal(np.isfinite(points[..., 2]), np.isfinite(depth))
    _, _, fewer = frame(edge_threshold=0.001)
    assert np.isfinite(fewer[..., 2]).sum() < np.isfinite(points[..., 2]).sum()
    middle = float(np.median(depth[np.isfinite(depth)]))
    near, _, _ = frame(depth_min=middle)
    assert np.isneginf(near).any() and not (near[np.isfinite(near)] < middle).any()
    assert client.set(depth_min=0.0).successful
    limit = float(np.median((sigma / depth)[np.isfinite(depth)]))
    sure, doubt, _ = frame(max_relative_uncertainty=limit)
    assert np.isnan(sure).any() and (doubt / sure)[np.isfinite(sure)].max() <= limit * 1.001
    frame(max_relative_uncertainty=0.0, latency_budget_ms=0.001)
    assert client.spin_until(lambda: client.status()[2].get('steps used') == '1')


def array_of_points(msg):
    return np.frombuffer(msg.data, '<f4').reshape(msg.height, msg.width, -1)


@pytest.mark.parametrize(
    'argument, words',
    [('precision:=fp16', 'fp16'), ('model:=/nowhere', 'no such folder'), ('num_steps:=9', '1..')],
)
def test_a_start_that_makes_no_sense_is_one_line(start_process, client, argument, words):
    """The node stays, unconfigured, for whoever sets it right."""
    process = start_process('dar_ros.ros.node', '-p', argument, '-p', 'backend:=onnxruntime')
    assert client.spin_until(lambda: '[ERROR]' in process.log.read_text())
    client.spin_until(lambda: False, 0.5)
    log = process.log.read_text()
    assert log.count('[ERROR]') == 1 and words in log and 'Traceback' not in log
    assert process.poll() is None and client.node.count_publishers('depth/image') == 0


def test_quality_of_service_can_be_overridden(start_process, client):
    prefix = 'qos_overrides./depth/image.publisher'
    start_process(
        'dar_ros.ros.node', '-p', f'{prefix}.reliability:=best_effort', '-p', f'{prefix}.depth:=3'
    )
    client.wait_for_node()
    (found,) = client.node.get_publishers_info_by_topic('depth/image')
    assert found.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (other,) = client.node.get_publishers_info_by_topic('depth/points')
    assert other.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (camera,) = client.node.get_subscriptions_info_by_topic('image')
    assert camera.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_the_running_node_declares_what_is_documented(node, client):
    """`ros2 param list` and `describe` against the table, `ros2 topic list` against TOPICS."""
    found = client.call(ListParameters, 'dar/list_parameters', ListParameters.Request())
    names = {
        name
        for name in found.result.names
        if not name.startswith('qos_overrides.')
        and name not in ('use_sim_time', 'start_type_description_service')
    }
    assert names == {parameter.name for parameter in PARAMETERS}
    request = DescribeParameters.Request(names=[p.name for p in PARAMETERS])
    described = client.call(DescribeParameters, 'dar/describe_parameters', request).descriptors
    for parameter, descriptor in zip(PARAMETERS, described):
        assert descriptor.description == parameter.text
        assert descriptor.read_only == parameter.read_only
        assert bool(descriptor.floating_point_range or descriptor.integer_range) == bool(
            parameter.bounds
        )
        for choice in parameter.choices:
            assert choice in descriptor.additional_constraints
    published = dict(client.node.get_publisher_names_and_types_by_node('dar', '/'))
    for topic, kind in TOPICS.items():
        assert published[f'/{topic}'] == [f'sensor_msgs/msg/{kind.__name__}']
    assert published['/diagnostics'] == ['diagnostic_msgs/msg/DiagnosticArray']
