"""
dar_node that prints the bytes in use after every cleanup, run by test_faults.py as a script.

LEAK is what it keeps of each round on purpose, in bytes: whether the test would see that.
"""

import ctypes
import gc
import os
import sys

from dar_ros.ros import node

KEPT, LEAK = [], int(os.environ.get('LEAK', 0))


class MallInfo(ctypes.Structure):
    """Struct mallinfo2 of malloc.h (glibc 2.33), of all arenas."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd'),
            *('usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost'),
        )
    ]


class MeasuredNode(node.DarNode):
    """Memory in use, not resident: what glibc keeps of freed memory depends on where holes lie."""

    def on_cleanup(self, state):
        """Clean up, then tell."""
        result = super().on_cleanup(state)
        KEPT.append(os.urandom(LEAK))
        gc.collect()
        mallinfo2 = ctypes.CDLL(None).mallinfo2
        mallinfo2.restype = MallInfo
        info = mallinfo2()
        print('in use:', info.uordblks + info.hblkhd, flush=True)
        return result


node.DarNode = MeasuredNode
sys.exit(node.main())
