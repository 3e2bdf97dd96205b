"""What several commands share: options, and what is made of them."""

import argparse
import math
from contextlib import contextmanager

from dar_ros.errors import UsageError

REAL_DATASETS = ('folder', 'nyu', 'kitti', 'sunrgbd', 'stereo')  # of dar_ros.datasets


def model_options(parser):
    """Add what says which model runs, how, and over which range."""
    parser.add_argument(
        '--model', help='folder of a bundle or a checkpoint (default: the bundled model)'
    )
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--num-steps', type=int, default=0, help='steps to take (default: all)')
    parser.add_argument(
        '--depth-min', type=float, default=0.0, metavar='M', help="metres (default: the model's)"
    )
    parser.add_argument(
        '--depth-max', type=float, default=0.0, metavar='M', help="metres (default: the model's)"
    )


def camera_options(parser, required):
    """Add --focal and --fov, of which one is given."""
    camera = parser.add_mutually_exclusive_group(required=required)
    camera.add_argument(
        '--focal', type=float, metavar='PX', help='focal length in pixels of the image'
    )
    camera.add_argument(
        '--fov', type=float, metavar='DEG', help='horizontal field of view in degrees'
    )


def check_camera(arguments):
    """Refuse a focal length or a field of view that no camera has."""
    if arguments.focal is not None and not arguments.focal > 0:
        raise UsageError(f'--focal {arguments.focal} must be above 0')
    if arguments.fov is not None and not 0 < arguments.fov < 180:
        raise UsageError(f'--fov {arguments.fov} must lie between 0 and 180')


def camera_of(arguments, image):
    """Intrinsics of an image (H, W, 3) by --focal or --fov: centred, square pixels."""
    from dar_ros.geometry import Intrinsics

    height, width = image.shape[:2]
    if arguments.focal is None:
        return Intrinsics.from_fov(arguments.fov, width, height)
    return Intrinsics.centered(arguments.focal, width, height)


def settings_of(arguments):
    """DepthSettings of `model_options`."""
    from dar_ros.pipeline import DepthSettings

    return DepthSettings(arguments.num_steps, arguments.depth_min, arguments.depth_max)


@contextmanager
def pipeline_of(arguments):
    """Pipeline of `model_options` while the block lasts; see opened."""
    from dar_ros.pipeline import opened

    with opened(arguments.model, arguments.backend) as pipeline:
        settings_of(arguments).resolve(pipeline.bundle)  # wrong use shows before any work
        yield pipeline


def check_split_file(arguments):
    """Refuse a list of frames for a data set that knows none."""
    if arguments.split_file and arguments.dataset == 'sim':
        raise UsageError('--split-file: simulated data sets have no list of frames')


def frames_of(arguments):
    """Frames of --dataset, --data and --split-file."""
    if arguments.dataset == 'sim':
        from dar_ros.simulation.dataset import SimDataset

        return SimDataset(arguments.data)
    from dar_ros.datasets import open_dataset

    return open_dataset(arguments.dataset, arguments.data, arguments.split_file)


def positive(text):
    """Type of an argument: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 1')
    return value


def natural(text):
    """Type of an argument: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f'{text} is negative')
    return value


def duration(text):
    """Type of an argument: a finite time of at least 0."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is no time of at least 0')
    return value


def size(text):
    """Type of an argument: HxW."""
    try:
        rows, columns = (int(part) for part in text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not HxW') from None
    if rows < 1 or columns < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size')
    return rows, columns
