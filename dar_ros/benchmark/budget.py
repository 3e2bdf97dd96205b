"""Whether frames end within their latency budget."""

import time
from collections import deque

import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.timing import WARM_UPS
from dar_ros.console import say
from dar_ros.geometry import Intrinsics
from dar_ros.pipeline import DepthSettings, open_pipeline

FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)  # of the p95 of one step alone
SIZE = (480, 640)
TOLERANCE = 1.1
FRAMES_PER_ROUND = 32
RECENT = 100  # frames of one step whose p95 is the unit of the budgets


def run(bench):
    """
    `budget_met`: the least share of frames, over budgets, within the budget + 10 %.

    At least one step is always taken, so a late frame counts only as far as frames of one step
    alone, taken in turns with it, are late less often: on a machine with a heavy tail, 2 in 100 of
    those miss their own p95 + 10 %, and no scheduler can help it. For the same reason the backend
    leaves one of the threads free: what else wakes up does not stop it then.
    """
    threads = max(1, bench.threads - 1)
    alone, frames = _in_turns(bench, threads)
    rows, met = [], []
    alone_time, alone_budget = np.array(alone).T
    for factor, taken in frames.items():
        times, steps, budgets = np.array(taken).T
        within, alone_within = kept(times, budgets), kept(alone_time, factor * alone_budget)
        met.append(1 - max(0.0, alone_within - within))
        rows.append(
            (
                f'{factor} x',
                float(budgets.mean()),
                *(float(x) for x in np.quantile(times, (0.5, 0.95, 0.99))),
                float(steps.mean()),
                f'{within:.3f}',
                f'{alone_within:.3f}',
            )
        )
    table = (
        f'Latency budget, {SIZE[1]}x{SIZE[0]}, {threads} of {bench.threads} threads, '
        f'{len(alone)} frames each; 1 x is the p95 of one step',
        (
            'budget',
            'ms',
            'p50 ms',
            'p95 ms',
            'p99 ms',
            'mean steps',
            'within budget + 10 %',
            'one step alone',
        ),
        rows,
    )
    return Part([table], {'budget_met': min(met)})


def _in_turns(bench, threads):
    """
    Take frames of one step alone, and of every budget, which follows what those last took.

    Returns [(ms of one step alone, its p95 until then)] and {factor: [(ms, steps, budget)]}.
    """
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    intrinsics = Intrinsics.from_fov(70, SIZE[1], SIZE[0])

    def opened():
        return open_pipeline(bench.model, threads=threads, progress=say)

    def take(pipeline, settings):
        before = time.perf_counter()
        frame = pipeline(image, intrinsics, settings)
        return (time.perf_counter() - before) * 1000, frame.steps

    alone = opened()
    # Each budget meets a pipeline as a user does: just opened.
    pipelines = {factor: opened() for factor in FACTORS}
    one, frames = DepthSettings(num_steps=1), {factor: [] for factor in FACTORS}
    unit = []
    alone_times = deque((take(alone, one)[0] for _ in range(WARM_UPS + RECENT)), RECENT)
    for _ in range(FRAMES_PER_ROUND * bench.rounds):  # all see the same machine, which drifts
        least = float(np.quantile(alone_times, 0.95))
        alone_times.append(take(alone, one)[0])
        unit.append((alone_times[-1], least))
        for factor, pipeline in pipelines.items():
            settings = DepthSettings(latency_budget_ms=factor * least)
            frames[factor].append((*take(pipeline, settings), factor * least))
    for pipeline in (alone, *pipelines.values()):
        pipeline.backend.close()
    return unit, frames


def kept(times, budgets):
    """Share of times (n,) within their budgets (n,) + 10 %."""
    return float(np.mean(times <= TOLERANCE * budgets))
