"""
Average the weights of checkpoints that come from one another, and fit what is fitted afterwards.

    python -m dar_ros.training.average runs/before/best runs/after/best --out runs/between

Between a network and its fine-tuned descendant lie networks that keep more of what the first knew
of other data (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
"""

import argparse
from pathlib import Path

import torch
from torch.utils.data import Subset

from dar_ros.datasets.frames import spread
from dar_ros.errors import DarError, UsageError
from dar_ros.model.checkpoint import load_checkpoint, replaced, save_checkpoint
from dar_ros.training.sources import open_frames
from dar_ros.training.validation import validate


@torch.no_grad()
def averaged(models, shares):
    """Return the first DAR with the mean of all weights, weighted by `shares` (sum 1)."""
    states = [model.state_dict() for model in models]
    names = set(states[0])
    if any(model.config != models[0].config for model in models):
        raise UsageError('the checkpoints are of different networks')
    models[0].load_state_dict(
        {
            name: sum(share * state[name] for share, state in zip(shares, states))
            if states[0][name].is_floating_point()
            else states[0][name]
            for name in names
        }
    )
    return models[0]


def average(checkpoints, shares, out):
    """
    Write the average as a checkpoint; validation and sigma factors by the last one's settings.
    """
    if len(shares) != len(checkpoints) or abs(sum(shares) - 1) > 1e-6:
        raise UsageError('one share for each checkpoint, and they must add up to 1')
    models, records = zip(*(load_checkpoint(path) for path in checkpoints))
    model, record = averaged(list(models), shares), dict(records[-1])
    record.pop('model')
    # Only a finished run's best checkpoint has them; they are of the training set, not of weights.
    medians = [one['row_medians'] for one in records if 'row_medians' in one]
    if medians:
        record['row_medians'] = medians[-1]
    training = record['training']
    frames = open_frames(training['dataset'], training['val_data'], training['val_split'])
    some = Subset(frames, spread(frames, training['validation_frames']))
    record['validation'] = validate(model, some, model.config.input_size)
    record['sigma_factors'] = record['validation'].pop('sigma_factors')
    record['average'] = {str(path): share for path, share in zip(checkpoints, shares)}
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced(out) as folder:
        save_checkpoint(folder, model, record)
    return record['validation']


def main(argv=None):
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('checkpoints', nargs='+', help='folders, the oldest first')
    parser.add_argument('--shares', nargs='*', type=float, help='of each (default: the same)')
    parser.add_argument('--out', required=True, help='folder of the checkpoint to write')
    arguments = parser.parse_args(argv)
    count = len(arguments.checkpoints)
    try:
        found = average(
            arguments.checkpoints, arguments.shares or [1 / count] * count, arguments.out
        )
    except DarError as error:
        parser.exit(1, f'error: {error}\n')
    print('abs_rel per step', ' '.join(f'{v:.4f}' for v in found['abs_rel']))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
