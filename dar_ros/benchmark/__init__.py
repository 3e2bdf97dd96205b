"""
`dar benchmark`: what every stage takes, beside its floor and its peers, in one run.

Every part returns a Part; what it must reach is in CHECKS. Figures are medians over interleaved
rounds, so that a machine that slows down for a while slows both sides of a ratio.
"""

import platform
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

# name -> (the part that measures it, 'max' or 'min', limit)
CHECKS = {
    'decoder_cached_over_recompute': ('decoder', 'max', None),  # 1.15 x the computed FLOP ratio
    'edge_k5_over_dav2s': ('peers', 'max', 1.0),
    'edge_k2_over_dav2s': ('peers', 'max', 0.9),
    'node_overhead_over_floor': ('messages', 'max', 3.0),
    'tiny_k5_ms': ('stages', 'max', 50.0),
    'newest_frame_share': ('node', 'min', 0.99),
    'start_seconds': ('node', 'max', 2.0),
    'rss_growth_mb': ('endurance', 'max', 10.0),
    'budget_met': ('budget', 'min', 0.99),
}
PARTS = ('stages', 'backends', 'messages', 'budget', 'decoder', 'peers', 'node', 'endurance')
SERVED = ('stages', 'backends', 'budget', 'node')  # parts that measure the backend of `auto`
# What parts import once they run; asked for before the first, which is minutes earlier.
NEEDS = {
    'messages': ('rclpy',),
    'decoder': ('torch', 'onnxscript'),
    'peers': ('torch', 'onnxscript', 'transformers'),
    'node': ('rclpy',),
    'endurance': ('torch', 'onnxscript', 'rclpy'),
}


@dataclass
class Part:
    """What one part of the benchmark found."""

    tables: list = field(default_factory=list)  # (title, column names, rows)
    values: dict = field(default_factory=dict)  # check -> value
    limits: dict = field(default_factory=dict)  # check -> limit, where it is computed
    notes: list = field(default_factory=list)
    data: dict = field(default_factory=dict)  # further figures, for --json


@dataclass
class Bench:
    """What all parts share; `folder` is where exported graphs go."""

    folder: Path
    model: str = None  # bundle folder
    rounds: int = 50
    frames: int = 20000  # of the endurance run
    seconds: float = 10.0  # of every run of the node
    threads: int = 2  # of the CPU backends and of the peers

    @cached_property
    def bundle(self):
        """The bundle to measure."""
        from dar_ros.bundle import open_bundle

        return open_bundle(self.model)

    @cached_property
    def edge(self):
        """DAR with dar_edge's preset and random weights, and its bundle, exported as any model."""
        from dar_ros.benchmark.peers import random_model

        return random_model('dar_edge', self.folder / 'dar_edge')


def run(bench, only=(), progress=lambda text: None):
    """
    Run the parts named in `only` (all if empty).

    Returns {'machine', 'settings', 'parts': {name: Part}, 'checks': [{name, value, limit, ok}]}.
    ModuleNotFoundError, before anything is measured, if one of them needs what is not installed.
    """
    chosen = [name for name in PARTS if not only or name in only]
    for module in (module for name in chosen for module in NEEDS.get(name, ())):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f'no module named {module}', name=module)
    serves = {}
    if any(name in SERVED for name in chosen):
        from dar_ros.benchmark.processes import figures

        model = (bench.model,) if bench.model else ()
        found = figures('dar_ros.benchmark.serves', *model, aloud=True)
        serves = {} if 'error' in found else {'serves': found}  # the parts say what fails
    parts = {}
    for name in chosen:
        progress(name)
        parts[name] = import_module(f'dar_ros.benchmark.{name}').run(bench)
    return {
        'machine': {**machine(), **serves},
        'settings': {
            name: getattr(bench, name) for name in ('rounds', 'frames', 'seconds', 'threads')
        },
        'parts': parts,
        'checks': judge(parts),
    }


def judge(parts):
    """Compare what the parts measured with CHECKS."""
    result = []
    for name, (part, kind, limit) in CHECKS.items():
        if part not in parts:
            continue
        value = parts[part].values.get(name)
        limit = parts[part].limits.get(name, limit)
        measured = value is not None and limit is not None
        ok = measured and bool(value <= limit if kind == 'max' else value >= limit)
        result.append({'name': name, 'value': value, 'limit': limit, 'ok': ok})
    return result


def machine():
    """Return what the figures depend on."""
    import onnxruntime

    cpu = ''
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                cpu = line.partition(':')[2].strip()
                break
    except OSError:
        pass  # not Linux
    from dar_ros.benchmark.timing import cores

    return {
        'cpu': cpu or platform.processor() or platform.machine(),
        'cores': cores(),
        'python': platform.python_version(),
        'onnxruntime': onnxruntime.__version__,
    }


def working_folder():
    """Return a temporary folder for exported graphs."""
    return tempfile.TemporaryDirectory(prefix='dar_benchmark_')
