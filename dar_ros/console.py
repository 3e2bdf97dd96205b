"""What is said on the terminal."""

import json
import sys


def say(text):
    """Print a line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def print_json(data):
    """Print one JSON object."""
    print(json.dumps(data))
