"""
Whether memory grows: many frames through everything that the node does with a frame.

Image message -> RGB -> pipeline -> all five output messages, as fast as they go, in a process
without DDS. The network is dar_tiny's with random weights at a small input, the image sizes
change, the steps vary: what could leak is the same code, and the frames are many.
"""

import gc
import json
import sys
import time

import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.processes import figures
from dar_ros.benchmark.timing import resident_mb
from dar_ros.geometry import Intrinsics
from dar_ros.pipeline import DepthSettings, open_pipeline

SMALL = (64, 96)
SIZES = ((120, 160), (96, 128))
SETTLED = 0.05  # share of the frames after which memory must stay: 1,000 of 20,000
SAMPLES = 20  # readings of memory in a run


def run(bench):
    """`rss_growth_mb`: the highest memory after the first twentieth, less what it was there."""
    # A process of its own: what the export freed in this one would hide what a leak takes.
    found = figures(__name__, small_bundle(bench), bench.frames, bench.threads)
    if 'error' in found:
        return Part(notes=[f'endurance: {found["error"]}'])
    base, *later = [memory for _, memory in found['readings']]
    part = Part(data=found)
    part.values['rss_growth_mb'] = round(max(later, default=base) - base, 2)
    title = f'Memory over {bench.frames} frames, {bench.frames / found["seconds"]:.0f} a second'
    readings = [(number, round(memory, 1)) for number, memory in found['readings']]
    part.tables.append((title, ('frame', 'MB'), [readings[0], *readings[1::5], readings[-1]]))
    return part


def main(model, frames, threads):
    """Process frames and print {'seconds', 'readings': [[frame, MB], ...]} as JSON."""
    from dar_ros.ros.memory import keep_freed_memory

    keep_freed_memory()  # as the node does
    frames = int(frames)
    pipeline = open_pipeline(model, 'onnxruntime', threads=int(threads))
    process = _processor(pipeline)
    settled = max(1, int(SETTLED * frames))
    every = max(1, frames // SAMPLES)
    readings, began = [], time.monotonic()
    for number in range(1, frames + 1):
        process(number)
        if number == settled or number > settled and number % every == 0:
            gc.collect()
            readings.append((number, resident_mb()))
    print(json.dumps({'seconds': time.monotonic() - began, 'readings': readings}))


def small_bundle(bench):
    """Export dar_tiny's network with random weights at a small input; returns the folder."""
    from dataclasses import replace

    import torch

    from dar_ros.export import export_model
    from dar_ros.model.dar import DAR
    from dar_ros.model.presets import preset

    torch.manual_seed(0)
    model = DAR(replace(preset('dar_tiny'), input_size=SMALL))
    return export_model(model, bench.folder / 'small').path


def _processor(pipeline):
    """Return a function that takes the n-th frame from message to messages."""
    from std_msgs.msg import Header

    from dar_ros.postprocess import EDGE_THRESHOLD, colorize, flying_pixels
    from dar_ros.ros import conversions

    random, header = np.random.default_rng(0), Header(frame_id='camera')
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    messages = [conversions.rgb_to_image(image, header) for image in images]
    near, far = pipeline.bundle.depth_range

    def process(number):
        message = messages[number // 500 % len(messages)]
        image = conversions.image_to_rgb(message)
        intrinsics = Intrinsics.from_fov(70, message.width, message.height)
        settings = DepthSettings(num_steps=1 + number % pipeline.bundle.num_steps)
        frame = pipeline(image, intrinsics, settings)
        conversions.info_for_depth(None, header, frame.depth.shape, intrinsics)
        conversions.metres_to_image(frame.depth, header)
        conversions.metres_to_image(frame.sigma, header)
        conversions.rgb_to_image(colorize(frame.depth, near, far), header)
        flying = flying_pixels(frame.depth, EDGE_THRESHOLD)
        conversions.cloud(frame.depth, intrinsics, header, image, flying)

    return process


if __name__ == '__main__':
    main(*sys.argv[1:])
