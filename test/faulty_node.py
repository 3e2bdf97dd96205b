"""
dar_node with backends that fail on purpose, run by test_faults.py as a script.

FAULTY is a list of NAME:N, best first: every N-th frame of that backend fails (0: none does), or,
where N is `hang`, its first frame never returns; where it is a path, not before that file exists;
where it is `missing`, the backend does not open. PATIENCE is the seconds that the node waits for
a frame's end, DRIVER whether there is an NVIDIA driver.
"""

import os
import sys
import time
import weakref

from dar_ros import backends
from dar_ros.errors import BackendError
from dar_ros.pipeline import WARM_UPS

REAL = backends._open
FAULTS = dict(part.split(':') for part in os.environ['FAULTY'].split(','))


class Memory:
    """What a backend holds while it is open, and a frame of it while it runs."""


class Faulty:
    """A real backend whose every N-th frame fails."""

    memories = []

    def __init__(self, name, inner, every):
        self.name, self._inner, self._every = name, inner, every
        self._images = -WARM_UPS
        if any(memory() for memory in self.memories):
            print('memory of what failed is still held', flush=True)
        self._memory = Memory()
        self.memories.append(weakref.ref(self._memory))

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def close(self):
        self._memory = None
        self._inner.close()

    def start(self, *arguments):
        in_use = self._memory
        self._images += 1
        if isinstance(self._every, str) and self._images > 0:
            print('hangs', flush=True)
            while not os.path.exists(self._every):
                time.sleep(0.05)
        elif self._every and self._images > 0 and self._images % self._every == 0:
            raise BackendError(f'{self.name}: fails on purpose')
        self._inner.start(*arguments)
        del in_use


def load(name, bundle, options):
    """Return the real CPU backend under a name of FAULTS."""
    if FAULTS[name] == 'missing':
        raise BackendError(f'{name} is missing')
    every = int(FAULTS[name]) if FAULTS[name].isdigit() else FAULTS[name]
    return Faulty(name, REAL('onnxruntime', bundle, options), every)


backends.BACKENDS, backends._open = tuple(FAULTS), load

backends.cuda.has_driver = lambda: bool(os.environ.get('DRIVER'))

from dar_ros.ros import node  # it reads BACKENDS

node.STOP_PATIENCE = float(os.environ.get('PATIENCE', node.STOP_PATIENCE))
sys.exit(node.main())
