"""The life of a ROS process with one node: start, spin, end."""

import signal
import sys

import rclpy

from dar_ros.errors import DarError, first_line
from dar_ros.ros.middleware import use_profile


def run_node(make, name, args=None, begin=None):
    """
    Spin the node that `make()` returns until Ctrl-C, SIGTERM or SystemExit; returns the exit code.

    `begin(node)` is called once before. The code is 0; or 1, with one line on stderr, if ROS's
    arguments are not understood or the node cannot be made.
    """
    use_profile()
    try:
        rclpy.init(args=args)
    except Exception as error:  # a params file that is no YAML, a remap without a name
        print(f'{name}: {first_line(error)}', file=sys.stderr)
        return 1
    node = None
    try:
        try:
            node = make()
            if begin:
                begin(node)
            rclpy.spin(node)
        except Exception as error:
            # A signal invalidates the context: whatever rclpy is doing then fails in its own way,
            # and the KeyboardInterrupt of the same Ctrl-C may come only here.
            if rclpy.ok():
                if not isinstance(error, DarError):
                    raise
                print(f'{name}: {error}', file=sys.stderr)
                return 1
    except (KeyboardInterrupt, SystemExit):
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # or only here, or from a second Ctrl-C
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
