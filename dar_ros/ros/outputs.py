"""The node's output topics: each is computed only while somebody listens to it."""

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dar_ros.postprocess import colorize, flying_pixels
from dar_ros.ros import conversions
from dar_ros.ros.qos import reliable

TOPICS = {
    'depth/image': Image,
    'depth/camera_info': CameraInfo,
    'depth/uncertainty': Image,
    'depth/points': PointCloud2,
    'depth/color': Image,
}
WITHOUT_NETWORK = {'depth/camera_info'}
OF_CALIBRATED = {'depth/points'}  # published only when the camera is calibrated
DIAGNOSTICS = {'/diagnostics': (DiagnosticArray, 10)}


class Outputs:
    """Publishers of TOPICS, reliable and keep-last-1, overridable by `qos_overrides`."""

    def __init__(self, node):
        self._node, self.diagnostics = node, None
        override = {'qos_overriding_options': QoSOverridingOptions.with_default_policies()}
        self._publishers = {}
        topics = {**{topic: (kind, 1) for topic, kind in TOPICS.items()}, **DIAGNOSTICS}
        try:
            for topic, (kind, depth) in topics.items():
                self._publishers[topic] = node.create_publisher(
                    kind, topic, reliable(depth), **override
                )
        except Exception:  # an override that does not exist: leave nothing behind
            self.destroy()
            raise
        self.diagnostics = self._publishers.pop('/diagnostics')

    def wanted(self):
        """Topics that somebody subscribes to."""
        return {
            topic
            for topic, publisher in self._publishers.items()
            if publisher.get_subscription_count()
        }

    def publish(self, wanted, frame, image, header, info, rectified, values, depth_range):
        """
        Publish the wanted views of a DepthFrame under the source's header.

        `info` is the source's CameraInfo or None, `values` the node's parameters. Without
        intrinsics there is no cloud.
        """
        size = frame.depth.shape
        messages = {}
        if 'depth/camera_info' in wanted:
            messages['depth/camera_info'] = conversions.info_for_depth(
                info, header, size, frame.intrinsics, rectified
            )
        if 'depth/image' in wanted:
            convert = (
                conversions.metres_to_image
                if values['depth_encoding'] == '32FC1'
                else conversions.metres_to_image16
            )
            messages['depth/image'] = convert(frame.depth, header)
        if 'depth/uncertainty' in wanted:
            messages['depth/uncertainty'] = conversions.metres_to_image(frame.sigma, header)
        if 'depth/color' in wanted:
            messages['depth/color'] = conversions.rgb_to_image(
                colorize(frame.depth, *depth_range), header
            )
        if 'depth/points' in wanted and frame.intrinsics is not None:
            messages['depth/points'] = conversions.cloud(
                frame.depth,
                frame.intrinsics,
                header,
                image if values['points_color'] else None,
                flying_pixels(frame.depth, values['edge_threshold']),
                values['points_stride'],
            )
        for topic, message in messages.items():
            self._publishers[topic].publish(message)

    def publish_info(self, header, info, size, intrinsics, rectified):
        """Publish the CameraInfo that a depth image of `size` (H, W) would have."""
        self._publishers['depth/camera_info'].publish(
            conversions.info_for_depth(info, header, size, intrinsics, rectified)
        )

    def destroy(self):
        """Remove the publishers from the graph."""
        for publisher in filter(None, (*self._publishers.values(), self.diagnostics)):
            self._node.destroy_publisher(publisher)
