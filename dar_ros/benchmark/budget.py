"""Whether frames end within their latency budget."""

import time

import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.timing import interleaved
from dar_ros.geometry import Intrinsics
from dar_ros.pipeline import DepthSettings, open_pipeline

FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)  # of the p95 of one step alone
SIZE = (480, 640)
TOLERANCE = 1.1


def run(bench):
    """`budget_met`: the least share of frames, over budgets, within the budget + 10 %."""
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    intrinsics = Intrinsics.from_fov(70, SIZE[1], SIZE[0])
    pipeline = open_pipeline(bench.model, threads=bench.threads)
    one = DepthSettings(num_steps=1)
    count = 8 * bench.rounds
    alone = interleaved({'one': lambda: pipeline(image, intrinsics, one)}, count)['one']
    least = float(np.quantile(alone, 0.95)) * 1000
    rows, shares = [], []
    for factor in FACTORS:
        settings = DepthSettings(latency_budget_ms=factor * least)
        # Each budget meets a pipeline as a user does: just opened.
        fresh = open_pipeline(bench.model, threads=bench.threads)
        times, steps = [], []
        for _ in range(count):
            before = time.perf_counter()
            frame = fresh(image, intrinsics, settings)
            times.append((time.perf_counter() - before) * 1000)
            steps.append(frame.steps)
        fresh.backend.close()
        shares.append(float(np.mean(np.array(times) <= TOLERANCE * settings.latency_budget_ms)))
        rows.append(
            (
                f'{factor} x',
                settings.latency_budget_ms,
                *(float(x) for x in np.quantile(times, (0.5, 0.95, 0.99))),
                float(np.mean(steps)),
                f'{shares[-1]:.3f}',
            )
        )
    pipeline.backend.close()
    table = (
        f'Latency budget, {SIZE[1]}x{SIZE[0]}, {count} frames each; 1 x is the p95 of one step',
        ('budget', 'ms', 'p50 ms', 'p95 ms', 'p99 ms', 'mean steps', 'within budget + 10 %'),
        rows,
    )
    return Part([table], {'budget_met': min(shares)})
