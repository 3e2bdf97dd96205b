"""What `dar evaluate` reports: scores of images averaged, as plain data and as text."""

import re

import numpy as np

from dar_ros.evaluation.metrics import BUCKETS, NAMES, bootstrap_interval, mean_metrics

FULL_SHARE = 0.95  # of the valid pixels must be scored, or the figures do not count


def summary(scores, beyond, steps):
    """
    Average the `evaluate.image_score` of one or more images; `beyond` sums up `beyond_counts`.

    Returns plain data. Means over images, None where there is none:

    - the metrics of the last step and `valid`, the share of valid pixels scored; both and the
      median runtime of each of the `steps` (`per_step`); `counts`: whether enough was scored;
    - `abs_rel_interval` (95 %, bootstrap), `abs_rel_median_scaled`, `baseline_abs_rel`;
    - `clamped`: metrics when what is out of range counts as its ends, as published ones have it;
    - `within_sigma`, `within_2_sigma`, `ause`.

    Over pixels: `abs_rel_by_depth`, `beyond_precision` and `beyond_recall`, None where nothing is
    known to be beyond.
    """
    by_step = [[row for score in scores if (row := score['steps'][k])] for k in range(steps)]
    per_step = [
        {
            **mean_metrics(rows),
            'step': k + 1,
            'valid': float(np.mean([score['valid'][k] for score in scores])),
            'median_seconds': float(np.median([score['seconds'][k] for score in scores])),
        }
        for k, rows in enumerate(by_step)
    ]

    def of(name):
        return [score[name] for score in scores if name in score]

    last = per_step[-1]
    errors, pixels = np.sum(of('buckets') or [np.zeros((2, len(BUCKETS) - 1))], 0)
    return {
        **{name: last[name] for name in (*NAMES, 'valid', 'median_seconds')},
        'counts': last['valid'] >= FULL_SHARE,
        'frames': len(scores),
        'per_step': per_step,
        'clamped': mean_metrics(of('clamped')),
        'within_sigma': _mean(of('within_sigma')),
        'within_2_sigma': _mean(of('within_2_sigma')),
        'ause': _mean(of('ause')),
        'abs_rel_interval': bootstrap_interval([row['abs_rel'] for row in by_step[-1]]),
        'abs_rel_median_scaled': _mean(of('median_scaled')),
        'abs_rel_by_depth': [
            {'from': low, 'to': high, 'abs_rel': _ratio(error, n), 'pixels': int(n)}
            for low, high, error, n in zip(BUCKETS[:-1], BUCKETS[1:], errors, pixels)
        ],
        # Of a data set that is cut at a cap nothing is known to be beyond.
        'beyond_precision': _ratio(beyond[0], beyond[1]) if beyond[2] else None,
        'beyond_recall': _ratio(beyond[0], beyond[2]),
        'baseline_abs_rel': _mean(of('baseline')),
    }


def count_warnings(counts, results):
    """Add the `results`' warnings of a frame to {kind: [frames, one]}; numbers make no kind."""
    kinds = {re.sub(r'\d+(\.\d+)?', '#', text): text for r in results for text in r.warnings}
    for kind, text in kinds.items():
        counts.setdefault(kind, [0, text])[0] += 1


def warnings_of(counts):
    """Plain data of `count_warnings`."""
    return [{'frames': frames, 'example': text} for frames, text in counts.values()]


def warning_lines(report):
    """Render the warnings of a report for people."""
    return [f'warning in {w["frames"]} frames: {w["example"]}' for w in report['warnings']]


def _mean(values):
    return float(np.mean(values)) if values else None


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
    lines += warning_lines(report)
    if not report['counts']:
        lines.append(f'less than {FULL_SHARE:.0%} scored: these figures do not count')
    if report['baseline_abs_rel'] is not None:
        lines.append(
            f'baseline (row medians of the training set): abs_rel {report["baseline_abs_rel"]:.4f}'
        )
    return '\n'.join(lines)
