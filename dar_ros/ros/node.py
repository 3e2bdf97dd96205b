"""
`dar_node`: images in, metric depth and points out; a lifecycle node that starts itself unless told
not to.

Callbacks only store the newest image; one thread converts, infers and publishes.
"""

import os
import sys
import threading
import time

import numpy as np
import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dar_ros.errors import BackendError, DarError, first_line
from dar_ros.ros import parameters
from dar_ros.ros.compressed import compressed_to_rgb
from dar_ros.ros.conversions import image_to_rgb, intrinsics_from_info, rectified_by, shape_warning
from dar_ros.ros.health import Health, diagnostics
from dar_ros.ros.lifecycle import refuse_wrong_transitions
from dar_ros.ros.memory import keep_freed_memory
from dar_ros.ros.outputs import OF_CALIBRATED, WITHOUT_NETWORK, Outputs
from dar_ros.ros.pairing import CameraInfos, other_camera
from dar_ros.ros.process import run_node
from dar_ros.ros.qos import sensor_data
from dar_ros.ros.rectification import Rectifier
from dar_ros.serving import Serving

INFO_PATIENCE = 2.0  # seconds for which a camera that announces camera_info may keep us waiting
INFERENCE = 'inference'  # the thread's name
IMAGE = {'raw': (Image, 'image'), 'compressed': (CompressedImage, 'image/compressed')}
THROTTLE = 5.0  # seconds between two log lines of one kind
# Seconds that the inference thread has to end in: `ros2 launch` kills after ten.
STOP_PATIENCE = 8.0


class DarNode(LifecycleNode):
    """See the module; parameters are in parameters.PARAMETERS, topics in outputs.TOPICS."""

    def __init__(self, **kwargs):
        super().__init__('dar', **kwargs)
        refuse_wrong_transitions(self)
        # First what destroy_node needs: a bad parameter leads straight there.
        self.serving, self.outputs, self.health = None, None, Health()
        self._worker, self._subscriptions_made, self._timer = None, [], None
        self._slot, self._wake = None, threading.Condition()
        self._stopping = self._busy = False  # whether the thread is told to end; is at a frame
        self._infos, self._info_awaited = CameraInfos(), None
        self.values = parameters.declare(self)
        parameters.check(self.values)
        self.add_on_set_parameters_callback(self._on_set)
        topic = self.resolve_topic_name(IMAGE[self.values['image_transport']][1])
        self._rectified_by = rectified_by(topic, self.values['image_rectified'])
        self._rectify = None
        if self.values['rectify'] and self._rectified_by:
            self.get_logger().warning(
                f'rectify is ignored: {topic} is rectified, by {self._rectified_by}'
            )
        elif self.values['rectify']:
            self._rectify = Rectifier()

    # Lifecycle

    def on_configure(self, state):
        """Load, verify and warm up; FAILURE with one line if the model is not to be served."""
        try:
            self.serving = Serving(
                *(self.values[name] for name in ('model', 'backend', 'precision')),
                threads=self.values['threads'] or None,
                progress=self._progress,
            )
            for note in self.serving.notes:
                if self.serving.note:  # two calls: each has one severity for good
                    self.get_logger().warning(note)
                else:
                    self.get_logger().info(note)
            parameters.check(self.values, self.serving.bundle)
            self.outputs = Outputs(self)
        except Exception as error:  # DarError, or what nobody thought of
            return self._failure(error, self._release)
        # Steady: diagnostics go on while simulated time stands still or jumps.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        bundle = self.serving.bundle
        self.get_logger().info(
            f'{bundle.name} on {self.serving.backend} in {self.serving.precision}, '
            f'{bundle.num_steps} steps at '
            f'{bundle.input_size[1]}x{bundle.input_size[0]}, '
            f'{bundle.depth_range[0]}-{bundle.depth_range[1]} m'
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        """Subscribe and start inferring; FAILURE with one line if that is not possible."""
        self._info_awaited, self.health = None, Health()
        self._stopping = self._busy = False
        try:
            self._subscribe()
        except Exception as error:  # a quality of service that does not exist, say
            return self._failure(error, self._stop_working)
        # A daemon: a GPU call that never returns must not keep the process from ending.
        self._worker = threading.Thread(target=self._work, name=INFERENCE, daemon=True)
        self._worker.start()
        return super().on_activate(state)

    def _subscribe(self):
        for kind, topic, callback in (
            (*IMAGE[self.values['image_transport']], self._on_image),
            (CameraInfo, 'camera_info', self._infos.add),
        ):
            subscription = self.create_subscription(
                kind,
                topic,
                callback,
                sensor_data(),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            self._subscriptions_made.append(subscription)

    def _failure(self, error, undo):
        """FAILURE, and one line in the log: rclpy would swallow the exception without a word."""
        if rclpy.ok(context=self.context):  # else a signal came, and that is no fault
            self.get_logger().error(first_line(error))
        undo()
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state):
        """Stop publishing, leave the camera alone; FAILURE while the backend does not return."""
        if not self._stop_working():
            return TransitionCallbackReturn.FAILURE
        return super().on_deactivate(state)

    def on_cleanup(self, state):
        """Free the model."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state):
        """Release everything, from any state; but not a backend that is still at work."""
        self._stop_listening()
        if self._stop_working(for_good=True):
            self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self):
        """Release everything first: the inference thread must not outlive what it publishes on."""
        self.on_shutdown(None)
        super().destroy_node()

    def on_error(self, state):
        """Fall back to unconfigured."""
        return self.on_shutdown(state)

    def _stop_working(self, for_good=False):
        """
        Whether the inference thread has ended, as it was told to. If not, all stays as it was and
        the node serves on once the backend returns, unless it is to end `for_good`.
        """
        if self._worker:
            with self._wake:
                self._stopping = True
                self._wake.notify()
            self._worker.join(STOP_PATIENCE)
            with self._wake:  # where the thread looks, too: it ends, or it goes on
                hangs = self._busy and self._worker.is_alive()
                self._stopping = for_good or not hangs
            if hangs:
                message = f'{self.serving.backend} has not returned for {STOP_PATIENCE:g} s'
                if rclpy.ok(context=self.context):
                    self.get_logger().error(f'{message}; deactivate again, or end the process')
                else:  # whose log is closed
                    print(f'{message}; the process ends without it', file=sys.stderr, flush=True)
                return False
            self._worker.join()
        self._stop_listening()
        self._worker, self._slot, self._stopping = None, None, False
        self._infos.clear()
        return True

    def _stop_listening(self):
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made = []

    def _progress(self, text):
        """Log a line about a build of minutes; end it where the node or the process is to end."""
        if self._stopping or not rclpy.ok(context=self.context):
            raise KeyboardInterrupt
        self.get_logger().info(text)

    def _release(self):
        if self._timer:
            self.destroy_timer(self._timer)
        if self.outputs:
            self.outputs.destroy()
        if self.serving:
            self.serving.close()
        self._timer, self.outputs, self.serving = None, None, None

    # Parameters

    def _on_set(self, updates):
        try:
            # One assignment: the inference thread sees all of a change or none of it.
            self.values = parameters.changed(
                self.values, updates, self.serving and self.serving.bundle
            )
        except DarError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # Input

    def _on_image(self, msg):
        self.health.image()
        with self._wake:
            if self._slot is not None:
                self.health.drop()
            self._slot = msg
            self._wake.notify()

    # Inference thread

    def _work(self):
        while True:
            with self._wake:
                self._busy = False
                self._wake.wait_for(lambda: self._slot is not None or self._stopping)
                if self._stopping:
                    return
                self._busy = True
                msg, self._slot = self._slot, None
            failed = ''
            try:
                self._process(msg)
            except BackendError as error:
                failed = str(error)
            except Exception as error:  # the node outlives any frame
                if not rclpy.ok(context=self.context):
                    return
                reason = first_line(error)
                self.health.refuse(reason)
                self.get_logger().error(f'frame lost: {reason}', throttle_duration_sec=THROTTLE)
            if failed:
                self.health.fail(failed)
                # A line of its own: throttled together, bad frames would hide a failing GPU.
                self.get_logger().error(f'frame lost: {failed}', throttle_duration_sec=THROTTLE)
                # Not while the exception is handled: its traceback keeps what failed alive, and
                # with it the memory that opening anew needs.
                try:
                    done = self.serving.recover(failed)
                except KeyboardInterrupt:  # of _progress; if it is still to end, it does so above
                    continue
                if done:
                    self.get_logger().warning(done)

    def _process(self, msg):
        began = time.perf_counter()
        wanted, values = self.outputs.wanted(), self.values
        if not wanted:
            return
        info, paired = self._infos.find(msg)
        if info is None and self._info_is_coming():
            return
        image = (
            compressed_to_rgb(msg)
            if values['image_transport'] == 'compressed'
            else image_to_rgb(msg)
        )
        size = image.shape[:2]
        intrinsics = None if info is None else intrinsics_from_info(info, size, self._rectified_by)
        warnings = self._camera_warnings(msg, info, paired, intrinsics, size)
        wanted -= OF_CALIBRATED if intrinsics is None else set()
        unseen = None
        if intrinsics is not None and self._rectify:
            image, unseen = self._rectify(image, info, intrinsics)
        rectified = self._rectified_by is not None or self._rectify is not None
        if wanted <= WITHOUT_NETWORK:  # it would run for nothing; warnings are told as ever
            if wanted:
                self.outputs.publish_info(msg.header, info, size, intrinsics, rectified)
            self.health.skip(warnings)
            self._warn(warnings)
            return
        decoded = time.perf_counter()
        settings = parameters.settings(values)
        frame = self.serving(image, intrinsics, settings, began)
        warnings += frame.warnings
        if unseen is not None:
            # Black there: what the network makes of it is no measurement.
            frame.depth[unseen] = frame.sigma[unseen] = np.nan
        before = time.perf_counter()
        _, depth_range = settings.resolve(self.serving.bundle)
        self.outputs.publish(
            wanted, frame, image, msg.header, info, rectified, values, depth_range
        )
        took = time.perf_counter() - before
        self.serving.record_publish(took)
        timings = {'decode': decoded - began, **frame.timings, 'publish': took}
        timings['total'] = time.perf_counter() - began
        self.health.frame(frame.steps, timings, warnings)
        self._warn(warnings)

    def _warn(self, warnings):
        if warnings:
            self.get_logger().warning('; '.join(warnings), throttle_duration_sec=THROTTLE)

    def _camera_warnings(self, image, info, paired, intrinsics, size):
        """Tell what is wrong with the camera_info of a frame that is served all the same."""
        if info is None:
            return ['no camera_info, so no cloud']
        if intrinsics is None:
            return ['the camera is uncalibrated (K is zero), so no cloud']
        warnings = []
        if not paired:
            warnings.append("no camera_info has the image's stamp: the latest is used")
        warnings += other_camera(info.header.frame_id, image.header.frame_id)
        warnings += shape_warning(info, size)
        if info.distortion_model == 'equidistant' and not (any(info.d) or self._rectified_by):
            warnings.append(
                'camera_info is equidistant with D of zeros: taken for a camera without '
                'distortion, as image_geometry does, and not for an ideal fisheye'
            )
        if any(info.d) and not self._rectify and not self._rectified_by:
            warnings.append(
                'the image is distorted; set rectify, or subscribe to a rectified image; or, if '
                'it is rectified already, set image_rectified'
            )
        return warnings

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

    def _publish_diagnostics(self):
        wanted = self.outputs.wanted()
        status = self.health.status(
            f'{self.get_fully_qualified_name()[1:]}: depth',
            self.serving.bundle.name,
            self.serving.backend,
            self.serving.precision,
            self.serving.note,
            self._worker is not None,
            bool(wanted),
            self.values['min_rate'] if wanted - WITHOUT_NETWORK else 0.0,
        )
        self.outputs.diagnostics.publish(diagnostics(self.get_clock().now().to_msg(), status))


def autostart(node):
    """Configure and activate, if the parameter says so; a failure leaves the node to a manager."""
    if node.values['autostart']:
        if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()


def main(args=None):
    """Run the node until Ctrl-C or SIGTERM; exit code 0 then, 1 if the backend hangs."""
    keep_freed_memory()
    code = run_node(DarNode, 'dar_node', args, autostart)
    if any(thread.name == INFERENCE for thread in threading.enumerate()):
        os._exit(1)  # it would hang in whatever the libraries tidy up
    return code


if __name__ == '__main__':
    sys.exit(main())
