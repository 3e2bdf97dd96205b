"""
The `dar` command. Exit codes: 0 done, 1 the job failed, 2 wrong use; one line on stderr for
either.
"""

import argparse
import json
import sys
from pathlib import Path

from dar_ros import __version__
from dar_ros.errors import DarError, UsageError

REAL_DATASETS = ('folder', 'nyu', 'kitti', 'sunrgbd', 'stereo')  # of dar_ros.evaluation.datasets
BENCHMARK_PARTS = (  # of dar_ros.benchmark
    'stages',
    'backends',
    'messages',
    'budget',
    'decoder',
    'peers',
    'node',
    'endurance',
)
INSTALL = {
    'torch': 'pip install "dar_ros[train]"',
    'timm': 'pip install "dar_ros[train]"',
    'lightning_fabric': 'pip install "dar_ros[train]"',
    'onnx': 'pip install "dar_ros[train]"',
    'onnxscript': 'pip install "dar_ros[train]"',
    'safetensors': 'pip install "dar_ros[train]"',
    'yaml': 'pip install "dar_ros[train]"',
    'mujoco': 'pip install "dar_ros[sim]"',
    'onnxruntime': 'pip install onnxruntime',
    'tqdm': 'pip install tqdm',
    'rosbags': 'pip install "dar_ros[bags]"',
    'trimesh': 'pip install "dar_ros[sim]"',
    'cv2': 'pip install opencv-python-headless',
    'transformers': 'pip install "dar_ros[bench]"',
    'rclpy': 'pip install "dar_ros[ros]", or source a ROS 2 installation',
}


def main(argv=None):
    """Parse, run one command, return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except UsageError as error:
        return _fail(error, 2)
    except DarError as error:
        return _fail(error, 1)
    except ImportError as error:
        cure = INSTALL.get((error.name or '').split('.')[0])
        if cure is None:
            raise
        return _fail(f'{error.name} is missing: {cure}', 1)
    except OSError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail('interrupted', 130)
    return 0


def _fail(reason, code):
    print(f'dar: {" ".join(str(reason).split())}', file=sys.stderr)
    return code


def build_parser():
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(
        prog='dar', description='Metric depth from one camera by DAR (CVPR 2025).'
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    def command(name, run, text, example):
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f'example: {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        'info', info, 'Describe a preset or a model bundle.', 'dar info dar_small --json'
    )
    sub.add_argument(
        'model', nargs='?', help='preset name or bundle folder (default: the bundled model)'
    )
    sub.add_argument('--json', action='store_true', help='print one JSON object')

    sub = command(
        'simulate',
        simulate,
        'Render a data set: RGB, exact depth, intrinsics.',
        'dar simulate --split train --frames 8000 --seed 0 --out data/train',
    )
    sub.add_argument('--split', choices=('train', 'val', 'test'), required=True)
    sub.add_argument('--frames', type=_positive, required=True)
    sub.add_argument('--seed', type=int, default=0)
    sub.add_argument('--out', required=True, help='folder; an interrupted run is continued')
    sub.add_argument(
        '--size', type=_size, default=(240, 320), help='HxW in pixels (default 240x320)'
    )
    sub.add_argument('--workers', type=_positive, default=2, help='processes (default 2)')

    sub = command(
        'train',
        train,
        'Train a model by a configuration file.',
        'dar train --config config/training/dar_tiny.yaml --resume',
    )
    sub.add_argument('--config', required=True, help='YAML file; see config/training')
    sub.add_argument(
        '--resume', action='store_true', help='continue from the last checkpoint, exactly'
    )
    sub.add_argument('--out', help="folder for checkpoints and log (default: the file's)")
    sub.add_argument(
        '--minutes', type=float, default=0.0, help='stop after that time, to be resumed; 0: never'
    )

    sub = command(
        'export',
        export,
        'Turn a checkpoint into a model bundle; fails unless it computes the same.',
        'dar export runs/dar_tiny/best --out models/mine',
    )
    sub.add_argument('checkpoint', help='folder that `dar train` wrote')
    sub.add_argument('--out', required=True, help='bundle folder')
    sub.add_argument(
        '--input-size', type=_size, help='HxW, multiples of 8 (default: the trained one)'
    )

    sub = command(
        'predict',
        predict,
        'Depth of image files: x.npy (metres), x_depth.png, x.ply.',
        'dar predict room.jpg --fov 70 --out depth/',
    )
    sub.add_argument('images', nargs='+', metavar='IMAGE')
    camera = sub.add_mutually_exclusive_group(required=True)
    camera.add_argument(
        '--focal', type=float, metavar='PX', help='focal length in pixels of the image'
    )
    camera.add_argument(
        '--fov', type=float, metavar='DEG', help='horizontal field of view in degrees'
    )
    sub.add_argument('--out', required=True, help='folder')
    _model_options(sub)

    sub = command(
        'evaluate',
        evaluate,
        'Score a model on a data set, after every step.',
        'dar evaluate --dataset sim --frames 200 --json',
    )
    sub.add_argument('--dataset', choices=('sim', *REAL_DATASETS), default='sim')
    sub.add_argument(
        '--data', help='folder of the data set (default for sim: the frozen test split, generated)'
    )
    sub.add_argument(
        '--split-file', help='list of frames: nyu, kitti, sunrgbd; stereo may have one'
    )
    sub.add_argument('--flip', action='store_true', help='average with the mirrored image')
    sub.add_argument('--frames', type=_positive, default=200)
    sub.add_argument('--json', action='store_true', help='print one JSON object')
    _model_options(sub)

    sub = command(
        'extract',
        extract,
        'Turn a ROS 2 bag of an RGB-D camera into a `folder` data set.',
        'dar extract drive.bag --image /rgb/image_raw --depth /depth/image_raw '
        '--camera-info /rgb/camera_info --out data/mine',
    )
    sub.add_argument('bag', help='folder or file of the bag')
    sub.add_argument('--image', required=True, metavar='TOPIC')
    sub.add_argument('--depth', required=True, metavar='TOPIC', help='registered to the image')
    sub.add_argument('--camera-info', required=True, metavar='TOPIC')
    sub.add_argument('--out', required=True, help='folder')
    sub.add_argument('--every', type=_positive, default=1, help='keep every n-th frame')
    sub.add_argument(
        '--slop', type=float, default=0.02, help='seconds between image and depth (default 0.02)'
    )

    sub = command(
        'calibrate',
        calibrate,
        'Fit depth_scale to a data set with known depth.',
        'dar calibrate --data data/mine',
    )
    sub.add_argument('--dataset', choices=REAL_DATASETS, default='folder')
    sub.add_argument('--data', required=True, help='folder of the data set')
    sub.add_argument('--split-file', help='list of frames')
    sub.add_argument('--frames', type=_positive, default=200)
    sub.add_argument('--json', action='store_true', help='print one JSON object')
    _model_options(sub)

    sub = command(
        'doctor',
        doctor,
        'Tell what this machine has, what the node lacks, and what to install next.',
        'dar doctor --json',
    )
    sub.add_argument('--model', help='bundle folder (default: the bundled model)')
    sub.add_argument('--json', action='store_true', help='print one JSON object')

    sub = command(
        'benchmark',
        benchmark,
        'Measure stages, steps, backends, the node over DDS, peers and floors.',
        'dar benchmark --only stages node --check',
    )
    sub.add_argument('--only', nargs='+', metavar='PART', choices=BENCHMARK_PARTS, default=())
    sub.add_argument('--check', action='store_true', help='exit code 1 if a check falls short')
    sub.add_argument('--json', action='store_true', help='print one JSON object')
    sub.add_argument('--model', help='bundle folder (default: the bundled model)')
    sub.add_argument('--rounds', type=_positive, default=50, help='of every timing (default 50)')
    sub.add_argument(
        '--frames', type=_positive, default=20000, help='of the endurance run (default 20000)'
    )
    sub.add_argument(
        '--seconds', type=_positive, default=10, help='of every run of the node (default 10)'
    )
    return parser


def _model_options(parser):
    parser.add_argument('--model', help='bundle folder (default: the bundled model)')
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--num-steps', type=int, default=0, help='steps to take (default: all)')
    parser.add_argument(
        '--depth-min', type=float, default=0.0, metavar='M', help="metres (default: the model's)"
    )
    parser.add_argument(
        '--depth-max', type=float, default=0.0, metavar='M', help="metres (default: the model's)"
    )


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 1')
    return value


def _size(text):
    try:
        rows, columns = (int(part) for part in text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not HxW') from None
    if rows < 1 or columns < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size')
    return rows, columns


def _print_json(data):
    print(json.dumps(data))


def info(arguments):
    """`dar info`."""
    from dar_ros.bundle import open_bundle

    model = arguments.model
    if model is None or Path(model).exists() or '/' in model:
        described = open_bundle(model).describe()
    else:
        import torch

        from dar_ros.model.dar import DAR
        from dar_ros.model.presets import preset

        config = preset(model)
        with torch.device('meta'):
            parameters = sum(p.numel() for p in DAR(config).parameters())
        described = {
            **config.to_dict(),
            'parameters': parameters,
            'num_steps': config.num_steps,
            'grid_sizes': config.grid_sizes(),
            'depth_grid_sizes': config.depth_grid_sizes(),
        }
    if arguments.json:
        _print_json(described)
        return
    for key in (
        'name',
        'parameters',
        'input_size',
        'num_steps',
        'num_bins',
        'bin_space',
        'depth_range',
        'grid_sizes',
        'canonical_focal',
        'licence',
    ):
        if key in described:
            print(f'{key:16} {described[key]}')


def simulate(arguments):
    """`dar simulate`."""
    from dar_ros.simulation.dataset import generate

    generate(
        arguments.out,
        arguments.split,
        arguments.frames,
        arguments.seed,
        arguments.size,
        arguments.workers,
    )
    print(f'{arguments.frames} frames in {arguments.out}')


def train(arguments):
    """`dar train`."""
    from dar_ros.training.train import train as run

    best = run(arguments.config, arguments.resume, arguments.out, arguments.minutes)
    print(f'best checkpoint: {best}' if best else 'stopped in time: continue with --resume')


def export(arguments):
    """`dar export`."""
    from dar_ros.export import export as run

    bundle = run(arguments.checkpoint, arguments.out, arguments.input_size)
    print(f'{bundle.name}: parity checked, written to {bundle.path}')


def _settings(arguments):
    from dar_ros.pipeline import DepthSettings

    return DepthSettings(arguments.num_steps, arguments.depth_min, arguments.depth_max)


def _pipeline(arguments):
    from dar_ros.pipeline import open_pipeline

    pipeline = open_pipeline(arguments.model, arguments.backend)
    _settings(arguments).resolve(pipeline.bundle)  # wrong use shows before any work
    return pipeline


def predict(arguments):
    """`dar predict`."""
    import cv2

    from dar_ros.files import write_depth
    from dar_ros.geometry import Intrinsics

    if arguments.focal is not None and not arguments.focal > 0:
        raise UsageError(f'--focal {arguments.focal} must be above 0')
    if arguments.fov is not None and not 0 < arguments.fov < 180:
        raise UsageError(f'--fov {arguments.fov} must lie between 0 and 180')
    missing = [path for path in arguments.images if not Path(path).is_file()]
    if missing:
        raise UsageError(f'{missing[0]}: no such image')
    stems = [Path(path).stem for path in arguments.images]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise UsageError(
            f'two images are named {twice.pop()}: their results would overwrite each other'
        )
    pipeline, settings, out = _pipeline(arguments), _settings(arguments), Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    _, depth_range = settings.resolve(pipeline.bundle)
    for path, stem in zip(arguments.images, stems):
        image = cv2.imread(path, cv2.IMREAD_COLOR)
        if image is None:
            raise DarError(f'{path} is no readable image')
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        intrinsics = (
            Intrinsics.from_fov(arguments.fov, width, height)
            if arguments.focal is None
            else Intrinsics(arguments.focal, arguments.focal, (width - 1) / 2, (height - 1) / 2)
        )
        frame = pipeline(image, intrinsics, settings)
        near, far, share = write_depth(out / stem, frame, image, depth_range)
        print(f'{path}: {near:.2f}-{far:.2f} m, {share:.1%} valid, {frame.steps} steps')


def evaluate(arguments):
    """`dar evaluate`."""
    from dar_ros.evaluation.evaluate import evaluate as run
    from dar_ros.evaluation.evaluate import frozen_test_split, table

    pipeline = _pipeline(arguments)
    if arguments.dataset != 'sim':
        from dar_ros.evaluation.datasets import open_dataset

        frames = open_dataset(arguments.dataset, arguments.data, arguments.split_file)
    elif arguments.data:
        from dar_ros.simulation.dataset import SimDataset

        frames = SimDataset(arguments.data)
    else:
        frames = frozen_test_split(arguments.frames)
    settings = _settings(arguments)
    report = run(pipeline, frames, arguments.frames, settings, flip=arguments.flip)
    if arguments.json:
        _print_json(report)
    else:
        print(table(report))


def extract(arguments):
    """`dar extract`."""
    from dar_ros.ros.extract import extract as run

    topics = (arguments.image, arguments.depth, arguments.camera_info)
    count = run(arguments.bag, topics, arguments.out, arguments.every, arguments.slop)
    print(f'{count} frames in {arguments.out}')


def calibrate(arguments):
    """`dar calibrate`."""
    from dar_ros.evaluation.calibrate import fit_depth_scale
    from dar_ros.evaluation.datasets import open_dataset

    pipeline = _pipeline(arguments)
    frames = open_dataset(arguments.dataset, arguments.data, arguments.split_file)
    report = fit_depth_scale(pipeline, frames, arguments.frames, _settings(arguments))
    if arguments.json:
        _print_json(report)
        return
    print(f'depth_scale: {report["depth_scale"]:.3f}')
    print(
        f'{report["frames"]} frames need {report["low"]:.3f} to {report["high"]:.3f} (80 %), '
        f'abs_rel {report["abs_rel_before"]:.3f} becomes {report["abs_rel_after"]:.3f}'
    )


def doctor(arguments):
    """`dar doctor`."""
    from dar_ros.doctor import FAIL, as_json, examine, report

    findings = examine(arguments.model)
    if arguments.json:
        _print_json(as_json(findings))
    else:
        print(report(findings))
    failed = [found.name for found in findings if found.level == FAIL]
    if failed:
        raise DarError(f'the node cannot run here: {", ".join(failed)}')


def benchmark(arguments):
    """`dar benchmark`."""
    from dataclasses import asdict

    from dar_ros import benchmark as bench
    from dar_ros.benchmark.timing import report

    def progress(part):
        print(f'benchmark: {part} ...', file=sys.stderr)

    with bench.working_folder() as folder:
        result = bench.run(
            bench.Bench(
                Path(folder),
                arguments.model,
                arguments.rounds,
                arguments.frames,
                arguments.seconds,
            ),
            arguments.only,
            progress,
        )
    if arguments.json:
        _print_json({**result, 'parts': {n: asdict(part) for n, part in result['parts'].items()}})
    else:
        print(report(result))
    short = [check['name'] for check in result['checks'] if not check['ok']]
    if arguments.check and short:
        raise DarError(f'{", ".join(short)} fell short')


if __name__ == '__main__':
    sys.exit(main())
