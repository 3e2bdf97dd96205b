"""A node ends cleanly wherever Ctrl-C or SIGTERM finds it."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

import rclpy
from ros_client import PATIENCE


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ends_cleanly(node, client, rgb, number):
    client.ask(rgb)
    node.send_signal(number)
    assert node.wait(30) == 0
    assert 'Traceback' not in node.log.read_text()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('module', ['dar_ros.ros.node', 'dar_ros.ros.camera'])
def test_a_signal_at_any_moment_ends_cleanly(start_process, tmp_path, module, number):
    """From the moment that rclpy handles signals on, whatever is being built then."""
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((20, 30, 3), np.uint8))
    source = ['-p', f'source:={tmp_path}'] if module.endswith('camera') else []
    for delay in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6):
        process = start_process(module, *source)
        wait_for_signal_handler(process)
        time.sleep(delay)
        process.send_signal(number)
        assert process.wait(30) == 0, f'{delay} s: {process.log.read_text()}'


def test_a_signal_while_a_node_is_destroyed_ends_cleanly(start_process, tmp_path):
    """A second Ctrl-C, or the KeyboardInterrupt of the first where it comes late."""
    script = tmp_path / 'impatient.py'
    script.write_text(
        'import signal, sys\n'
        'from rclpy.node import Node\n'
        'from dar_ros.ros.process import run_node\n'
        'class Impatient(Node):\n'
        '    def destroy_node(self):\n'
        '        signal.raise_signal(signal.SIGINT)\n'
        '        super().destroy_node()\n'
        '        print("destroyed")\n'
        'def interrupt(node):\n'
        '    signal.raise_signal(signal.SIGINT)\n'
        'sys.exit(run_node(lambda: Impatient("impatient"), "impatient", begin=interrupt))\n'
    )
    process = start_process(str(script))
    assert process.wait(30) == 0, process.log.read_text()
    # rclpy may say before it that an executor it could not make is not there to be destroyed.
    assert process.log.read_text().endswith('destroyed\n')


def wait_for_signal_handler(process):
    """Wait until the process catches SIGTERM: rclpy does, Python alone does not."""
    deadline = time.monotonic() + PATIENCE
    bit = 1 << (signal.SIGTERM - 1)
    while time.monotonic() < deadline:
        status = Path(f'/proc/{process.pid}/status').read_text()
        if int(status.split('SigCgt:')[1].split()[0], 16) & bit:
            return
        time.sleep(0.01)
    raise AssertionError(f'no signal handler: {process.log.read_text()}')


def test_a_build_ends_with_the_process():
    """SIGTERM only shuts the context down: the next line about a build of minutes ends it."""
    from dar_ros.ros.node import DarNode

    context, lines = rclpy.Context(), []
    node = SimpleNamespace(
        context=context, get_logger=lambda: SimpleNamespace(info=lines.append), _stopping=False
    )
    rclpy.init(context=context)
    DarNode._progress(node, 'half')
    rclpy.shutdown(context=context)
    with pytest.raises(KeyboardInterrupt):
        DarNode._progress(node, 'more')
    assert lines == ['half']


def test_a_build_ends_with_a_deactivation():
    from dar_ros.ros.node import DarNode

    context = rclpy.Context()
    rclpy.init(context=context)
    with pytest.raises(KeyboardInterrupt):
        DarNode._progress(SimpleNamespace(context=context, _stopping=True), 'half')
    rclpy.shutdown(context=context)
