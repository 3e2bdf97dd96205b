"""Processes of the benchmark: an isolated ROS domain, and what runs in it."""

import subprocess
import sys
from contextlib import contextmanager

from dar_ros.child import answer

STOP_PATIENCE = 15.0  # seconds
PATIENCE = 1800  # seconds for a part: an engine may have to be built first


@contextmanager
def started(module, *arguments):
    """Run `python -m MODULE ...` while the block lasts; SIGTERM ends it."""
    process = subprocess.Popen([sys.executable, '-m', module, *map(str, arguments)])
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def figures(module, *arguments, aloud=False):
    """Return what `python -m MODULE ...` found, see child.answer."""
    return answer(module, *arguments, patience=PATIENCE, aloud=aloud)
