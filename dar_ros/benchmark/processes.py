"""Processes of the benchmark: an isolated ROS domain, and what runs in it."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from dar_ros.ros.middleware import profile_variable

ROOT = Path(__file__).resolve().parents[2]
STOP_PATIENCE = 15.0  # seconds
PATIENCE = 1800  # seconds for a part: an engine may have to be built first


def isolate():
    """Keep the topics on this machine, and give Fast DDS a segment that holds images."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(100 + os.getpid() % 100))
    profile = ROOT / 'config' / 'fastdds.xml'
    if profile.exists():
        os.environ.setdefault(profile_variable(), str(profile))


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


def figures(module, *arguments):
    """
    Run `python -m MODULE ...` to its end; what it printed as JSON in its last line.

    {'error': reason} where there is none.
    """
    command = [sys.executable, '-m', module, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {'error': f'not done in {PATIENCE} s'}
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ['no output'])[-1]
        return {'error': f'exit code {done.returncode}: {last}'}
