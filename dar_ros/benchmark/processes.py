"""Processes of the benchmark: an isolated ROS domain, and what runs in it."""

import json
import subprocess
import sys
from contextlib import contextmanager

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
    """
    Run `python -m MODULE ...` to its end; what it printed as JSON in its last line. `aloud` lets
    its stderr be seen.

    {'error': reason} where there is none.
    """
    command = [sys.executable, '-m', module, *map(str, arguments)]
    try:
        errors = None if aloud else subprocess.PIPE
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=PATIENCE
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {'error': f'not done in {PATIENCE} s'}
    except (ValueError, IndexError):
        last = ((done.stderr or '').strip().splitlines() or ['no output'])[-1]
        return {'error': f'exit code {done.returncode}: {last}'}
