"""The smallest training there is: a data set of a few frames and a network of a few channels."""

import json

import numpy as np

from dar_ros.geometry import Intrinsics
from dar_ros.training.config import parse_config

MODEL = {
    'preset': 'dar_tiny',
    'width': 32,
    'heads': 2,
    'latent_width': 16,
    'memory_width': 32,
    'layers': 1,
}


class FakeFrames:
    """A data set in memory, with the layout of SimDataset."""

    def __init__(self, count=6, size=(60, 80)):
        rng = np.random.default_rng(0)
        self.items = []
        for _ in range(count):
            depth = np.tile(
                np.linspace(rng.uniform(3, 9), 1, size[0], dtype=np.float32)[:, None], (1, size[1])
            )
            image = np.clip(255 / depth[..., None] + rng.normal(0, 5, (*size, 3)), 0, 255).astype(
                np.uint8
            )
            depth[:3] = np.inf
            self.items.append((image, depth, Intrinsics.from_fov(70, size[1], size[0])))

    def write(self, folder):
        shard = folder / 'shard-00000'
        shard.mkdir(parents=True)
        np.save(shard / 'images.npy', np.stack([i for i, _, _ in self.items]))
        np.save(shard / 'depth.npy', np.stack([d for _, d, _ in self.items]))
        np.save(
            shard / 'intrinsics.npy',
            np.array([(k.fx, k.fy, k.cx, k.cy) for _, _, k in self.items]),
        )
        (folder / 'dataset.json').write_text(json.dumps({'frames': len(self.items)}))
        return folder


def tiny_config(folder):
    """Write the data under `folder`; return a TrainConfig of seven iterations at two sizes."""
    data = str(FakeFrames().write(folder / 'data'))
    return parse_config(
        {
            'name': 'test',
            'train_data': data,
            'val_data': data,
            'out': str(folder / 'run'),
            'model': MODEL,
            'init': 'random',
            'validate_every': 3,
            'stages': [
                {'size': [32, 48], 'iterations': 4, 'batch': 2},
                {'size': [64, 96], 'iterations': 3, 'batch': 1},
            ],
        }
    )
