"""What the node decides by itself, its surroundings played: who waits, what is wanted."""

import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

import rclpy
from sensor_msgs.msg import Image

from dar_ros.pipeline import DepthFrame
from dar_ros.ros import node as module
from dar_ros.ros import pairing
from dar_ros.ros.node import DarNode
from dar_ros.ros.outputs import TOPICS, Outputs

ROOT = Path(__file__).resolve().parents[1]
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
    text = (ROOT / 'docs' / 'reliability.md').read_text()
    assert re.findall(r'waits (\d+) ms for it', text) == [f'{1000 * pairing.PATIENCE:g}']
    stops = re.findall(r'after (\d+) s (?:and may be tried again|with code 1)', text)
    assert stops == [f'{module.STOP_PATIENCE:g}'] * 2
    assert module.STOP_PATIENCE < LAUNCH_KILLS


@pytest.fixture
def dar_node(ros_environment):
    """Return a DarNode in this process, not configured."""
    rclpy.init()
    made = DarNode()
    yield made
    made.destroy_node()
    rclpy.shutdown()


def test_the_latency_budget_counts_decoding_and_publishing(dar_node, bundle, monkeypatch):
    """From the moment that the image is taken: what a robot waits for."""
    seen, timings = SimpleNamespace(published=[]), {}

    def serve(image, intrinsics, settings, began):
        seen.began = began
        return DepthFrame(np.ones((4, 6)), np.ones((4, 6)), None, 1)

    def decode(msg):
        seen.decoding = time.perf_counter()
        time.sleep(0.01)
        return np.zeros((4, 6, 3), np.uint8)

    monkeypatch.setattr(module, 'image_to_rgb', decode)
    serve.record_publish, serve.bundle, serve.close = seen.published.append, bundle, list
    dar_node.serving = serve
    dar_node.outputs = SimpleNamespace(
        wanted=lambda: {'depth/image'}, publish=lambda *_: time.sleep(0.01), destroy=list
    )
    dar_node.health.frame = lambda steps, stages, warnings: timings.update(stages)
    dar_node._process(Image())
    assert seen.began <= seen.decoding
    assert len(seen.published) == 1 and seen.published[0] >= 0.01
    assert timings['decode'] >= 0.01 and timings['publish'] >= 0.01
    assert timings['total'] >= timings['decode'] + timings['publish']
