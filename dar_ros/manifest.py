"""What model.json says of a model: its shape, and how it came about."""

import subprocess
from pathlib import Path


def describe(model, record):
    """Fields of model.json, but for the schema and the files."""
    config = model.config
    manifest = {
        'name': config.name,
        'input_size': list(config.input_size),
        'num_steps': config.num_steps,
        'num_bins': config.num_bins,
        'bin_space': config.bin_space,
        'window_neighbors': config.window_neighbors,
        'grid_sizes': [list(size) for size in config.grid_sizes()],
        'depth_grid_sizes': [list(size) for size in config.depth_grid_sizes()],
        'latent_width': config.latent_width,
        'layers': config.layers,
        'heads': config.heads,
        'width': config.width,
        'depth_range': list(config.depth_range),
        'trained_span': list(config.trained_span),
        'canonical_focal': config.focal,
        'sigma_factors': record.get('sigma_factors', [1.0] * config.num_steps),
        'normalisation': {
            'mean': list(config.pixel_mean),
            'std': list(config.pixel_std),
            'where': 'inside encoder.onnx',
        },
        'parameters': sum(p.numel() for p in model.parameters()),
        'provenance': {
            'backbone': config.backbone,
            'commit': _commit(),
            'training': record.get('training', 'none: random weights'),
            'iteration': record.get('iteration', 0),
            'validation': record.get('validation', {}),
            # Checkpoints whose weights were averaged, and their shares; a backbone kept apart.
            **{key: record[key] for key in ('average', 'backbone_weights') if key in record},
        },
        'licence': 'Apache-2.0',
    }
    if 'row_medians' in record:
        manifest['baseline_row_medians'] = record['row_medians']
    return manifest


def _commit():
    """Commit of this package, `-dirty` if changed since; where it is installed none is known."""

    def git(*arguments):
        command = ['git', *arguments]
        return subprocess.run(
            command, cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
        ).stdout

    here = Path(__file__)
    try:
        git('ls-files', '--error-unmatch', here.name)  # or it lies in somebody else's repository
        return git('describe', '--always', '--dirty', '--abbrev=40', '--exclude', '*').strip()
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
