"""Clocks, memory and tables of the benchmark."""

import os
import time
from pathlib import Path

import numpy as np

WARM_UPS = 3


def cores():
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def interleaved(functions, rounds):
    """
    Call each of {name: function} once a round; {name: seconds of each round}, without the warm-up.

    Sides of a ratio measured in turns see the same machine.
    """
    times = {name: [] for name in functions}
    for number in range(WARM_UPS + rounds):
        for name, function in functions.items():
            before = time.perf_counter()
            function()
            if number >= WARM_UPS:
                times[name].append(time.perf_counter() - before)
    return times


def p50_p95(seconds):
    """Median and 95th percentile in milliseconds, rounded for people."""
    return tuple(round(float(x) * 1000, 2) for x in np.quantile(seconds, (0.5, 0.95)))


def p50(seconds):
    """Median, seconds."""
    return float(np.median(seconds))


def median_ratio(above, below):
    """Median of the rounds' ratios of two times of `interleaved`."""
    return float(np.median(np.divide(above, below)))


def copy_seconds(size, rounds):
    """Median seconds of a plain copy of `size` bytes between two buffers that exist already."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return p50(interleaved({'copy': lambda: np.copyto(target, source)}, rounds)['copy'])


def resident_mb(process='self'):
    """Resident memory of a process, MB (proc(5))."""
    pages = int(Path(f'/proc/{process}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def cpu_seconds(process='self'):
    """CPU time that a process has taken, seconds (proc(5))."""
    fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def markdown(title, columns, rows):
    """Return one table as docs/performance.md shows it."""
    lines = [
        f'**{title}**',
        '',
        '| ' + ' | '.join(columns) + ' |',
        '|' + '---|' * len(columns),
        *('| ' + ' | '.join(_cell(value) for value in row) + ' |' for row in rows),
    ]
    return '\n'.join(lines)


def _cell(value):
    if isinstance(value, float):
        return f'{value:.2f}' if abs(value) < 10 else f'{value:.1f}'
    return str(value)


def report(result):
    """Return everything as markdown, to be pasted into docs/performance.md."""
    machine = result['machine']
    serves = machine.get('serves', {})
    gpu = '{gpu}: {library}, {precision}; '.format(**serves) if 'gpu' in serves else ''
    lines = [
        f'{machine["cpu"]}, {machine["cores"]} cores; {gpu}Python {machine["python"]}, '
        f'onnxruntime {machine["onnxruntime"]}; {result["settings"]["rounds"]} rounds.'
    ]
    rows = [
        (c['name'], _short(c['value']), _short(c['limit']), 'ok' if c['ok'] else '**short**')
        for c in result['checks']
    ]
    if rows:
        lines += ['', markdown('Checks', ('check', 'value', 'limit', ''), rows)]
    for part in result['parts'].values():
        for table in part.tables:
            lines += ['', markdown(*table)]
        for note in part.notes:
            lines += ['', note]
    return '\n'.join(lines)


def _short(value):
    return 'not measured' if value is None else f'{value:.4g}'
