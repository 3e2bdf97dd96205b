"""The soak's judgement, and a short run of it; the long one is `make soak`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from dar_ros.geometry import Intrinsics
from dar_ros.ros import conversions
from dar_ros.ros.soak import consistent, process_state, report


def views(scale=1.0, stamp=1, fx=20.0):
    """Depth image, cloud and camera_info of one made-up frame."""
    header = Header()
    header.stamp.sec = stamp
    depth = np.random.default_rng(0).uniform(1, 4, (6, 8)).astype(np.float32) * np.float32(scale)
    depth[2, 3] = np.inf
    camera = Intrinsics(fx, 20.0, 4.0, 3.0)
    rgb = np.zeros((6, 8, 3), np.uint8)
    return (
        conversions.metres_to_image(depth, header),
        conversions.cloud(depth, camera, header, rgb),
        conversions.info_for_depth(CameraInfo(), header, (6, 8), camera, True),
    )


def test_views_of_one_frame_agree():
    assert consistent(*views())


@pytest.mark.parametrize('change', [{'scale': 1.1}, {'stamp': 2}, {'fx': 25.0}])
def test_views_of_two_frames_do_not(change):
    """Whichever of the three is another frame's, unless that view cannot show it."""
    for i in range(3):
        mixed = list(views())
        mixed[i] = views(**change)[i]
        told_by = {'scale': (0, 1), 'stamp': (0, 1, 2), 'fx': (1, 2)}[next(iter(change))]
        assert consistent(*mixed) == (i not in told_by)


def test_a_breach_is_a_failure(capsys):
    assert report([('a', 1.0, 2), ('b', 2, 2)]) == 0
    assert report([('a', 1.0, 2), ('b', 3, 2)]) == 1
    assert report([('a', float('nan'), 2)]) == 1
    assert 'BAD  b' in capsys.readouterr().out


def test_a_process_is_measured():
    memory, files, threads = process_state('self')
    assert memory > 5 and files >= 3 and threads >= 1


def test_a_short_run(ros_environment):
    if importlib.util.find_spec('mujoco') is None:
        pytest.skip('mujoco is not installed (extra: sim)')
    command = [sys.executable, '-m', 'dar_ros.ros.soak', '--minutes', '0.1', '--width', '320']
    run = subprocess.run(
        [*command, '--height', '240'],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'ok   frames that disagree' in run.stdout, run.stdout + run.stderr
    for row in ('exit code after Ctrl-C', 'frames refused', 'seconds with diagnostics'):
        assert f'ok   {row}' in run.stdout, run.stdout
    assert run.returncode == int('BAD' in run.stdout)
