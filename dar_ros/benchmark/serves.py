"""
`python -m dar_ros.benchmark.serves [MODEL]`: what serves a model here, as JSON.

The engines that it lacks are built meanwhile, and stderr is told of it: the parts, and the node
before all, have less patience than that takes. A process of its own: what it loads is no memory of
a part.
"""

import json
import sys

from dar_ros.backends import cuda
from dar_ros.errors import DarError
from dar_ros.pipeline import opened


def main(model=None):
    """Print {'backend', 'precision', 'library'}, and 'gpu' where it computes on one."""
    try:
        with opened(model) as pipeline:
            backend = pipeline.backend
            found = {name: getattr(backend, name) for name in ('precision', 'library')}
            if backend.on_gpu:
                found['gpu'] = cuda.find_gpu().name
            print(json.dumps({'backend': backend.name, **found}))
    except DarError as error:
        print(json.dumps({'error': str(error)}))


if __name__ == '__main__':
    main(*sys.argv[1:])
