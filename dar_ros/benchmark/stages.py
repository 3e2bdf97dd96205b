"""Every stage of the pipeline, K = 1..5, and the copy that each stage cannot do without."""

import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.timing import copy_seconds, interleaved, p50, p50_p95, resident_mb
from dar_ros.console import say
from dar_ros.geometry import Intrinsics
from dar_ros.pipeline import DepthSettings, open_pipeline

VIEWS = {'640x480': (480, 640), '1280x720': (720, 1280)}


def run(bench):
    """Measure the line without ROS on the best backend: `tiny_k5_ms` at the network's own size."""
    before = resident_mb()
    pipeline = open_pipeline(bench.model, threads=bench.threads, progress=say)
    bundle, part = pipeline.bundle, Part()
    sizes = {'x'.join(map(str, bundle.input_size[::-1])): tuple(bundle.input_size), **VIEWS}
    part.data['resident_mb'] = round(resident_mb() - before, 1)
    frames = {name: [] for name in sizes}
    calls = {
        name: _call(pipeline, size, DepthSettings(), frames[name].append)
        for name, size in sizes.items()
    }
    totals = interleaved(calls, bench.rounds)
    own = next(iter(sizes))
    part.values['tiny_k5_ms'] = round(p50(totals[own]) * 1000, 2)
    rows = []
    for stage in frames[own][0]:
        moved = [_bytes_moved(stage, bundle, size) for size in sizes.values()]
        times = [p50_p95([f[stage] for f in frames[name][-bench.rounds :]]) for name in sizes]
        cells = [
            f'{_pair(pair)}' + (f' ({floor:.2f})' if (floor := _floor_ms(count)) else '')
            for pair, count in zip(times, moved)
        ]
        rows.append((stage, *cells, *([f'{moved[1] / 1e6:.2f}'] if moved[1] else ['-'])))
    rows.append(('**total**', *(_pair(p50_p95(totals[name])) for name in sizes), ''))
    part.tables.append(
        (
            f'Stages of {bundle.name} on {pipeline.backend.name}, p50 / p95 ms (floor: a copy of '
            'the bytes)',
            ('stage', *sizes, 'MB moved at 640x480'),
            rows,
        )
    )
    part.tables.append(_by_steps(pipeline, sizes['640x480'], bench.rounds))
    part.notes.append(
        f'Memory of bundle and backend: {part.data["resident_mb"]} MB. preprocess, encode and the '
        'first steps of the total also hold what the pipeline does between them.'
    )
    pipeline.backend.close()
    return part


def _call(pipeline, size, settings, keep=lambda timings: None):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    intrinsics = Intrinsics.from_fov(70, size[1], size[0])
    return lambda: keep(pipeline(image, intrinsics, settings).timings)


def _by_steps(pipeline, size, rounds):
    bundle = pipeline.bundle
    steps = range(1, bundle.num_steps + 1)
    times = interleaved(
        {k: _call(pipeline, size, DepthSettings(num_steps=k)) for k in steps}, rounds
    )
    rows = [(k, *p50_p95(times[k]), 1 / p50(times[k])) for k in steps]
    return (f'{bundle.name}: steps taken, 640x480', ('K', 'p50 ms', 'p95 ms', 'Hz'), rows)


def _bytes_moved(stage, bundle, size):
    """
    Bytes that a stage must read and write once, whatever computes it; 0 where it computes only.
    """
    pixels, network = size[0] * size[1], bundle.input_size[0] * bundle.input_size[1]
    return {
        'preprocess': 3 * (pixels + network),  # RGB
        'upsample': 9 * network,  # depth, scale: float32; class: uint8
        'postprocess': 9 * network + 8 * pixels,  # those in; depth, sigma: float32 out
    }.get(stage, 0)


def _floor_ms(count):
    # A copy of n bytes reads n and writes n: half of what is read and written.
    return copy_seconds(count // 2, 20) * 1000 if count else 0.0


def _pair(times):
    return f'{times[0]:.2f} / {times[1]:.2f}'
