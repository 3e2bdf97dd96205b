"""What the node decides by itself, its surroundings played: who waits, what is wanted."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

from sensor_msgs.msg import Image

from dar_ros.ros import node as module
from dar_ros.ros import pairing
from dar_ros.ros.node import DarNode
from dar_ros.ros.outputs import TOPICS, Outputs

LAUNCH_KILLS = 10.0  # seconds after Ctrl-C: launch's sigterm_timeout and sigkill_timeout


def test_a_topic_that_nobody_hears_is_not_wanted():
    """Whoever listens to depth alone pays for no cloud and no colours."""
    heard = set()

    def publisher(kind, topic, *_, **__):
        return SimpleNamespace(get_subscription_count=lambda: int(topic in heard))

    outputs = Outputs(SimpleNamespace(create_publisher=publisher))
    for topics in (set(), {'depth/image'}, {'depth/points', 'depth/color'}, set(TOPICS)):
        heard = topics
        assert outputs.wanted() == topics


def test_a_camera_info_that_is_announced_is_waited_for_two_seconds(monkeypatch):
    now, announced = [100.0], [1]
    monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    node = SimpleNamespace(
        _info_awaited=None, resolve_topic_name=str, count_publishers=lambda _: announced[0]
    )
    assert DarNode._info_is_coming(node)
    now[0] += 1.9
    assert DarNode._info_is_coming(node)
    now[0] += 0.2
    assert not DarNode._info_is_coming(node)
    node._info_awaited, announced[0] = None, 0
    assert not DarNode._info_is_coming(node)


def test_waits_are_what_the_documents_say():
    assert pairing.PATIENCE == 0.03 and module.STOP_PATIENCE == 8.0 < LAUNCH_KILLS


def test_the_latency_budget_counts_decoding_and_publishing(monkeypatch):
    """From the moment that the image is taken: what a robot waits for."""
    seen = SimpleNamespace(published=[])

    def serve(image, intrinsics, settings, began):
        seen.began = began
        frame = SimpleNamespace(depth=np.ones((4, 6)), warnings=(), timings={}, steps=1)
        return frame

    def decode(msg):
        seen.decoding = time.perf_counter()
        time.sleep(0.01)
        return np.zeros((4, 6, 3), np.uint8)

    serve.record_publish, serve.bundle = seen.published.append, None
    settings = SimpleNamespace(resolve=lambda bundle: (1, (0.1, 20.0)))
    monkeypatch.setattr(module, 'image_to_rgb', decode)
    monkeypatch.setattr(module.parameters, 'settings', lambda values: settings)
    outputs = SimpleNamespace(wanted=lambda: {'depth/image'}, publish=lambda *_: time.sleep(0.01))
    timings = {}
    node = SimpleNamespace(
        outputs=outputs,
        values={'image_transport': 'raw'},
        serving=serve,
        health=SimpleNamespace(frame=lambda steps, stages, warnings: timings.update(stages)),
        _infos=SimpleNamespace(find=lambda msg: (None, True)),
        _info_is_coming=lambda: False,
        _rectified_by=None,
        _rectify=None,
        _camera_warnings=lambda *_: [],
        _warn=lambda warnings: None,
    )
    DarNode._process(node, Image())
    assert seen.began <= seen.decoding
    assert len(seen.published) == 1 and seen.published[0] >= 0.01
    assert timings['decode'] >= 0.01 and timings['publish'] >= 0.01
    assert timings['total'] >= timings['decode'] + timings['publish']
