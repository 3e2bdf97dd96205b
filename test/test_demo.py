"""A short run of `make demo`: camera, node and viewer over DDS, and the pictures it writes."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

from dar_ros.ros.middleware import lacking_room, profile_listens_everywhere, shipped_profile

ROOT = Path(__file__).resolve().parents[1]
# The pictures go elsewhere: those in demo/ are the user's.
DEMO = """
import sys
from pathlib import Path
from dar_ros.ros import demo
demo.ROOT = Path(sys.argv[1])
sys.exit(demo.main())
"""


def run(seconds, folder, environment):
    """Run the demo; returns what it printed, the scenes of that and their pictures."""
    demo = subprocess.Popen(
        [sys.executable, '-c', DEMO, folder],
        cwd=ROOT,
        env={**environment, 'DEMO_SECONDS': str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its processes can be ended with it
    )
    try:
        said, _ = demo.communicate(timeout=280)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(demo.pid, signal.SIGKILL)
    assert demo.returncode == 0, said
    pictures = {
        scene: [cv2.imread(str(path)) for path in (folder / 'demo').glob(f'{scene}_*.png')]
        for scene in re.findall(r'^(\w+): \d+ frames', said, re.MULTILINE)
    }
    return said, pictures


def test_a_short_demo_writes_pictures(ros_environment, tmp_path):
    """Of the simulated room, and of the real frames where their package is installed."""
    if importlib.util.find_spec('mujoco') is None:
        pytest.skip('mujoco is not installed (extra: sim)')
    if profile_listens_everywhere():  # and without it images get lost
        pytest.skip('no profile is read in Humble with ROS_LOCALHOST_ONLY=1')
    reason = lacking_room(shipped_profile(), processes=3)
    if reason:
        pytest.skip(reason)
    for seconds in (4, 30):  # the latter where a busy machine has no picture in so short a time
        said, pictures = run(seconds, tmp_path, ros_environment)
        if all(pictures.values()):
            break
    real = importlib.util.find_spec('stereodemo') is not None
    assert list(pictures) == (['oakd', 'room'] if real else ['room']), said
    for scene in pictures:
        assert pictures[scene], said
        for picture in pictures[scene]:  # four tiles of 480 columns, each below its name
            assert picture.shape[0] > 300 and picture.shape[1] == 4 * 480 and picture.std() > 20
