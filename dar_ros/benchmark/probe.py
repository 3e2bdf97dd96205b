"""
`python -m dar_ros.benchmark.probe FILE`: the node, noting what it was given and what it took.

FILE receives JSON at the end, times in seconds: received, [[stamp, when the middleware had it]],
and begun, [[stamp, when its processing began]].
"""

import json
import sys
import time
from pathlib import Path

from dar_ros.ros.memory import keep_freed_memory
from dar_ros.ros.node import DarNode, autostart
from dar_ros.ros.process import run_node


class ProbedNode(DarNode):
    """DarNode as it is, with a note per image."""

    def __init__(self, file):
        self._file, self._notes = Path(file), {'received': [], 'begun': []}
        super().__init__()

    def _on_image(self, msg, info):
        # Two arguments: rclpy then tells when the middleware received the message.
        self._notes['received'].append((stamp_of(msg), info['received_timestamp'] * 1e-9))
        super()._on_image(msg)

    def _process(self, msg):
        self._notes['begun'].append((stamp_of(msg), time.time()))
        super()._process(msg)

    def destroy_node(self):
        """Write the notes."""
        super().destroy_node()
        self._file.write_text(json.dumps(self._notes))


def stamp_of(message):
    """Stamp of a message's header, seconds."""
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


if __name__ == '__main__':
    keep_freed_memory()
    sys.exit(run_node(lambda: ProbedNode(sys.argv[1]), 'dar_node', begin=autostart))
