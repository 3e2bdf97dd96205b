"""
`python -m dar_ros.benchmark.probe FILE`: the node, noting when it began with which frame.

FILE receives JSON at the end: [[stamp, begin], ...] in seconds.
"""

import json
import sys
import time
from pathlib import Path

from dar_ros.ros.node import DarNode, autostart
from dar_ros.ros.process import run_node


class ProbedNode(DarNode):
    """DarNode as it is, with a note per frame."""

    def __init__(self, file):
        self._file, self._begun = Path(file), []
        super().__init__()

    def _process(self, msg):
        stamp = msg.header.stamp.sec + msg.header.stamp.nanosec * 1e-9
        self._begun.append((stamp, time.time()))
        super()._process(msg)

    def destroy_node(self):
        """Write the notes."""
        super().destroy_node()
        self._file.write_text(json.dumps(self._begun))


if __name__ == '__main__':
    sys.exit(run_node(lambda: ProbedNode(sys.argv[1]), 'dar_node', begin=autostart))
