"""
Real data sets as frames (RGB, metric depth, intrinsics), each protocol's crop and cap applied.

Depth that a protocol does not score is NaN, so that whoever uses a frame needs to know no
protocol.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from dar_ros.errors import UsageError
from dar_ros.files import read_rgb
from dar_ros.geometry import Intrinsics
from dar_ros.simulation.dataset import StoredFrame

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg')
NYU_INTRINSICS = Intrinsics(518.8579, 519.4696, 325.5824, 253.7362)  # the toolbox's RGB camera
MATCHED_DEPTH = (
    0.3,
    5.0,
)  # metres within which stereo on a 7.5 cm baseline is worth comparing with


class _Frames:
    """A list of samples that become StoredFrames when asked for."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        """Return the number of frames."""
        return len(self.samples)

    def __getitem__(self, index):
        """Return a StoredFrame whose depth is NaN where it must not be scored."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._frame(*self.samples[index])


class FolderDataset(_Frames):
    """
    Triples of one's own, as `dar extract` writes them.

        FOLDER/image/NAME.png|jpg
        FOLDER/depth/NAME.png (uint16, millimetres, 0: none) or NAME.npy (float, metres)
        FOLDER/intrinsics.json {"fx", "fy", "cx", "cy"}, or FOLDER/intrinsics/NAME.json

    The split is a text file of NAMEs; without one all count.
    """

    def __init__(self, folder, split=None):
        folder = _existing(Path(folder), 'folder of the data set')
        images = sorted(
            path
            for path in _existing(folder / 'image', 'folder of images').iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
        )
        if not images:
            raise UsageError(f'{folder / "image"}: no .png or .jpg there')
        if split:
            named = {path.stem: path for path in images}
            images = [
                named.get(name) or _existing(folder / 'image' / name, f'image that {split} names')
                for name in _lines(split)
            ]
        _existing(folder / 'depth', 'folder of depth images')
        samples = []
        for path in images:
            depth = folder / 'depth' / f'{path.stem}.npy'
            if not depth.exists():
                depth = _existing(depth.with_suffix('.png'), f'depth of {path.name}, .png or .npy')
            camera = folder / 'intrinsics' / f'{path.stem}.json'
            if not camera.exists():
                camera = _existing(folder / 'intrinsics.json', 'intrinsics')
            samples.append((path, depth, camera))
        super().__init__(samples)

    def _frame(self, image, depth, camera):
        try:
            values = json.loads(camera.read_text())
            intrinsics = Intrinsics(*(float(values[key]) for key in ('fx', 'fy', 'cx', 'cy')))
        except (ValueError, KeyError, TypeError):
            raise UsageError(f'{camera} does not hold the numbers fx, fy, cx, cy') from None
        metres = read_depth(depth, 1000) if depth.suffix == '.png' else _load_npy(depth)
        return _stored(read_rgb(image), metres, intrinsics, image)


class NyuDataset(_Frames):
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
        return _stored(rgb, only(metres, self.crop, 1e-3, self.cap), NYU_INTRINSICS, image)


class KittiDataset(_Frames):
    """
    KITTI's Eigen split by the list file of the field: `IMAGE DEPTH FOCAL`, DEPTH perhaps None.

    Depth is 16-bit PNG, 256 a metre. 1216x352 bottom-centre crop, Garg crop, 80 m cap. The list
    has no principal point: the calibration that the raw drives hold is used where it lies beside
    them (DATE/calib_cam_to_cam.txt), else the image's centre. DEPTH may be relative to
    data_depth_annotated, as KITTI packs it or with its train and val put together.
    """

    size, cap = (352, 1216), 80.0
    garg = (0.40810811, 0.99189189, 0.03594771, 0.96405229)

    depth_folders = ('', *(f'data_depth_annotated/{part}' for part in ('', 'train', 'val')))

    def __init__(self, root, split):
        super().__init__(_listed(root, split, self.depth_folders))
        self.root = Path(root)

    def _frame(self, image, depth, focal):
        rgb, metres = read_rgb(image), read_depth(depth, 256)
        _require_same_size(rgb, metres, image)
        rows, columns = self.size
        top, left = rgb.shape[0] - rows, (rgb.shape[1] - columns) // 2
        if top < 0 or left < 0:
            raise UsageError(f'{image} is smaller than {columns}x{rows}')
        intrinsics = self._camera(image, focal, rgb.shape[:2]).crop(left, top)
        rgb, metres = (a[top : top + rows, left : left + columns] for a in (rgb, metres))
        box = [int(share * side) for share, side in zip(self.garg, (rows, rows, columns, columns))]
        return _stored(rgb, only(metres, box, 1e-3, self.cap), intrinsics, image)

    def _camera(self, image, focal, size):
        date = image.relative_to(self.root).parts[0]
        calibration = self.root / date / 'calib_cam_to_cam.txt'
        if calibration.exists():
            for line in calibration.read_text().splitlines():
                if line.startswith('P_rect_02:'):
                    p = [float(value) for value in line.split()[1:]]
                    return Intrinsics(p[0], p[5], p[2], p[6])
        return Intrinsics.centered(focal, size[1], size[0])


class SunRgbdDataset(_Frames):
    """
    SUN RGB-D as distributed: scene folders of image/, depth_bfx/ and intrinsics.txt; cap 8 m.

    The split is a text file of scene folders below the root, one a line.
    """

    cap = 8.0

    def __init__(self, root, split):
        root = _existing(Path(root), 'folder of the data set')
        samples = []
        for line in _lines(split):
            scene = _existing(root / line, f'scene that {split} names')
            camera = _existing(scene / 'intrinsics.txt', 'intrinsics of a scene')
            samples.append((_only_file(scene / 'image'), _only_file(scene / 'depth_bfx'), camera))
        super().__init__(samples)

    def _frame(self, image, depth, camera):
        raw = _read_png16(depth)
        metres = ((raw >> 3) | (raw << 13)).astype(np.float32) / 1000  # as its toolbox unpacks it
        try:
            k = np.array(camera.read_text().split(), float).reshape(3, 3)
        except ValueError:
            raise UsageError(f'{camera} does not hold the 9 numbers of K') from None
        rgb = read_rgb(image)
        everything = (0, rgb.shape[0], 0, rgb.shape[1])
        intrinsics = Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        return _stored(rgb, only(metres, everything, 1e-3, self.cap), intrinsics, image)


class StereoDataset(_Frames):
    """
    Rectified pairs of a stereo camera, depth by matching: real images where no better truth is.

        FOLDER/NAME_left.png, NAME_right.png, FOLDER/*.json {"fx", "cx0", "cx1", "cy",
        "baseline_meters"}

    The split is a text file of NAMEs. Matching is semi-global (Hirschmueller 2008, OpenCV), both
    ways; a pixel counts where both agree within a pixel and the surface is between 0.3 and 5 m.
    """

    def __init__(self, folder, split=None):
        folder = _existing(Path(folder), 'folder of the data set')
        names = (
            _lines(split)
            if split
            else sorted(path.name[: -len('_left.png')] for path in folder.glob('*_left.png'))
        )
        calibration = next(iter(sorted(folder.glob('*.json'))), None)
        if not names or calibration is None:
            raise UsageError(f'{folder}: NAME_left.png, NAME_right.png and a .json are expected')
        try:
            camera = json.loads(calibration.read_text())
            self.fx, self.cx, self.cy = (float(camera[key]) for key in ('fx', 'cx0', 'cy'))
            self.baseline, self.shift = camera['baseline_meters'], camera['cx1'] - camera['cx0']
        except (ValueError, KeyError, TypeError):
            raise UsageError(f'{calibration} holds no fx, cx0, cx1, cy, baseline_meters') from None
        pair = [
            tuple(folder / f'{name}_{side}.png' for side in ('left', 'right')) for name in names
        ]
        super().__init__([tuple(_existing(p, 'image of a pair') for p in both) for both in pair])

    def _frame(self, left, right):
        rgb = read_rgb(left)
        views = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (rgb, read_rgb(right))]
        # cx0 - cx1 is the disparity of a point at infinity.
        disparity = matched_disparity(*views) + self.shift
        with np.errstate(divide='ignore'):
            depth = self.fx * self.baseline / disparity
        everything = (0, depth.shape[0], 0, depth.shape[1])
        camera = Intrinsics(self.fx, self.fx, self.cx, self.cy)
        return _stored(rgb, only(depth, everything, *MATCHED_DEPTH), camera, left)


def matched_disparity(left, right, most=128):
    """Disparity (H, W) in pixels of grey rectified images; NaN where the two ways disagree."""

    def match(first, second):
        matcher = cv2.StereoSGBM_create(
            0, most, 5, 8 * 25, 32 * 25, 1, 31, 10, 100, 2, cv2.STEREO_SGBM_MODE_HH
        )
        # Without a margin the columns nearer than `most` to the border have no match.
        first, second = (
            cv2.copyMakeBorder(v, 0, 0, most, 0, cv2.BORDER_CONSTANT) for v in (first, second)
        )
        found = matcher.compute(first, second)[:, most:].astype(np.float32) / 16
        return np.where(found > 0, found, np.nan)

    ahead = match(left, right)
    back = match(right[:, ::-1].copy(), left[:, ::-1].copy())[:, ::-1]
    columns = np.arange(left.shape[1])[None] - np.nan_to_num(ahead).round().astype(int)
    other = np.take_along_axis(back, np.clip(columns, 0, None), 1)
    agree = (np.abs(ahead - other) <= 1) & (columns >= 0)
    return np.where(agree, ahead, np.nan)


def only(depth, box, near, far):
    """Depth (H, W), NaN outside rows and columns (top, bottom, left, right) and (near, far)."""
    top, bottom, left, right = box
    inside = np.zeros(depth.shape, bool)
    inside[top:bottom, left:right] = True
    with np.errstate(invalid='ignore'):
        inside &= (depth > near) & (depth < far)
    return np.where(inside, depth, np.nan).astype(np.float32)


def read_depth(path, per_metre):
    """16-bit PNG -> metres float32 (H, W), 0 becomes NaN."""
    metres = _read_png16(path).astype(np.float32) / per_metre
    return np.where(metres > 0, metres, np.nan)


def _read_png16(path):
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype != np.uint16 or raw.ndim != 2:
        raise UsageError(f'{path} is no 16-bit depth image of one channel')
    return raw


def _load_npy(path):
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise UsageError(f'{path} is no array') from None
    if depth.ndim != 2 or depth.dtype.kind != 'f':
        raise UsageError(f'{path} is no float array (rows, columns) of metres')
    depth = depth.astype(np.float32)
    return np.where(depth > 0, depth, np.nan)


def _require_same_size(rgb, metres, name):
    if metres.shape != rgb.shape[:2]:
        raise UsageError(f'{name}: image {rgb.shape[:2]} and depth {metres.shape} differ in size')


def _stored(rgb, metres, intrinsics, name):
    _require_same_size(rgb, metres, name)
    if not (np.isfinite(intrinsics.matrix()).all() and min(intrinsics.fx, intrinsics.fy) > 0):
        raise UsageError(f'{name}: no camera has the {intrinsics} that it comes with')
    return StoredFrame(np.ascontiguousarray(rgb), np.ascontiguousarray(metres), intrinsics)


def _existing(path, what):
    if not path.exists():
        raise UsageError(f'{path} is missing ({what})')
    return path


def _only_file(folder):
    files = sorted(_existing(folder, 'folder of a scene').iterdir())
    if len(files) != 1:
        raise UsageError(f'{folder}: one file is expected, there are {len(files)}')
    return files[0]


def _lines(path):
    if path is None:
        raise UsageError('this data set needs its list of frames: --split-file FILE')
    try:
        lines = _existing(Path(path), 'list of frames').read_text().splitlines()
    except UnicodeDecodeError:
        raise UsageError(f'{path} is no list of frames, which is text') from None
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise UsageError(f'{path} is empty')
    return lines


def _listed(root, split, depth_folders=('',)):
    root = _existing(Path(root), 'folder of the data set')
    samples = []
    for number, line in enumerate(_lines(split), 1):
        try:
            image, depth, focal = line.split()
            focal = float(focal)
        except ValueError:
            raise UsageError(f'{split}, line {number}: `IMAGE DEPTH FOCAL` is expected') from None
        if depth == 'None':  # KITTI: 45 of 697 have no ground truth
            continue
        places = [root / folder / depth.lstrip('/') for folder in depth_folders]
        depth = next((place for place in places if place.exists()), places[0])
        image = _existing(root / image.lstrip('/'), 'image')
        samples.append((image, _existing(depth, 'depth'), focal))
    return samples


DATASETS = {
    'folder': FolderDataset,
    'nyu': NyuDataset,
    'kitti': KittiDataset,
    'sunrgbd': SunRgbdDataset,
    'stereo': StereoDataset,
}


def spread(frames, count=None):
    """
    Return the indices of `count` frames evenly spread over a data set, first and last among them;
    of all of them, if it has no more or `count` is None.

    The first ones of a recording would be one place.
    """
    total = len(frames)
    return np.linspace(0, total - 1, min(total, count or total)).astype(int).tolist()


def open_dataset(name, root, split=None):
    """Frames of one of DATASETS; UsageError names the file or folder that is missing."""
    if root is None:
        raise UsageError(f'--dataset {name} needs --data FOLDER')
    return DATASETS[name](root, split)
