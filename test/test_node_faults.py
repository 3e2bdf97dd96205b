"""After a fault: a node that hears again, says what failed, and does not work for nothing."""

import signal

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

from lifecycle_msgs.msg import Transition
from ros_client import FOCAL, Client
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from test_faults import FAULTY, NODE, OK, WARN, Stream, serves


def test_a_deactivation_that_fails_leaves_the_node_serving(start_process, client, rgb, tmp_path):
    """`active` is what its state says: once the slow frame has ended the camera is heard again."""
    gate = tmp_path / 'gate'
    process = start_process(FAULTY, FAULTY=f'onnxruntime:{gate}', PATIENCE='1')
    client.wait_for_node()
    with Stream(client, rgb, 5):
        assert client.spin_until(lambda: 'hangs' in process.log.read_text())
        assert not client.transition(Transition.TRANSITION_DEACTIVATE)
        gate.touch()
        assert serves(client)
        for number in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            assert client.transition(number)
        assert serves(client)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


@pytest.mark.parametrize('driver', ['', '1'])
def test_a_gpu_that_is_not_used_is_warned_of(start_process, client, rgb, driver):
    """At a tenth of the speed all else looks well; without a driver nobody expects more."""
    process = start_process(FAULTY, FAULTY='fast:missing,onnxruntime:0', DRIVER=driver)
    client.wait_for_node()
    if driver:
        assert client.told(rgb, WARN, 'onnxruntime serves, because no better backend does: fast')
    else:
        assert client.told(rgb, OK, 'running')
    told = [line for line in process.log.read_text().splitlines() if 'fast is missing' in line]
    assert [line.split()[0] for line in told] == ['[WARN]' if driver else '[INFO]']


def test_bad_frames_do_not_hide_a_failing_backend(start_process, client, rgb):
    """In the log, where each kind is told once in five seconds."""
    process = start_process(FAULTY, FAULTY='onnxruntime:1')
    client.wait_for_node()
    assert client.told(rgb, WARN, 'unknown encoding', encoding='none such')
    while client.status()[1].count('fails on purpose') == 0:
        client.send(rgb, encoding='none such')
        client.send(rgb)
        assert client.spin_until(lambda: 'frame lost: unknown' in process.log.read_text())
        client.spin_until(lambda: False, 0.2)
    errors = [line for line in process.log.read_text().splitlines() if '[ERROR]' in line]
    assert any('onnxruntime: fails on purpose' in line for line in errors), errors


@pytest.mark.parametrize(
    'camera, word', [({'k': [0.0] * 9}, 'uncalibrated'), (None, 'no camera_')]
)
def test_the_network_does_not_run_for_a_cloud_that_cannot_be(start_process, rgb, camera, word):
    """And diagnostics still tell why there is none."""
    client = Client({'depth/points': PointCloud2})
    try:
        start_process(NODE)
        client.wait_for_node()
        options = {'info': False} if camera is None else {'camera': camera}
        assert client.told(rgb, WARN, word, **options)
        values = client.status()[2]
        assert values['processed'] == '0' and values['steps used'] == '0'
        assert not [name for name in values if name.startswith(('encode', 'step_'))]
        if camera:
            client.ask(rgb, topics=['depth/points'])  # calibrated: served again
    finally:
        client.close()


def test_the_network_does_not_run_for_a_camera_info_alone(start_process, rgb):
    """It is published all the same, as a recording of it needs; and warnings are told."""
    client = Client({'depth/camera_info': CameraInfo})
    try:
        start_process(NODE, '-p', 'min_rate:=100.0')
        client.wait_for_node()
        while True:  # until the node has the camera
            (info,) = client.ask(rgb, topics=['depth/camera_info'], cloud=False)
            if info.k[0]:
                break
        assert info.k[0] == info.p[0] == FOCAL and (info.height, info.width) == rgb.shape[:2]
        bent = {'d': [0.1, 0.0, 0.0, 0.0, 0.0], 'distortion_model': 'plumb_bob'}
        assert client.told(rgb, WARN, 'the image is distorted', camera=bent)
        _, message, values = client.status()
        assert values['processed'] == '0' and 'min_rate' not in message
        assert not [name for name in values if name.startswith(('encode', 'step_'))]
        client.listen('depth/image', Image)
        client.ask(rgb)
    finally:
        client.close()
