"""`dar evaluate`: a bundle, through the pipeline, against a data set's true depth."""

import numpy as np
from tqdm import tqdm

from dar_ros.datasets.frames import spread
from dar_ros.errors import UsageError
from dar_ros.evaluation.metrics import BUCKETS, ause, beyond_counts, depth_metrics
from dar_ros.evaluation.report import count_warnings, summary, warnings_of
from dar_ros.paths import cache_folder
from dar_ros.pipeline import DepthSettings
from dar_ros.preprocess import ResizeSpec, canonical_scale


def frozen_test_split(frames):
    """
    Return the first `frames` of the frozen simulated test split, generating what is missing of it
    into a cache folder.
    """
    from dar_ros.simulation.dataset import TEST_SEED, VERSION, generate

    folder = cache_folder(f'sim-test-{VERSION}')
    written = generate(folder, 'test', frames, TEST_SEED)  # more, if more were asked for before
    return [written[i] for i in range(frames)]


def evaluate(pipeline, frames, count=None, settings=None, progress=True, flip=False):
    """
    Score every step of the pipeline on `frames` (image, depth, intrinsics), on `count` of them
    spread over all; plain data (`report.summary`, and what was warned of in how many frames).

    A pixel is valid when its true depth lies in the range in force, and scored when the prediction
    is finite there. `flip` averages the depth of an image and of its mirror image, as published
    figures do.
    """
    bundle = pipeline.bundle
    settings = settings or DepthSettings()
    steps, (near, far) = settings.resolve(bundle)
    scores, beyond, warnings = [], np.zeros(3), {}
    for i in tqdm(spread(frames, count), desc='evaluate', unit='frame', disable=not progress):
        frame = frames[i]
        image, truth = np.array(frame.image), np.array(frame.depth)
        valid, farther = (truth >= near) & (truth <= far), truth > far
        if not (valid.any() or farther.any()):
            continue
        results = list(pipeline.per_step(image, frame.intrinsics, settings))
        count_warnings(warnings, results)
        beyond += beyond_counts(results[-1].depth, truth, farther)
        if not valid.any():
            continue
        seconds = [runtime(result) for result in results]
        if flip:
            _average_with_mirrored(results, pipeline, image, frame.intrinsics, settings)
        guess = None
        if 'baseline_row_medians' in bundle.manifest:
            guess = row_median_depth(bundle, truth.shape, frame.intrinsics)
        scores.append(
            {'seconds': seconds, **image_score(results, truth, valid, (near, far), guess)}
        )
    if not scores:
        raise UsageError(f'no frame has depth within {near:g}-{far:g} m: is it in metres?')
    return {
        **summary(scores, beyond, steps),
        'warnings': warnings_of(warnings),
        'depth_range': [near, far],
        'model': bundle.name,
        'backend': pipeline.backend.name,
        'precision': pipeline.backend.precision,
    }


def image_score(results, truth, valid, depth_range, guess=None):
    """
    Return the scores of one image; its truth (H, W) is in range where `valid`, and somewhere is.

    Of every step `steps`, metrics or None where nothing is scored, and `valid`, the share of valid
    pixels scored. Of the last one, each only where there is something to score, `clamped`: metrics
    when what it puts out of range counts as the range's ends; and over what it scored
    `within_sigma`, `within_2_sigma`, `ause`, `median_scaled` (abs_rel with the median ratio
    divided out), `buckets` (sum of relative errors and pixels (2, n) by true depth) and
    `baseline` (abs_rel of the `guess` (H, W)).
    """
    masks = [valid & np.isfinite(result.depth) for result in results]
    score = {
        'steps': [
            depth_metrics(result.depth, truth, mask) if mask.any() else None
            for result, mask in zip(results, masks)
        ],
        'valid': [mask.sum() / valid.sum() for mask in masks],
    }
    last, scored = results[-1], masks[-1]
    answered = valid & ~np.isnan(last.depth)
    if answered.any():
        score['clamped'] = depth_metrics(np.clip(last.depth, *depth_range), truth, answered)
    if not scored.any():
        return score
    depth, sigma, true = last.depth[scored], last.sigma[scored], truth[scored]
    error = np.abs(depth - true)
    score['within_sigma'], score['within_2_sigma'] = (
        float((error <= n * sigma).mean()) for n in (1, 2)
    )
    score['ause'] = ause(error / true, sigma / depth)
    score['median_scaled'] = np.abs(depth * np.median(true / depth) / true - 1).mean()
    score['buckets'] = np.array(
        [np.histogram(true, BUCKETS, weights=weights)[0] for weights in (error / true, None)]
    )
    if guess is not None:
        guess = np.clip(guess, *depth_range)
        score['baseline'] = depth_metrics(guess, truth, scored)['abs_rel']
    return score


def _average_with_mirrored(results, pipeline, image, intrinsics, settings):
    """Replace the depth of every step by its mean with the mirror image's, where that has one."""
    mirror = intrinsics.mirrored(image.shape[1])
    flipped = pipeline.per_step(np.ascontiguousarray(image[:, ::-1]), mirror, settings)
    for result, other in zip(results, list(flipped)):
        mean = (result.depth + other.depth[:, ::-1]) / 2
        result.depth = np.where(np.isfinite(mean), mean, result.depth)


def runtime(frame):
    """
    Seconds from image to depth of a DepthFrame of DepthPipeline.per_step.

    What follows the last step was done after each step; once is what it costs when deployed.
    """
    often = ('upsample', 'postprocess')
    return sum(s / (frame.steps if name in often else 1) for name, s in frame.timings.items())


def row_median_depth(bundle, size, intrinsics):
    """
    Depth (H, W) of the baseline that says, per network row, the training set's median canonical
    depth.
    """
    spec = ResizeSpec.fit(size, bundle.input_size)
    scale = canonical_scale(intrinsics, spec, bundle.canonical_focal)
    medians = np.array(bundle.baseline_row_medians) / scale
    rows = (np.arange(size[0]) + 0.5) * spec.content_size[0] / size[0] - 0.5 + spec.top
    return np.repeat(np.interp(rows, np.arange(len(medians)), medians)[:, None], size[1], 1)
