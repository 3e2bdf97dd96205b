"""
Write a checkpoint without its frozen backbone, in fp16: what a run trained, and nobody else's.

    python -m dar_ros.training.publish runs/edge/best --source dinov2_vits14.pth --out models/edge

`dar export --encoder FILE` puts both together.
"""

import argparse
from pathlib import Path

from dar_ros.errors import DarError, UsageError
from dar_ros.model.checkpoint import load_checkpoint, replaced, save_without_backbone


def publish(checkpoint, source, out):
    """Write `checkpoint` without its backbone to `out`; `source` says where to get that."""
    model, record = load_checkpoint(checkpoint)
    training = record.get('training', {})
    if not model.encoder.is_vit:
        raise UsageError(f'{checkpoint} has a {model.config.backbone}: no file would complete it')
    if not any('encoder.backbone'.startswith(prefix) for prefix in training.get('freeze', ())):
        raise UsageError(f'{checkpoint} trained its backbone: it cannot do without')
    # Of the backbone's file its source, not some path on one machine.
    record['training'] = {**training, 'encoder' if training.get('encoder') else 'init': source}
    out = Path(out)
    if out.exists() and any(out.iterdir()) and not (out / 'config.json').exists():
        raise UsageError(f'{out} holds something else than a checkpoint: name another folder')
    with replaced(out) as folder:  # nothing of the checkpoint that lay there stays
        save_without_backbone(folder, model, record, source)


def main(argv=None):
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('checkpoint', help='folder that `dar train` wrote')
    parser.add_argument('--source', required=True, help="where to get the backbone's file")
    parser.add_argument('--out', required=True, help='folder of the checkpoint to write')
    arguments = parser.parse_args(argv)
    try:
        publish(arguments.checkpoint, arguments.source, arguments.out)
    except DarError as error:
        parser.exit(1, f'error: {error}\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
