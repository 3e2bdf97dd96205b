"""
Every backend that is present, side by side, each in a process of its own.

So memory is that backend's alone, and one that crashes takes nothing with it.
"""

import json
import sys
import time

import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.processes import figures
from dar_ros.benchmark.timing import interleaved, p50, resident_mb


def run(bench):
    """Measure all of BACKENDS in the precision that each takes by itself."""
    from dar_ros.backends import BACKENDS

    part, rows = Part(), []
    for name in BACKENDS:
        found = figures(__name__, name, bench.bundle.path, bench.rounds, bench.threads)
        part.data[name] = found
        if 'error' in found:
            rows.append((name, *5 * ('-',), found['error']))
        else:
            keys = ('encode_ms', 'steps_ms', 'finish_ms', 'open_seconds', 'memory_mb')
            rows.append((name, *(found[key] for key in keys), f'{found["agreement"]:.2%}'))
    columns = ('backend', 'encode ms', 'all steps ms', 'finish ms', 'open s', 'host memory MB')
    title = f'Backends present, {bench.bundle.name}, medians'
    part.tables.append((title, (*columns, 'agrees with the reference'), rows))
    return part


def main(name, model, rounds, threads):
    """Print the figures of one backend as JSON."""
    from dar_ros.backends import open_backend
    from dar_ros.bundle import open_bundle
    from dar_ros.console import say
    from dar_ros.errors import BackendError

    bundle, before, began = open_bundle(model), resident_mb(), time.perf_counter()
    try:
        backend = open_backend(bundle, name, threads=int(threads), progress=say)
    except BackendError as error:
        print(json.dumps({'error': str(error)}))
        return
    opened = time.perf_counter() - began
    reference = bundle.reference()
    image, near, far = (reference[key][0] for key in ('image', 'depth_min', 'depth_max'))
    calls = {
        'encode': lambda: backend.start(image, float(near), float(far)),
        'steps': lambda: [backend.step() for _ in range(bundle.num_steps)],
        'finish': backend.finish,
    }
    times = interleaved(calls, int(rounds))
    error = np.abs(backend.finish().depth - reference['depth'][-1]) / reference['depth'][-1]
    found = {f'{stage}_ms': round(p50(seconds) * 1000, 2) for stage, seconds in times.items()}
    found['open_seconds'] = round(opened, 2)
    found['memory_mb'] = round(resident_mb() - before, 1)
    found['agreement'] = float((error <= 0.01).mean())
    backend.close()
    print(json.dumps(found))


if __name__ == '__main__':
    main(*sys.argv[1:])
