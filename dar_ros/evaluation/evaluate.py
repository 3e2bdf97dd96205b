"""`dar evaluate`: a bundle, through the pipeline, against a data set's true depth."""

import re

import numpy as np
from tqdm import tqdm

from dar_ros.evaluation.datasets import spread
from dar_ros.evaluation.metrics import NAMES, depth_metrics, mean_metrics
from dar_ros.geometry import Intrinsics
from dar_ros.paths import cache_folder
from dar_ros.pipeline import DepthSettings
from dar_ros.preprocess import ResizeSpec, canonical_scale

BUCKETS = (0.1, 1, 2, 3, 5, 10, 20, 40, 80)  # metres
FULL_SHARE = 0.95  # of the valid pixels must be scored, or the figures do not count


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
    spread over all.

    `flip` averages the depth of an image and of its mirror image, as published figures do.

    A pixel is valid when its true depth lies in the range in force, and scored when the prediction
    is finite there. Returns plain data: the metrics of the last step, the share of valid pixels
    scored, both and the runtime of every step (`per_step`), coverage of sigma, AUSE, precision and
    recall of "beyond", abs_rel by depth, a 95 % bootstrap interval of abs_rel over images, abs_rel
    after scaling each image by its median ratio, the row-median baseline on the scored pixels if
    the bundle carries one, and the last step's metrics when what it puts out of range counts as
    the range's ends (`clamped`), as published evaluations have it, and what the pipeline warned of
    in how many frames. All are means over images but precision, recall and the depth buckets,
    which are over pixels; precision and recall are None where nothing is known to be beyond.
    """
    bundle = pipeline.bundle
    settings = settings or DepthSettings()
    steps, (near, far) = settings.resolve(bundle)
    rows, shares = [[] for _ in range(steps)], [[] for _ in range(steps)]
    clamped, baseline, coverage = [], [], []
    beyond = np.zeros(3)  # predicted and true, predicted, true
    seconds, warnings = [[] for _ in range(steps)], {}  # kind: [frames, one of them]
    buckets, sparsification, aligned = np.zeros((2, len(BUCKETS) - 1)), [], []
    for i in tqdm(spread(frames, count), desc='evaluate', unit='frame', disable=not progress):
        frame = frames[i]
        image, truth = np.array(frame.image), np.array(frame.depth)
        valid, true = (truth >= near) & (truth <= far), truth > far
        if not (valid.any() or true.any()):
            continue
        results = list(pipeline.per_step(image, frame.intrinsics, settings))
        _count_warnings(warnings, results)
        predicted = np.isposinf(results[-1].depth) & ~np.isnan(truth)
        beyond += [(predicted & true).sum(), predicted.sum(), true.sum()]
        if not valid.any():
            continue
        for row, result in zip(seconds, results):
            row.append(runtime(result))
        if flip:
            _average_with_mirrored(results, pipeline, image, frame.intrinsics, settings)
        for row, share, result in zip(rows, shares, results):
            scored = valid & np.isfinite(result.depth)
            share.append(scored.sum() / valid.sum())
            if scored.any():
                row.append(depth_metrics(result.depth, truth, scored))
        last = results[-1]
        scored = valid & np.isfinite(last.depth)
        answered = valid & ~np.isnan(last.depth)
        if answered.any():
            clamped.append(depth_metrics(np.clip(last.depth, near, far), truth, answered))
        if scored.any():
            error = np.abs(last.depth[scored] - truth[scored])
            coverage.append([float((error <= n * last.sigma[scored]).mean()) for n in (1, 2)])
            true_depth, relative = truth[scored], error / truth[scored]
            for row, weights in zip(buckets, (relative, None)):
                row += np.histogram(true_depth, BUCKETS, weights=weights)[0]
            sparsification.append(ause(relative, last.sigma[scored] / last.depth[scored]))
            ratio = np.median(true_depth / last.depth[scored])
            aligned.append(float(np.abs(last.depth[scored] * ratio / true_depth - 1).mean()))
        if 'baseline_row_medians' in bundle.manifest and scored.any():
            guess = row_median_depth(bundle, truth.shape, frame.intrinsics)
            baseline.append(depth_metrics(np.clip(guess, near, far), truth, scored)['abs_rel'])
    per_step = [mean_metrics(row) for row in rows]
    valid_shares = [float(np.mean(row)) if row else 0.0 for row in shares]
    medians = [float(np.median(row)) if row else None for row in seconds]
    within = np.mean(coverage, 0).tolist() if coverage else (None, None)
    return {
        **per_step[-1],
        'valid': valid_shares[-1],
        'counts': valid_shares[-1] >= FULL_SHARE,
        'frames': len(shares[-1]),
        'per_step': [
            {**metrics, 'step': k, 'valid': share, 'median_seconds': median}
            for k, (metrics, share, median) in enumerate(zip(per_step, valid_shares, medians), 1)
        ],
        'clamped': mean_metrics(clamped),
        'within_sigma': within[0],
        'within_2_sigma': within[1],
        'ause': float(np.mean(sparsification)) if sparsification else None,
        'abs_rel_interval': bootstrap_interval([row['abs_rel'] for row in rows[-1]]),
        'abs_rel_median_scaled': float(np.mean(aligned)) if aligned else None,
        'abs_rel_by_depth': [
            {'from': low, 'to': high, 'abs_rel': _ratio(total, pixels), 'pixels': int(pixels)}
            for low, high, total, pixels in zip(BUCKETS[:-1], BUCKETS[1:], *buckets)
        ],
        # Of a data set that is cut at a cap nothing is known to be beyond.
        'beyond_precision': _ratio(beyond[0], beyond[1]) if beyond[2] else None,
        'beyond_recall': _ratio(beyond[0], beyond[2]),
        'baseline_abs_rel': float(np.mean(baseline)) if baseline else None,
        'warnings': [{'frames': n, 'example': text} for n, text in warnings.values()],
        'depth_range': [near, far],
        'model': bundle.name,
        'backend': pipeline.backend.name,
        'precision': pipeline.backend.precision,
        'median_seconds': medians[-1],
    }


def _count_warnings(counts, results):
    """Add the warnings of a frame, those that differ in their numbers alone as one."""
    kinds = {re.sub(r'\d+(\.\d+)?', '#', text): text for r in results for text in r.warnings}
    for kind, text in kinds.items():
        counts.setdefault(kind, [0, text])[0] += 1


def _average_with_mirrored(results, pipeline, image, intrinsics, settings):
    """Replace the depth of every step by its mean with the mirror image's, where that has one."""
    mirror = Intrinsics(
        intrinsics.fx, intrinsics.fy, image.shape[1] - 1 - intrinsics.cx, intrinsics.cy
    )
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


def ause(error, uncertainty, fractions=20):
    """
    Area under the sparsification error, of pixels' errors (n,) ordered by their uncertainty (n,).

    Mean error of what is left after dropping the most uncertain share, less the same after
    dropping the worst, over shares 0 to 0.95 (Ilg et al., ECCV 2018). 0: uncertainty orders as
    error does.
    """
    kept = [max(1, round(len(error) * (1 - i / fractions))) for i in range(fractions)]
    curves = [
        (np.cumsum(error[np.argsort(order, kind='stable')]) / np.arange(1, len(error) + 1))
        for order in (uncertainty, error)
    ]
    return float(np.mean([curves[0][n - 1] - curves[1][n - 1] for n in kept]))


def bootstrap_interval(values, draws=2000):
    """95 % interval of the mean of `values` over images drawn with replacement."""
    if not values:
        return None
    rng = np.random.default_rng(0)
    means = np.mean(np.array(values)[rng.integers(len(values), size=(draws, len(values)))], 1)
    return [float(v) for v in np.quantile(means, (0.025, 0.975))]


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


def _ratio(part, whole):
    return float(part / whole) if whole else None


def table(report):
    """Render the report for people."""
    header = ' step  ' + '  '.join(f'{name:>8}' for name in (*NAMES, 'ms'))
    lines = [header] + [
        f'{row["step"]:5}  '
        + '  '.join(f'{row[name]:8.4f}' for name in NAMES)
        + f'  {1000 * row["median_seconds"]:8.1f}'
        for row in report['per_step']
        if row['abs_rel'] is not None
    ]
    lines.append(
        '{frames} frames, {valid:.1%} of the valid pixels scored, {0:g} to {1:g} m'.format(
            *report['depth_range'], **report
        )
    )
    if report['abs_rel_interval']:
        low, high = report['abs_rel_interval']
        lines.append(f'abs_rel {low:.4f} to {high:.4f} (95 % bootstrap interval over images)')
        lines.append(f'abs_rel {report["abs_rel_median_scaled"]:.4f} after median scaling')
        lines.append(
            'abs_rel {abs_rel:.4f}, d1 {d1:.4f} with what is called out of range clamped to it, '
            'every valid pixel scored'.format(**report['clamped'])
        )
        lines.append(
            f'{report["within_sigma"]:.0%} within one sigma, {report["within_2_sigma"]:.0%} '
            f'within two; AUSE {report["ause"]:.4f}'
        )
        lines += [
            f'{b["from"]:5g} - {b["to"]:g} m: abs_rel {b["abs_rel"]:.4f}, {b["pixels"]} pixels'
            for b in report['abs_rel_by_depth']
            if b['pixels']
        ]
    lines += [f'warning in {w["frames"]} frames: {w["example"]}' for w in report['warnings']]
    if not report['counts']:
        lines.append(f'less than {FULL_SHARE:.0%} scored: these figures do not count')
    if report['baseline_abs_rel'] is not None:
        lines.append(
            f'baseline (row medians of the training set): abs_rel {report["baseline_abs_rel"]:.4f}'
        )
    return '\n'.join(lines)
