"""Modules that are run in a process of their own, which may crash or hang, for what they print."""

import json
import subprocess
import sys


def answer(module, *arguments, patience, aloud=False):
    """
    Run `python -m MODULE ...` to its end; what it printed as JSON in its last line, or {'error':
    reason}, with 'late' where it took more than `patience` seconds. `aloud` lets its stderr be
    seen.
    """
    command = [sys.executable, '-m', module, *map(str, arguments)]
    errors = None if aloud else subprocess.PIPE
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=patience
        )
    except subprocess.TimeoutExpired as error:
        last = _last_line(error.stderr)  # of a build
        return {'error': f'no answer in {patience} s{last and f": {last}"}', 'late': True}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        how = f'killed by signal {-done.returncode}' if done.returncode < 0 else ''
        return {'error': how or _last_line(done.stderr) or f'exit code {done.returncode}'}


def _last_line(said):
    """Last line with anything in it of a text, of bytes (after a timeout, always) or of None."""
    text = said.decode(errors='replace') if isinstance(said, bytes) else said or ''
    return next((line for line in reversed(text.splitlines()) if line.strip()), '')
