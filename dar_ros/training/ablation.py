"""
Train variants of a model under one budget and compare them.

    python -m dar_ros.training.ablation config/training/bakeoff.yaml [--only NAME ...] [--report]
"""

import argparse
from pathlib import Path

import yaml

from dar_ros.errors import DarError, UsageError
from dar_ros.model.checkpoint import load_checkpoint
from dar_ros.training.config import parse_config


def variant_configs(path):
    """Read a file of `base` and `variants` (model settings that differ) -> {name: TrainConfig}."""
    data = yaml.safe_load(Path(path).read_text())
    configs = {}
    for name, changes in data['variants'].items():
        settings = dict(data['base'], name=name, out=f'{data["base"]["out"]}/{name}')
        settings['model'] = {**settings['model'], **changes}
        configs[name] = parse_config(settings, str(path))
    return configs


def report(configs):
    """Markdown table: abs_rel of every step on the validation split."""
    lines = ['| variant | parameters | abs_rel per step | d1 |', '|---|---|---|---|']
    for name, config in configs.items():
        model, record = load_checkpoint(Path(config.out) / 'best')
        metrics = record['validation']
        size = sum(p.numel() for p in model.parameters()) / 1e6
        steps = ' '.join(f'{value:.3f}' for value in metrics['abs_rel'])
        lines.append(f'| {name} | {size:.2f} M | {steps} | {metrics["d1"][-1]:.3f} |')
    return '\n'.join(lines)


def main(argv=None):
    """Command line; returns the exit code."""
    from dar_ros.training.train import Trainer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='YAML file with base and variants')
    parser.add_argument('--only', nargs='*', help='variants to train (default: all)')
    parser.add_argument('--report', action='store_true', help='train nothing; print the table')
    arguments = parser.parse_args(argv)
    try:
        configs = variant_configs(arguments.config)
        unknown = set(arguments.only or ()) - set(configs)
        if unknown:
            raise UsageError(
                f'no variant {", ".join(sorted(unknown))}; there are {", ".join(configs)}'
            )
        chosen = {name: configs[name] for name in arguments.only or configs}
        for config in () if arguments.report else chosen.values():
            Trainer(config).run()
        print(report(chosen))
    except DarError as error:
        parser.exit(1, f'error: {error}\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
