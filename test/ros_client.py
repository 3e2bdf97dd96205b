"""What the tests of the node talk to it with: a camera and a subscriber over DDS."""

import array
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

PATIENCE = 60.0
ASK_AGAIN = 5.0  # seconds after which the answer of a service is taken for lost
SIZE = (120, 200)
FOCAL = 150.0
GOALS = {  # of a transition that succeeds
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
}
OUTPUTS = {
    'depth/image': Image,
    'depth/camera_info': CameraInfo,
    'depth/uncertainty': Image,
    'depth/points': PointCloud2,
    'depth/color': Image,
}


class Client:
    """
    A camera and a subscriber in this process; collects what the node publishes, by topic and
    stamp.
    """

    def __init__(self, topics=OUTPUTS, namespace=''):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(
            'test_client', context=self.context, namespace=namespace or None
        )
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.images = self.node.create_publisher(Image, 'image', 10)
        self.infos = self.node.create_publisher(CameraInfo, 'camera_info', 10)
        self.received, self.diagnostics, self.second = {}, [], 0
        self._services = {}  # (type, name): client; each new one would have to be discovered
        self._before_send = 0  # statuses that came before the last image was sent
        for topic, kind in topics.items():
            self.listen(topic, kind)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self.diagnostics.append, 10)

    def listen(self, topic, kind):
        self.received[topic] = {}
        return self.node.create_subscription(
            kind,
            topic,
            lambda msg: self.received[topic].update({msg.header.stamp.sec: msg}),
            qos_profile_sensor_data,
        )

    def spin_until(self, condition, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            if condition():
                return True
            self.executor.spin_once(timeout_sec=min(left, 0.05))
        return False

    def wait_for_node(self):
        assert self.spin_until(
            lambda: self.images.get_subscription_count() and self.infos.get_subscription_count()
        )
        assert self.spin_until(
            lambda: all(self.node.count_publishers(topic) for topic in self.received)
        )

    def status(self):
        """Return the last DiagnosticStatus as (level, message, {key: value})."""
        if not self.diagnostics:
            return None, '', {}
        status = self.diagnostics[-1].status[0]
        return status.level, status.message, {v.key: v.value for v in status.values}

    def sees(self, level, word, patience=PATIENCE):
        """Whether diagnostics come to say `word` at a level, after the last `send`."""

        def said():
            if len(self.diagnostics) <= self._before_send:
                return False  # else a node that serves nothing more is taken for one that does
            found, message, _ = self.status()
            return found == level and word in message

        return self.spin_until(said, patience)

    def send(self, rgb, encoding='rgb8', info=True, stamp=None, camera=None, **changes):
        """
        Publish an image (and its camera_info) with a stamp of its own; returns the stamp's
        seconds. `changes` are fields of the image, `camera` fields of the camera_info.
        """
        self.second += 1
        stamp = self.second if stamp is None else stamp
        height, width = rgb.shape[:2]
        msg = Image(
            height=height,
            width=width,
            encoding=encoding,
            step=rgb.strides[0],
            data=array.array('B', rgb.tobytes()),
        )
        msg.header.frame_id, msg.header.stamp.sec = 'eye', stamp
        for name, value in changes.items():
            setattr(msg, name, value)
        if info:
            fields = {
                'header': msg.header,
                'height': height,
                'width': width,
                'k': [FOCAL, 0.0, width / 2, 0.0, FOCAL, height / 2, 0.0, 0.0, 1.0],
                **(camera or {}),
            }
            self.infos.publish(CameraInfo(**fields))
            self.spin_until(lambda: False, 0.1)  # the info first, so that the pair is complete
        self._before_send = len(self.diagnostics)
        self.images.publish(msg)
        return stamp

    def told(self, rgb, level, word, attempts=20, **options):
        """Send the like of an image until diagnostics say `word` at a level; whether they did."""
        for _ in range(attempts):
            self.send(rgb, **options)
            if self.sees(level, word, 2.0):
                return True
        return False

    def ask(self, rgb, topics=('depth/image',), attempts=20, cloud=True, **options):
        """
        Send until every topic has answered that stamp; returns the messages.

        With camera_info, frames that were served before the first one had come do not count: they
        have no cloud. `cloud=False` for a camera_info that gives none.
        """
        awaited = {*topics, 'depth/points'} if cloud and options.get('info', True) else {*topics}
        awaited &= self.received.keys()
        for _ in range(attempts):
            stamp = self.send(rgb, **options)
            if self.spin_until(
                lambda s=stamp: all(s in self.received[topic] for topic in awaited), 3.0
            ):
                return [self.received[topic][stamp] for topic in topics]
        raise AssertionError(f'no answer on {topics}')

    def service(self, kind, name):
        """Return the client of a service that is there."""
        if (kind, name) not in self._services:
            self._services[kind, name] = self.node.create_client(kind, name)
        client = self._services[kind, name]
        assert self.spin_until(client.service_is_ready), f'no service {name}'
        return client

    def call(self, kind, name, request):
        """Ask a service, again where an answer got lost: the server may know our reader late."""
        client, futures, asked = self.service(kind, name), [], 0.0

        def answered():
            nonlocal asked
            if time.monotonic() - asked > ASK_AGAIN:
                futures.append(client.call_async(request))
                asked = time.monotonic()
            return any(future.done() for future in futures)

        assert self.spin_until(answered), f'no answer of {name}'
        return next(future.result() for future in futures if future.done())

    def set(self, **values):
        request = SetParametersAtomically.Request(
            parameters=[
                Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
            ]
        )
        return self.call(SetParametersAtomically, 'dar/set_parameters_atomically', request).result

    def transition(self, number):
        """
        Whether a transition succeeded. It is asked for once, for the second time would fail: where
        the answer got lost, the state says what became of it.
        """
        request = ChangeState.Request(transition=Transition(id=number))
        future = self.service(ChangeState, 'dar/change_state').call_async(request)
        if self.spin_until(future.done, ASK_AGAIN):
            return future.result().success
        # Answered when the transition is over: the node does one thing after the other.
        state = self.call(GetState, 'dar/get_state', GetState.Request()).current_state.id
        return future.result().success if future.done() else state == GOALS[number]

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def array_of(msg, dtype='<f4'):
    return np.frombuffer(msg.data, dtype).reshape(msg.height, msg.width)
