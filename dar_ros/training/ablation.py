"""
Train variants of a model under one budget and compare them.

    python -m dar_ros.training.ablation config/training/ablation.yaml [--only NAME ...] [--report]

The file has `base`, a training configuration, and `variants`: for each the settings that differ,
of the run or of the model, and perhaps `seeds`, a list; a variant's figures are means over them.
"""

import argparse
from dataclasses import fields
from pathlib import Path

import numpy as np

from dar_ros.errors import DarError, UsageError
from dar_ros.model.checkpoint import load_checkpoint, recovered
from dar_ros.training.config import TrainConfig, changed_settings, parse_config, read_yaml

_RUN_SETTINGS = {field.name for field in fields(TrainConfig)} - {'name', 'model', 'out'}


def variant_configs(path):
    """Read a file of `base` and `variants` -> {name: [TrainConfig of every seed]}."""
    try:
        data = read_yaml(path)
        base, variants = data['base'], data['variants']
        model, out = base['model'], base['out']
    except (KeyError, TypeError):
        raise UsageError(
            f'{path}: `base`, with `model` and `out`, and `variants` are expected'
        ) from None
    configs = {}
    for name, changes in variants.items():
        changes = dict(changes or {})
        seeds = changes.pop('seeds', [base.get('seed', 0)])
        of_run = {key: changes.pop(key) for key in _RUN_SETTINGS & set(changes)}
        configs[name] = []
        for number, seed in enumerate(seeds):
            run = f'{name}_seed{seed}' if number else name
            settings = {**base, 'seed': seed, **of_run, 'name': run, 'out': f'{out}/{run}'}
            settings['model'] = {**model, **changes} if isinstance(model, dict) else model
            configs[name].append(parse_config(settings, f'{path}, {name}'))
    return configs


def report(configs):
    """
    Markdown table: abs_rel of every step and d1 on the validation split, and of every seed.

    A run that was cut short, or trained by other settings than the file's, is marked: it stands
    beside the others under no common budget.
    """
    lines = [
        '| variant | parameters | abs_rel after each step | d1 | abs_rel of each seed |',
        '|---|---|---|---|---|',
    ]
    for name, seeds in configs.items():
        loaded = [load_checkpoint(Path(config.out) / 'best') for config in seeds]
        metrics = [record['validation'] for _, record in loaded]
        size = sum(p.numel() for p in loaded[0][0].parameters()) / 1e6
        steps = ' '.join(f'{v:.3f}' for v in np.mean([m['abs_rel'] for m in metrics], 0))
        d1 = np.mean([m['d1'][-1] for m in metrics])
        each = ' '.join(f'{m["abs_rel"][-1]:.3f}' for m in metrics)
        flaws = ''.join(f' **({flaw})**' for flaw in map(_flaw, seeds) if flaw)
        lines.append(f'| {name}{flaws} | {size:.2f} M | {steps} | {d1:.3f} | {each} |')
    return '\n'.join(lines)


def _flaw(config):
    """Return what makes a run incomparable, '' if nothing."""
    model, record = load_checkpoint(recovered(Path(config.out) / 'last'))
    if record['iteration'] < config.iterations:
        return f'{config.name}: {record["iteration"]} of {config.iterations} iterations'
    changed = changed_settings(config, record['training'])
    changed += ['model'] if model.config != config.model else []
    return f'{config.name}: other {", ".join(changed)}' if changed else ''


def main(argv=None):
    """Command line; returns the exit code."""
    from dar_ros.training.train import Trainer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='YAML file with base and variants')
    parser.add_argument('--only', nargs='*', help='variants to train (default: all)')
    parser.add_argument('--report', action='store_true', help='train nothing; print the table')
    parser.add_argument(
        '--resume', action='store_true', help='continue the runs that exist, also finished ones'
    )
    arguments = parser.parse_args(argv)
    try:
        configs = variant_configs(arguments.config)
        unknown = set(arguments.only or ()) - set(configs)
        if unknown:
            raise UsageError(
                f'no variant {", ".join(sorted(unknown))}; there are {", ".join(configs)}'
            )
        chosen = {name: configs[name] for name in arguments.only or configs}
        for config in [] if arguments.report else [c for seeds in chosen.values() for c in seeds]:
            begun = (Path(config.out) / 'last').exists()
            Trainer(config, resume=arguments.resume and begun).run()
        print(report(chosen))
    except DarError as error:
        parser.exit(1, f'error: {error}\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
