"""Data sets of one's own: a folder of triples."""

import json
from itertools import pairwise
from pathlib import Path

from dar_ros.datasets.files import existing, read_depth, read_lines, read_npy, read_text
from dar_ros.datasets.frames import Frames, checked
from dar_ros.errors import UsageError
from dar_ros.files import read_rgb
from dar_ros.geometry import Intrinsics

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg')


class FolderDataset(Frames):
    """
    Triples of one's own, as `dar extract` writes them.

        FOLDER/image/NAME.png|jpg
        FOLDER/depth/NAME.png (uint16, millimetres, 0: none) or NAME.npy (float, metres)
        FOLDER/intrinsics.json {"fx", "fy", "cx", "cy"}, or FOLDER/intrinsics/NAME.json

    The split is a text file of NAMEs; without one all count.
    """

    def __init__(self, folder, split=None):
        folder = existing(Path(folder), 'folder of the data set')
        images = sorted(
            path
            for path in existing(folder / 'image', 'folder of images').iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
        )
        if not images:
            raise UsageError(f'{folder / "image"}: no .png or .jpg there')
        for before, path in pairwise(images):
            if before.stem == path.stem:
                raise UsageError(f'{before} and {path.name}: one depth cannot be of both')
        if split:
            named = {key: p for p in images for key in (p.stem, p.name, f'image/{p.name}')}
            images = [
                named.get(name) or existing(folder / 'image' / name, f'image that {split} names')
                for name in read_lines(split)
            ]
        depths = list(existing(folder / 'depth', 'folder of depth images').iterdir())
        named = {
            path.stem: path
            for suffix in ('.png', '.npy')  # where both are there the array counts
            for path in depths
            if path.suffix.lower() == suffix
        }
        samples = []
        for path in images:
            depth = named.get(path.stem) or existing(
                folder / 'depth' / f'{path.stem}.png', f'depth of {path.name}, .png or .npy'
            )
            camera = folder / 'intrinsics' / f'{path.stem}.json'
            if not camera.exists():
                camera = existing(folder / 'intrinsics.json', 'intrinsics')
            samples.append((path, depth, camera))
        super().__init__(samples)

    def _frame(self, image, depth, camera):
        try:
            values = json.loads(read_text(camera, 'file of intrinsics'))
            intrinsics = Intrinsics(*(float(values[key]) for key in ('fx', 'fy', 'cx', 'cy')))
        except (ValueError, KeyError, TypeError):
            raise UsageError(f'{camera} does not hold the numbers fx, fy, cx, cy') from None
        metres = read_depth(depth, 1000) if depth.suffix.lower() == '.png' else read_npy(depth)
        return checked(read_rgb(image), metres, intrinsics, image)
