"""
The model bundle: what a robot deploys. A folder of model.json, three ONNX graphs and
reference.npz.

Nothing in it is pickled, and every file is verified against its hash before anything reads it.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from dar_ros.errors import BundleError
from dar_ros.paths import shared

SCHEMA = 1
MANIFEST = 'model.json'
GRAPHS = ('encoder', 'step', 'upsample')
FILES = (*(f'{graph}.onnx' for graph in GRAPHS), 'reference.npz')
TOO_NEAR, IN_RANGE, BEYOND = 0, 1, 2  # what upsample.onnx says of a pixel
_REQUIRED = (
    'schema',
    'name',
    'input_size',
    'num_steps',
    'num_bins',
    'bin_space',
    'grid_sizes',
    'depth_grid_sizes',
    'depth_range',
    'trained_span',
    'canonical_focal',
    'sigma_factors',
    'parameters',
    'latent_width',
    'files',
    'provenance',
    'licence',
)


class Bundle:
    """
    An open, verified bundle; what model.json says is reached as attributes.

    `input_size` (rows, columns); `depth_range` real metres; `trained_span` canonical metres;
    `canonical_focal` pixels of the input, None where focal lengths are ignored; `grid_sizes` and
    `depth_grid_sizes` (h, w) of every step; `sigma_factors` one a step.
    """

    def __init__(self, path, manifest):
        self.path, self.manifest = Path(path), manifest

    def __getattr__(self, name):
        """Return a field of model.json."""
        try:
            return self.__dict__['manifest'][name]
        except KeyError:
            raise AttributeError(name) from None

    def file(self, name):
        """Path of one of FILES."""
        return self.path / name

    def describe(self):
        """Return plain data for people and `--json`."""
        return {
            key: value for key, value in self.manifest.items() if key != 'baseline_row_medians'
        }

    def reference(self):
        """
        Arrays of the self-test: image, depth_min, depth_max, depth (K, h, w) canonical metres, and
        range_class (K, h, w) uint8 and scale (K, h, w) as of a Prediction, unless the bundle was
        exported before those were kept.
        """
        with np.load(self.file('reference.npz'), allow_pickle=False) as arrays:
            return {**arrays, 'depth': arrays['depth'].astype(np.float32)}


def default_bundle_path():
    """Folder of the bundled dar_tiny."""
    return shared(Path('models', 'dar_tiny', MANIFEST)).parent


def is_checkpoint(path):
    """Whether `path` is the folder of a training checkpoint, not of a bundle."""
    return bool(path) and Path(path, 'config.json').exists() and not Path(path, MANIFEST).exists()


def open_bundle(path=None):
    """
    Open and verify a bundle folder (None or '': the bundled model); BundleError in one line
    otherwise.
    """
    path = Path(path) if path else default_bundle_path()
    cure = 'name a folder that `dar export` wrote'
    if not path.is_dir():
        raise BundleError(f'{path} is no model bundle: no such folder; {cure}')
    manifest = _read_manifest(path / MANIFEST, cure)
    for name in FILES:
        if name not in manifest['files']:
            raise BundleError(f'{path / MANIFEST} does not list {name}; export the model again')
    for name, entry in manifest['files'].items():
        _verify(path, name, entry)
    return Bundle(path, manifest)


def _read_manifest(path, cure):
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise BundleError(f'{path} is missing; {cure}') from None
    except (OSError, ValueError) as error:
        raise BundleError(
            f'{path} is not readable JSON ({error}); export the model again'
        ) from None
    if not isinstance(manifest, dict):
        raise BundleError(f'{path} holds no JSON object; export the model again')
    schema = manifest.get('schema')
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(
            f'{path} has schema {schema}, this version reads {SCHEMA}; update dar_ros'
        )
    missing = [key for key in _REQUIRED if key not in manifest]
    if missing or schema != SCHEMA or not isinstance(manifest['files'], dict):
        raise BundleError(
            f'{path} lacks {", ".join(missing) or "a valid schema"}; export the model again'
        )
    return manifest


def _verify(folder, name, entry):
    path = folder / name
    # A link may lead anywhere (`colcon build --symlink-install`, Hugging Face's cache): what is
    # served is pinned by its hash.
    if Path(name).name != name:
        raise BundleError(
            f'{folder / MANIFEST} lists {name!r}, which leaves the folder; refuse this bundle'
        )
    if not path.is_file():
        raise BundleError(f'{path} is missing; copy the whole bundle again')
    size, digest = path.stat().st_size, sha256(path)
    if not isinstance(entry, dict) or size != entry.get('size') or digest != entry.get('sha256'):
        raise BundleError(
            f'{path} is not the file that {MANIFEST} describes (size {size}, sha256 '
            f'{digest[:12]}...); copy the bundle again'
        )


def sha256(path):
    """Hex digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_manifest(folder, manifest):
    """Write model.json for the files that lie in `folder`, with their sizes and hashes."""
    folder = Path(folder)
    files = {
        name: {'sha256': sha256(folder / name), 'size': (folder / name).stat().st_size}
        for name in FILES
    }
    text = json.dumps({'schema': SCHEMA, **manifest, 'files': files}, indent=1)
    temporary = folder / (MANIFEST + '.tmp')
    temporary.write_text(text + '\n')
    temporary.replace(folder / MANIFEST)
