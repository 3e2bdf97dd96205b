"""A training run's log.csv as a picture."""

import csv
from pathlib import Path

import numpy as np

from dar_ros.errors import UsageError

CURVES = ('loss', 'depth_loss', 'range_loss', 'scale_loss')
SMOOTH = 50  # iterations of the running mean that is drawn over the values


def read_log(path):
    """
    Columns of a log as arrays, by name; `size` as text.

    A run that was cut and resumed has some iterations twice: the later ones count.
    """
    try:
        with Path(path).open() as file:
            rows = {int(row['iteration']): row for row in csv.DictReader(file)}
        ordered = [rows[iteration] for iteration in sorted(rows)]
        columns = {
            name: np.array([float(r[name]) for r in ordered]) for name in CURVES + ('rate',)
        }
    except OSError:
        raise UsageError(f'{path} is missing: name the folder of a run of `dar train`') from None
    except (KeyError, TypeError, ValueError):
        raise UsageError(f'{path} is no log of `dar train`') from None
    if not ordered:
        raise UsageError(f'{path} holds no iteration yet')
    columns['iteration'] = np.array(sorted(rows))
    columns['size'] = np.array([row['size'] for row in ordered])
    return columns


def plot_log(folder):
    """Write FOLDER/log.png of FOLDER/log.csv, and return its path."""
    log = read_log(Path(folder) / 'log.csv')
    from matplotlib.figure import Figure

    figure = Figure((9, 7), layout='constrained')
    panels = figure.subplots(len(CURVES) + 1, sharex=True)
    stages = log['iteration'][1:][log['size'][1:] != log['size'][:-1]]
    for panel, name in zip(panels, (*CURVES, 'rate')):
        panel.plot(log['iteration'], log[name], linewidth=0.5, alpha=0.4)
        panel.plot(log['iteration'], running_mean(log[name], SMOOTH), color='C0')
        panel.set_ylabel(name)
        for iteration in stages:  # another input size
            panel.axvline(iteration, color='0.7', linewidth=0.8)
    panels[-1].set_xlabel('iteration')
    path = Path(folder) / 'log.png'
    figure.savefig(path, dpi=120)
    return path


def running_mean(values, window):
    """Mean of up to `window` values up to each one; (n,) in and out."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - window, 0)
    return (sums[end] - sums[begin]) / (end - begin)
