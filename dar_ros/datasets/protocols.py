"""Public data sets, each in its own layout and with its published protocol's crop and cap."""

from pathlib import Path

import numpy as np

from dar_ros.datasets.files import (
    existing,
    only_file,
    read_depth,
    read_lines,
    read_png16,
    read_text,
)
from dar_ros.datasets.frames import Frames, checked, only, require_same_size
from dar_ros.errors import UsageError
from dar_ros.files import read_rgb
from dar_ros.geometry import Intrinsics

NYU_INTRINSICS = Intrinsics(518.8579, 519.4696, 325.5824, 253.7362)  # the toolbox's RGB camera


class NyuDataset(Frames):
    """
    NYU Depth V2 by the list file of the field: lines `IMAGE DEPTH FOCAL`, paths below the root.

    Depth is 16-bit PNG in millimetres; the Eigen crop and 10 m cap apply.
    """

    size, crop, cap = (480, 640), (45, 471, 41, 601), 10.0

    def __init__(self, root, split):
        super().__init__(_listed(root, split))

    def _frame(self, image, depth, _):
        rgb, metres = read_rgb(image), read_depth(depth, 1000)
        if rgb.shape[:2] != self.size:
            rows, columns = rgb.shape[:2]
            raise UsageError(f'{image} is {columns}x{rows}: the crop is made for 640x480')
        return checked(rgb, only(metres, self.crop, 1e-3, self.cap), NYU_INTRINSICS, image)


class KittiDataset(Frames):
    """
    KITTI's Eigen split by the list file of the field: `IMAGE DEPTH FOCAL`, DEPTH perhaps None.

    Depth is 16-bit PNG, 256 a metre. 1216x352 bottom-centre crop, Garg crop, 80 m cap. The list
    has no principal point: the calibration that the raw drives hold is used where it lies beside
    them (DATE/calib_cam_to_cam.txt), else the image's centre. DEPTH may be relative to the train
    and val of data_depth_annotated, as KITTI packs it, to both put together, or the like in ROOT.
    """

    size, cap = (352, 1216), 80.0
    garg = (0.40810811, 0.99189189, 0.03594771, 0.96405229)

    _PARTS = ('', 'train', 'val')
    depth_folders = (*_PARTS, *(f'data_depth_annotated/{part}' for part in _PARTS))

    def __init__(self, root, split):
        super().__init__(_listed(root, split, self.depth_folders))
        self.root = Path(root)

    def _frame(self, image, depth, focal):
        rgb, metres = read_rgb(image), read_depth(depth, 256)
        require_same_size(rgb, metres, image)
        rows, columns = self.size
        top, left = rgb.shape[0] - rows, (rgb.shape[1] - columns) // 2
        if top < 0 or left < 0:
            raise UsageError(f'{image} is smaller than {columns}x{rows}')
        intrinsics = self._camera(image, focal, rgb.shape[:2]).crop(left, top)
        rgb, metres = (a[top : top + rows, left : left + columns] for a in (rgb, metres))
        box = [int(share * side) for share, side in zip(self.garg, (rows, rows, columns, columns))]
        return checked(rgb, only(metres, box, 1e-3, self.cap), intrinsics, image)

    def _camera(self, image, focal, size):
        date = image.relative_to(self.root).parts[0]
        calibration = self.root / date / 'calib_cam_to_cam.txt'
        if not calibration.exists():
            return Intrinsics.centered(focal, size[1], size[0])
        for line in read_text(calibration, 'calibration').splitlines():
            if line.startswith('P_rect_02:'):
                try:
                    p = [float(value) for value in line.split()[1:]]
                    return Intrinsics(p[0], p[5], p[2], p[6])
                except (ValueError, IndexError):
                    break
        raise UsageError(f'{calibration} does not hold the 12 numbers of P_rect_02')


class SunRgbdDataset(Frames):
    r"""
    SUN RGB-D as distributed: scene folders of image/, depth_bfx/ and intrinsics.txt; cap 8 m.

    The split is a text file of scene folders below the root, one a line; what stands before
    SUNRGBD/ in them, as in the official one, does not count. The toolbox's becomes text by

        python3 -c "import scipy.io as io; print(*(str(p.item()) for p in io.loadmat(
        'allsplit.mat')['alltest'].flat), sep='\n')" > test.txt
    """

    cap = 8.0

    def __init__(self, root, split):
        root = existing(Path(root), 'folder of the data set')
        samples = []
        for line in read_lines(split):
            scene = line.rpartition('SUNRGBD/')[2].strip('/')
            scene = existing(root / scene, f'scene that {split} names')
            camera = existing(scene / 'intrinsics.txt', 'intrinsics of a scene')
            samples.append((only_file(scene / 'image'), only_file(scene / 'depth_bfx'), camera))
        super().__init__(samples)

    def _frame(self, image, depth, camera):
        raw = read_png16(depth)
        metres = ((raw >> 3) | (raw << 13)).astype(np.float32) / 1000  # as its toolbox unpacks it
        try:
            k = np.array(read_text(camera, 'file of intrinsics').split(), float).reshape(3, 3)
        except ValueError:
            raise UsageError(f'{camera} does not hold the 9 numbers of K') from None
        rgb = read_rgb(image)
        everything = (0, rgb.shape[0], 0, rgb.shape[1])
        intrinsics = Intrinsics(*(float(k[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2))))
        return checked(rgb, only(metres, everything, 1e-3, self.cap), intrinsics, image)


def _listed(root, split, depth_folders=('',)):
    """Return (image, depth, focal) of the lines of a list; depth below one of `depth_folders`."""
    root = existing(Path(root), 'folder of the data set')
    samples = []
    for number, line in enumerate(read_lines(split), 1):
        try:
            image, depth, focal = line.split()
            focal = float(focal)
        except ValueError:
            raise UsageError(
                f'{split}, line {number}: `IMAGE DEPTH FOCAL` is expected, paths without spaces'
            ) from None
        if depth == 'None':  # KITTI: 45 of 697 have no ground truth
            continue
        image = existing(root / image.lstrip('/'), 'image')
        places = [root / folder / depth.lstrip('/') for folder in depth_folders]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            others = ', '.join(str(folder) for folder in depth_folders[1:])
            below = f', nor is it below {others}' if others else ''
            raise UsageError(f'{places[0]} is missing (depth){below}')
        samples.append((image, found, focal))
    if not samples:
        raise UsageError(f'{split} names no frame with depth')
    return samples
