"""
`dar_node`: images in, metric depth and points out; a lifecycle node that starts itself unless told
not to.

Callbacks only store the newest image; one thread converts, infers and publishes.
"""

import sys
import threading
import time
from collections import OrderedDict

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dar_ros.errors import BackendError, DarError, FrameError
from dar_ros.pipeline import open_pipeline
from dar_ros.ros import parameters
from dar_ros.ros.conversions import compressed_to_rgb, image_to_rgb, intrinsics_from_info
from dar_ros.ros.health import Health, diagnostics
from dar_ros.ros.memory import keep_freed_memory
from dar_ros.ros.outputs import Outputs
from dar_ros.ros.process import run_node
from dar_ros.ros.qos import sensor_data
from dar_ros.ros.rectification import Rectifier

INFOS_KEPT = 30  # camera_info messages kept for pairing by stamp
INFO_PATIENCE = 2.0  # seconds for which a camera that announces camera_info may keep us waiting
THROTTLE = 5.0  # seconds between two log lines of one kind


class DarNode(LifecycleNode):
    """See the module; parameters are in parameters.PARAMETERS, topics in outputs.TOPICS."""

    def __init__(self, **kwargs):
        super().__init__('dar', **kwargs)
        # First what destroy_node needs: a bad parameter leads straight there.
        self.pipeline, self.outputs, self.health = None, None, Health()
        self._worker, self._subscriptions_made, self._timer = None, [], None
        self._slot, self._wake, self._stopping = None, threading.Condition(), False
        self._infos, self._info_awaited = OrderedDict(), None
        self.values = parameters.declare(self)
        parameters.check(self.values)
        self.add_on_set_parameters_callback(self._on_set)
        self._rectify = Rectifier() if self.values['rectify'] else None

    # Lifecycle

    def on_configure(self, state):
        """Load, verify and warm up; FAILURE with one line if the model is not to be served."""
        try:
            self.pipeline = self._open()
            parameters.check(self.values, self.pipeline.bundle)
        except DarError as error:
            self.get_logger().error(str(error))
            self.pipeline = None
            return TransitionCallbackReturn.FAILURE
        self.outputs = Outputs(self)
        self._timer = self.create_timer(1.0, self._publish_diagnostics)
        bundle = self.pipeline.bundle
        self.get_logger().info(
            f'{bundle.name} on {self.pipeline.backend.name}, {bundle.num_steps} steps at '
            f'{bundle.input_size[1]}x{bundle.input_size[0]}, '
            f'{bundle.depth_range[0]}-{bundle.depth_range[1]} m'
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        """Subscribe and start inferring."""
        override = {'qos_overriding_options': QoSOverridingOptions.with_default_policies()}
        compressed = self.values['image_transport'] == 'compressed'
        self._info_awaited, self._stopping, self.health = None, False, Health()
        self._subscriptions_made = [
            self.create_subscription(
                CompressedImage if compressed else Image,
                'image/compressed' if compressed else 'image',
                self._on_image,
                sensor_data(),
                **override,
            ),
            self.create_subscription(
                CameraInfo, 'camera_info', self._on_info, sensor_data(), **override
            ),
        ]
        self._worker = threading.Thread(target=self._work, name='inference')
        self._worker.start()
        return super().on_activate(state)

    def on_deactivate(self, state):
        """Stop publishing and leave the camera alone."""
        self._stop_working()
        return super().on_deactivate(state)

    def on_cleanup(self, state):
        """Free the model."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state):
        """Release everything, from any state."""
        self._stop_working()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self):
        """Release everything first: the inference thread must not outlive what it publishes on."""
        self.on_shutdown(None)
        super().destroy_node()

    def on_error(self, state):
        """Fall back to unconfigured."""
        return self.on_shutdown(state)

    def _open(self):
        log = self.get_logger()
        pipeline = open_pipeline(
            *(self.values[name] for name in ('model', 'backend', 'precision')), progress=log.info
        )
        for note in pipeline.backend.notes:  # what was passed over for it, and why
            log.info(note)
        return pipeline

    def _stop_working(self):
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made = []
        if self._worker:
            with self._wake:
                self._stopping = True
                self._wake.notify()
            self._worker.join()
        self._worker, self._slot = None, None
        self._infos.clear()

    def _release(self):
        if self._timer:
            self.destroy_timer(self._timer)
        if self.outputs:
            self.outputs.destroy()
        if self.pipeline:
            self.pipeline.backend.close()
        self._timer, self.outputs, self.pipeline = None, None, None

    # Parameters

    def _on_set(self, updates):
        try:
            # One assignment: the inference thread sees all of a change or none of it.
            self.values = parameters.changed(
                self.values, updates, self.pipeline and self.pipeline.bundle
            )
        except DarError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # Input

    def _on_info(self, msg):
        stamp = (msg.header.stamp.sec, msg.header.stamp.nanosec)
        with self._wake:
            self._infos[stamp] = msg
            self._infos.move_to_end(stamp)
            while len(self._infos) > INFOS_KEPT:
                self._infos.popitem(last=False)

    def _on_image(self, msg):
        self.health.image()
        with self._wake:
            if self._slot is not None:
                self.health.drop()
            self._slot = msg
            self._wake.notify()

    def _info_for(self, msg):
        """Return the CameraInfo of the image's stamp, else the latest, else None."""
        stamp = (msg.header.stamp.sec, msg.header.stamp.nanosec)
        with self._wake:
            if stamp in self._infos or not self._infos:
                return self._infos.get(stamp)
            return next(reversed(self._infos.values()))

    # Inference thread

    def _work(self):
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._slot is not None or self._stopping)
                if self._stopping:
                    return
                msg, self._slot = self._slot, None
            try:
                self._process(msg)
            except FrameError as error:
                self._lost(str(error))
            except BackendError as error:
                self._lost(str(error), backend=True)
                self._reopen()
            except Exception as error:  # the node outlives any frame
                if not rclpy.ok(context=self.context):
                    return
                self._lost(
                    f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
                )

    def _process(self, msg):
        began = time.perf_counter()
        wanted, values, pipeline = self.outputs.wanted(), self.values, self.pipeline
        if not wanted:
            return
        info = self._info_for(msg)
        if info is None and self._info_is_coming():
            return
        image = (
            compressed_to_rgb(msg)
            if values['image_transport'] == 'compressed'
            else image_to_rgb(msg)
        )
        intrinsics = None if info is None else intrinsics_from_info(info, image.shape[:2])
        warnings = []
        if intrinsics is None:
            what = 'no camera_info' if info is None else 'the camera is uncalibrated (K is zero)'
            warnings.append(f'{what}: scale assumed, no cloud')
        elif self._rectify:
            image = self._rectify(image, info, intrinsics)
        elif any(info.d):
            warnings.append(
                'the image is distorted; set rectify, or subscribe to a rectified image'
            )
        decoded = time.perf_counter()
        settings = parameters.settings(values)
        frame = pipeline(image, intrinsics, settings)
        warnings += [text for text in frame.warnings if intrinsics is not None]
        before = time.perf_counter()
        _, depth_range = settings.resolve(pipeline.bundle)
        self.outputs.publish(
            wanted, frame, image, msg.header, info, bool(self._rectify), values, depth_range
        )
        now = time.perf_counter()
        timings = {
            'decode': decoded - began,
            **frame.timings,
            'publish': now - before,
            'total': now - began,
        }
        self.health.frame(frame.steps, timings, warnings)
        for text in warnings:
            self.get_logger().warning(text, throttle_duration_sec=THROTTLE)

    def _info_is_coming(self):
        """
        Whether a camera_info publisher exists whose first message may still come: depth of a
        guessed scale waits.
        """
        self._info_awaited = self._info_awaited or time.monotonic()  # since the first image
        return (
            time.monotonic() - self._info_awaited < INFO_PATIENCE
            and self.count_publishers(self.resolve_topic_name('camera_info')) > 0
        )

    def _lost(self, reason, backend=False):
        self.health.refuse(reason, backend)
        self.get_logger().error(f'frame lost: {reason}', throttle_duration_sec=THROTTLE)

    def _reopen(self):
        """Open the backend again, once per run of failures; a frame that succeeds ends the run."""
        try:
            pipeline = self._open()
        except DarError as error:
            self._lost(f'the backend does not open again: {error}', backend=True)
            return
        self.pipeline.backend.close()
        self.pipeline = pipeline

    def _publish_diagnostics(self):
        if self.outputs is None:
            return
        pipeline, active = self.pipeline, self._worker is not None
        status = self.health.status(
            f'{self.get_fully_qualified_name()[1:]}: depth',
            f'{pipeline.bundle.name}/{pipeline.backend.name}',
            active,
            bool(self.outputs.wanted()),
        )
        self.outputs.diagnostics.publish(diagnostics(self.get_clock().now().to_msg(), status))


def autostart(node):
    """Configure and activate, if the parameter says so; a failure leaves the node to a manager."""
    if node.values['autostart']:
        if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()


def main(args=None):
    """Run the node until Ctrl-C or SIGTERM; exit code 0 then."""
    keep_freed_memory()
    return run_node(DarNode, 'dar_node', args, autostart)


if __name__ == '__main__':
    sys.exit(main())
