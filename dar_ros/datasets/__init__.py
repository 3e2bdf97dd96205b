"""
Real data sets as frames (RGB, metric depth, intrinsics), each protocol's crop and cap applied.

Depth that a protocol does not score is NaN, so that whoever uses a frame needs to know no
protocol.
"""

from dar_ros.datasets.folder import FolderDataset
from dar_ros.datasets.protocols import KittiDataset, NyuDataset, SunRgbdDataset
from dar_ros.datasets.stereo import StereoDataset
from dar_ros.errors import UsageError

DATASETS = {
    'folder': FolderDataset,
    'nyu': NyuDataset,
    'kitti': KittiDataset,
    'sunrgbd': SunRgbdDataset,
    'stereo': StereoDataset,
}


def open_dataset(name, root, split=None):
    """Frames of one of DATASETS; UsageError names the file or folder that is missing."""
    if root is None:
        raise UsageError(f'--dataset {name} needs --data FOLDER')
    return DATASETS[name](root, split)
