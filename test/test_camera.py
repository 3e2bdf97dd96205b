"""dar_camera: every source, as images and camera_info on the wire."""

import importlib.util
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.ros.camera import PARAMETERS, idle_of_lens, rgb_to_jpeg
from dar_ros.ros.compressed import compressed_to_rgb
from dar_ros.ros.conversions import image_to_rgb
from dar_ros.ros.sources import Shot, open_source


def receive(count, patience=60):
    """Return the first `count` images and camera infos."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('viewer', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    images, infos = [], []
    whole = QoSProfile(depth=100)  # reliable: none is missing between the first and the last
    node.create_subscription(Image, 'image', images.append, whole)
    node.create_subscription(CameraInfo, 'camera_info', infos.append, whole)
    end = node.get_clock().now().nanoseconds + patience * 1e9
    while min(len(images), len(infos)) < count and node.get_clock().now().nanoseconds < end:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert min(len(images), len(infos)) >= count
    return images, infos


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i, shade in enumerate((50, 150)):
        cv2.imwrite(str(folder / f'{i}.png'), np.full((40, 60, 3), shade, np.uint8))
    (folder / 'notes.txt').write_text('not a picture')
    return folder


def test_a_folder_loops(start_process, pictures):
    start_process(
        'dar_ros.ros.camera',
        '-p',
        f'source:={pictures}',
        '-p',
        'fov:=90.0',
        '-p',
        'rate:=20.0',
        '-p',
        'frame_id:=lens',
    )
    images, infos = receive(5)
    shades = [int(image_to_rgb(msg).mean()) for msg in images[:4]]
    assert shades in ([50, 150, 50, 150], [150, 50, 150, 50])
    stamps = {(msg.header.stamp.sec, msg.header.stamp.nanosec) for msg in infos}
    assert all((msg.header.stamp.sec, msg.header.stamp.nanosec) in stamps for msg in images[1:4])
    assert images[0].header.frame_id == 'lens'
    assert infos[0].k[0] == pytest.approx(30) and (infos[0].width, infos[0].height) == (60, 40)


def test_a_folder_of_an_unknown_camera_is_uncalibrated(start_process, pictures):
    start_process('dar_ros.ros.camera', '-p', f'source:={pictures}', '-p', 'rate:=5.0')
    images, infos = receive(6)
    assert infos[0].k[0] == 0
    first, sixth = (images[i].header.stamp for i in (0, 5))
    took = sixth.sec - first.sec + (sixth.nanosec - first.nanosec) * 1e-9
    assert took > 0.6  # five periods of the rate asked for, unless the first was late


def test_simulated_time_that_nobody_publishes_stops_no_camera(start_process, pictures):
    start_process('dar_ros.ros.camera', '-p', f'source:={pictures}', '-p', 'use_sim_time:=true')
    assert len(receive(3)[0]) >= 3


def test_a_video_ends(start_process, tmp_path):
    path = tmp_path / 'clip.avi'
    write_video(path, 10, 60)
    process = start_process(
        'dar_ros.ros.camera',
        '-p',
        f'source:={path}',
        '-p',
        'loop:=false',
        '-p',
        'rate:=10.0',
        '-p',
        'focal:=55.0',
        '-p',
        'cx:=20.0',
        '-p',
        'cy:=30.0',
    )
    _, infos = receive(1)
    assert [infos[0].k[i] for i in (0, 4, 2, 5)] == [55, 55, 20, 30]
    assert process.wait(60) == 0


def write_video(path, fps, count):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), fps, (64, 48))
    for _ in range(count):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()


def test_a_video_has_its_own_pace(tmp_path):
    write_video(tmp_path / 'clip.avi', 8, 3)
    played = open_source(str(tmp_path / 'clip.avi'), 0, 0, 0.0, 0, 15.0, True)
    assert [next(played).pause for _ in range(5)] == [0.125] * 5  # it loops


@pytest.fixture
def device(tmp_path):
    """Return a file of three images below /dev, in the place of a webcam."""
    shared = Path('/dev/shm')
    if not shared.is_dir():
        pytest.skip('no /dev/shm to stand for a device')
    file = shared / f'{tmp_path.name}.{os.getpid()}.avi'
    try:
        write_video(file, 8, 3)
        yield file
    finally:
        file.unlink(missing_ok=True)


def test_a_device_has_no_pace_and_its_end_is_an_error(device):
    played = open_source(str(device), 0, 0, 0.0, 0, 15.0, True)
    assert [next(played).pause for _ in range(3)] == [0.0] * 3
    with pytest.raises(UsageError, match=f'{device} gives no more images'):
        next(played)


def test_an_unplugged_device_ends_the_camera_with_code_1(start_process, device):
    process = start_process('dar_ros.ros.camera', '-p', f'source:={device}')
    assert process.wait(60) == 1
    log = process.log.read_text()
    assert f'dar_camera: {device} gives no more images' in log and 'Traceback' not in log


def test_the_simulated_room_depends_on_its_seed():
    if importlib.util.find_spec('mujoco') is None:
        pytest.skip('mujoco is not installed (extra: sim)')
    first, again, other = (
        next(open_source('sim', 64, 48, 70.0, seed, 15.0, True)).rgb for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_simulated_room(start_process):
    if importlib.util.find_spec('mujoco') is None:
        pytest.skip('mujoco is not installed (extra: sim)')
    start_process('dar_ros.ros.camera', '-p', 'width:=160', '-p', 'height:=120')
    images, infos = receive(3)
    assert (images[0].height, images[0].width) == (120, 160)
    assert image_to_rgb(images[0]).std() > 10 and infos[0].k[0] == pytest.approx(
        80 / np.tan(np.radians(35))
    )


def test_an_integer_serves_as_a_float(start_process, pictures):
    start_process('dar_ros.ros.camera', '-p', f'source:={pictures}', '-p', 'fov:=90')
    _, infos = receive(1)
    assert infos[0].k[0] == pytest.approx(30)


def test_parameters_are_read_at_start_only(start_process, client, pictures):
    start_process('dar_ros.ros.camera', '-p', f'source:={pictures}')
    updates = [
        Parameter('fov', value=90.0),
        Parameter('rate', value=30.0),
        Parameter('use_sim_time', value=True),
    ]
    request = SetParameters.Request(parameters=[update.to_parameter_msg() for update in updates])
    *ours, foreign = client.call(SetParameters, '/dar_camera/set_parameters', request).results
    assert all(not result.successful and 'read-only' in result.reason for result in ours)
    assert foreign.successful


@pytest.mark.parametrize(
    'known, given, idle',
    [
        ({}, {'fov': 70.0}, []),
        ({}, {'focal': 55.0, 'cx': 20.0}, []),
        ({}, {'fov': 70.0, 'cx': 20.0}, ['cx']),
        ({}, {'fov': 70.0, 'focal': 55.0, 'cy': 20.0}, ['fov']),
        ({'intrinsics': Intrinsics.from_fov(70, 64, 48)}, {'fov': 70.0, 'focal': 1.0}, ['focal']),
        ({'info': CameraInfo()}, {'fov': 70.0, 'focal': 55.0}, ['fov', 'focal']),
        ({'info': CameraInfo()}, {}, []),
    ],
)
def test_which_parameters_of_the_lens_are_idle(known, given, idle):
    lens = {name: given.get(name, 0.0) for name in ('fov', 'focal', 'cx', 'cy')}
    assert idle_of_lens(Shot(**known), lens)[0] == idle


def test_a_parameter_without_effect_is_warned_of(start_process, pictures):
    source = ('-p', f'source:={pictures}', '-p', 'loop:=false', '-p', 'rate:=50.0')
    lens = ('-p', 'focal:=55.0', '-p', 'cx:=20.0')
    for arguments, told in (((*lens, '-p', 'fov:=90.0'), True), (lens, False)):
        process = start_process('dar_ros.ros.camera', *source, *arguments)
        assert process.wait(60) == 0
        log = process.log.read_text()
        assert ('fov without effect: focal is used' in log) == told
        assert ('without effect' in log) == told


@pytest.mark.parametrize('source', ['/no/such/place', '{tmp}'])
def test_a_bad_source_is_one_line(start_process, tmp_path, source):
    process = start_process('dar_ros.ros.camera', '-p', f'source:={source.format(tmp=tmp_path)}')
    assert process.wait(60) == 1
    assert 'Traceback' not in process.log.read_text() and 'dar_camera: ' in process.log.read_text()


def test_a_jpeg_keeps_red_and_blue_apart():
    rgb = np.full((48, 64, 3), (200, 30, 60), np.uint8)
    message = rgb_to_jpeg(rgb, Header(frame_id='camera'))
    assert message.header.frame_id == 'camera' and 'jpeg' in message.format
    assert np.abs(compressed_to_rgb(message).astype(int) - rgb).max() <= 4


def test_readme_lists_every_parameter_with_its_default():
    readme = Path(__file__).resolve().parents[1] / 'README.md'
    section = readme.read_text().split('## dar_camera')[1].split('\n## ')[0]
    listed = {}
    for names, defaults in re.findall(r'^\| (`.*?`) \| (`.*?`) \|', section, re.MULTILINE):
        listed.update(zip(re.findall(r'`(\w+)`', names), re.findall(r'`(.*?)`', defaults)))
    declared = {name: default for name, default, _ in PARAMETERS}
    del listed['source'], declared['source']  # a text, written without quotes
    assert {name: eval(text) for name, text in listed.items()} == declared
