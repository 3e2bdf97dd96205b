"""A bundle whose reference is changed, with hashes that agree."""

import json

import numpy as np

from dar_ros.bundle import write_manifest


def change_reference(folder, change):
    """Let `change` alter the dict of arrays of a bundle's reference.npz, and write it anew."""
    arrays = dict(np.load(folder / 'reference.npz'))
    change(arrays)
    np.savez_compressed(folder / 'reference.npz', **arrays)
    manifest = json.loads((folder / 'model.json').read_text())
    write_manifest(folder, {key: manifest[key] for key in manifest if key != 'files'})
