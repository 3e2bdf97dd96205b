"""Compressed, distorted and rectified cameras, over DDS."""

import array

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

from diagnostic_msgs.msg import DiagnosticStatus
from ros_client import FOCAL, SIZE, array_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dar_ros.geometry import Intrinsics, unproject


def test_compressed_images(start_process, client, rgb, pipeline):
    start_process('dar_ros.ros.node', '-p', 'image_transport:=compressed')
    camera = client.node.create_publisher(CompressedImage, 'image/compressed', 10)
    assert client.spin_until(camera.get_subscription_count)
    assert client.spin_until(lambda: client.node.count_publishers('depth/image'))
    for stamp, suffix in enumerate(('.png', '.jpg'), 1):
        data = cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]))[1]
        msg = CompressedImage(format=suffix[1:], data=array.array('B', data.tobytes()))
        msg.header.stamp.sec = stamp
        info = CameraInfo(header=msg.header, height=SIZE[0], width=SIZE[1])
        info.k = [FOCAL, 0.0, SIZE[1] / 2, 0.0, FOCAL, SIZE[0] / 2, 0.0, 0.0, 1.0]
        for _ in range(20):
            client.infos.publish(info)
            camera.publish(msg)
            if client.spin_until(lambda s=stamp: s in client.received['depth/points'], 3.0):
                break
        depth = array_of(client.received['depth/image'][stamp])
        seen = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        intrinsics = Intrinsics(FOCAL, FOCAL, SIZE[1] / 2, SIZE[0] / 2)
        expected = pipeline(np.ascontiguousarray(seen), intrinsics).depth
        assert np.allclose(depth, expected, rtol=1e-4, equal_nan=True)


def test_rectify(start_process, client, rgb, pipeline):
    """Depth is that of the straightened image, none where the camera did not look; and so is
    camera_info.
    """
    start_process('dar_ros.ros.node', '-p', 'rectify:=true')
    client.wait_for_node()
    d = [0.3, 0.0, 0.0, 0.0, 0.0]
    camera = {'distortion_model': 'plumb_bob', 'd': d}
    depth, info = client.ask(rgb, ('depth/image', 'depth/camera_info'), camera=camera)
    intrinsics = Intrinsics(FOCAL, FOCAL, SIZE[1] / 2, SIZE[0] / 2)
    distortion = np.array(d)
    expected = pipeline(cv2.undistort(rgb, intrinsics.matrix(), distortion), intrinsics).depth
    white = np.full_like(rgb, 255)
    unseen = cv2.undistort(white, intrinsics.matrix(), distortion)[..., 0] == 0
    found = array_of(depth)
    near = np.isclose(found, expected, rtol=0.05, equal_nan=True)
    assert unseen[0, 0] and np.isnan(found[unseen]).all() and not any(info.d)
    assert near[~unseen].mean() > 0.95
    # A frame of the same camera without calibration: not straightened, and nothing hidden.
    (depth,) = client.ask(rgb, cloud=False, camera={**camera, 'k': [0.0] * 9})
    assert not np.isnan(array_of(depth)).any()
    # The same camera seen straight: nothing is hidden.
    (depth,) = client.ask(rgb, camera={'d': [0.0] * 5, 'distortion_model': 'plumb_bob'})
    assert not np.isnan(array_of(depth)).any()
    assert client.told(rgb, DiagnosticStatus.OK, 'running', camera=camera)


@pytest.mark.parametrize(
    'topic, said, rectify',
    [('image_rect', 'auto', 'false'), ('image_rect', 'auto', 'true'), ('small', 'true', 'true')],
)
def test_a_rectified_image_is_of_p_whatever_the_lens(
    start_process, client, rgb, topic, said, rectify
):
    """
    image_proc's image_rect comes with the camera's own camera_info: D of the lens, and P. It is
    not straightened again. Under another name, as after a resize, somebody must say so.
    """
    options = ('-p', f'rectify:={rectify}', '-p', f'image_rectified:={said}')
    process = start_process('dar_ros.ros.node', '-r', f'image:={topic}', *options)
    client.images = client.node.create_publisher(Image, topic, 10)
    client.wait_for_node()
    focal = FOCAL * 0.9
    camera = {
        'distortion_model': 'plumb_bob',
        'd': [0.3, 0.0, 0.0, 0.0, 0.0],
        'p': [focal, 0.0, 99.0, 0.0, 0.0, focal, 61.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    cloud, depth, info = client.ask(
        rgb, ('depth/points', 'depth/image', 'depth/camera_info'), camera=camera
    )
    assert list(info.k) == [focal, 0.0, 99.0, 0.0, focal, 61.0, 0.0, 0.0, 1.0]
    assert not any(info.d) and list(info.p[:3]) == list(info.k[:3])
    points = np.frombuffer(cloud.data, '<f4').reshape(*SIZE, 4)[..., :3]
    expected = unproject(array_of(depth), Intrinsics(focal, focal, 99.0, 61.0))
    seen = np.isfinite(points[..., 2])
    assert seen.any() and np.allclose(points[seen], expected[seen], rtol=1e-5)
    assert client.told(rgb, DiagnosticStatus.OK, 'running', camera=camera)
    assert ('rectify is ignored' in process.log.read_text()) == (rectify == 'true')


def test_a_name_may_be_wrong(start_process, client, rgb):
    """A distorted image that is called image_rect: of K, told, and straightened if wanted."""
    options = ('-r', 'image:=image_rect', '-p', 'image_rectified:=false')
    start_process('dar_ros.ros.node', *options)
    client.images = client.node.create_publisher(Image, 'image_rect', 10)
    client.wait_for_node()
    camera = {
        'distortion_model': 'plumb_bob',
        'd': [0.3, 0.0, 0.0, 0.0, 0.0],
        'p': [99.0, 0.0, 99.0, 0.0, 0.0, 99.0, 61.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    (info,) = client.ask(rgb, ('depth/camera_info',), camera=camera)
    assert info.k[0] == FOCAL and info.d[0] == 0.3
    told = 'the image is distorted; set rectify, or'
    assert client.told(rgb, DiagnosticStatus.WARN, told, camera=camera)
    assert client.status()[1].endswith('if it is rectified already, set image_rectified')
