"""
The `dar` command. Exit codes: 0 done, 1 the job failed, 2 wrong use; one line on stderr for
either.
"""

import argparse
import sys
from pathlib import Path

from dar_ros import __version__
from dar_ros.cli_evaluate import add_commands
from dar_ros.cli_machine import add_machine_commands
from dar_ros.cli_options import (
    camera_of,
    camera_options,
    check_camera,
    duration,
    model_options,
    natural,
    pipeline_of,
    positive,
    settings_of,
    size,
)
from dar_ros.console import print_json, say
from dar_ros.cures import extra_install
from dar_ros.errors import DarError, UsageError

EXTRAS = {  # of what is imported where it is needed
    'torch': 'train',
    'timm': 'train',
    'lightning_fabric': 'train',
    'onnx': 'train',
    'onnxscript': 'train',
    'safetensors': 'train',
    'yaml': 'train',
    'mujoco': 'sim',
    'trimesh': 'sim',
    'rosbags': 'bags',
    'matplotlib': 'plot',
    'transformers': 'bench',
    'onnxruntime': 'runtime',
    'tqdm': 'runtime',
    'cv2': 'runtime',
    'rclpy': 'ros',
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
        extra = EXTRAS.get((error.name or '').split('.')[0])
        if extra is None:
            raise
        cure = extra_install(extra)
        if extra == 'ros':
            cure = f'source a ROS 2 installation, or {cure}'
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
    sub.add_argument(
        '--split', choices=('train', 'close', 'bare', 'passages', 'val', 'test'), required=True
    )
    sub.add_argument('--frames', type=positive, required=True)
    sub.add_argument('--seed', type=natural, default=0)
    sub.add_argument('--out', required=True, help='folder; an interrupted run is continued')
    sub.add_argument(
        '--size', type=size, default=(240, 320), help='HxW in pixels (default 240x320)'
    )
    sub.add_argument('--workers', type=positive, default=2, help='processes (default 2)')
    sub.add_argument('--sheet', metavar='PNG', help='also lay out some frames in one picture')

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
        '--minutes',
        type=duration,
        default=0.0,
        help='stop after that time, to be resumed; 0: never',
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
        '--input-size', type=size, help='HxW, multiples of 8 (default: the trained one)'
    )
    sub.add_argument(
        '--encoder', metavar='FILE', help="the backbone's weights, where a checkpoint lacks them"
    )

    sub = command(
        'predict',
        predict,
        'Depth of image files: x.npy (metres), x_depth.png, x.ply.',
        'dar predict room.jpg --fov 70 --out depth/',
    )
    sub.add_argument('images', nargs='+', metavar='IMAGE')
    camera_options(sub, required=True)
    sub.add_argument('--out', required=True, help='folder')
    model_options(sub)

    sub = command(
        'build-engine',
        build_engine,
        'Build the TensorRT engines of a model for this GPU, and test them.',
        'dar build-engine --model models/mine --precision fp16',
    )
    sub.add_argument('--model', help='bundle folder (default: the bundled model)')
    sub.add_argument(
        '--precision',
        choices=('auto', 'fp16', 'fp32'),
        default='auto',
        help='auto: fp16, or fp32 where that computes wrongly (default)',
    )

    sub = command(
        'extract',
        extract,
        'Turn a ROS bag (1 or 2) of an RGB-D camera into a `folder` data set.',
        'dar extract drive.bag --image /rgb/image_raw --depth /depth_registered/image_raw '
        '--camera-info /rgb/camera_info --out data/mine',
    )
    sub.add_argument('bag', help='folder or file of the bag')
    sub.add_argument('--image', required=True, metavar='TOPIC')
    sub.add_argument(
        '--depth',
        required=True,
        metavar='TOPIC',
        help='registered to the image; each may be raw or compressed',
    )
    sub.add_argument('--camera-info', required=True, metavar='TOPIC')
    sub.add_argument('--out', required=True, help='folder')
    sub.add_argument('--every', type=positive, default=1, help='keep every n-th frame')
    sub.add_argument(
        '--slop',
        type=duration,
        default=0.02,
        help='seconds between image and depth (default 0.02)',
    )

    add_commands(command)
    add_machine_commands(command)
    return parser


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
        print_json(described)
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

    frames = generate(
        arguments.out,
        arguments.split,
        arguments.frames,
        arguments.seed,
        arguments.size,
        arguments.workers,
    )
    print(f'{arguments.frames} frames in {arguments.out}')
    if arguments.sheet:
        from dar_ros.evaluation.sheet import write_sheet

        write_sheet(frames, 24, arguments.sheet)


def train(arguments):
    """`dar train`."""
    from dar_ros.training.train import train as run

    best = run(arguments.config, arguments.resume, arguments.out, arguments.minutes)
    print(f'best checkpoint: {best}' if best else 'stopped in time: continue with --resume')


def export(arguments):
    """`dar export`."""
    from dar_ros.export import export as run

    bundle = run(arguments.checkpoint, arguments.out, arguments.input_size, arguments.encoder)
    print(f'{bundle.name}: parity checked, written to {bundle.path}')


def predict(arguments):
    """`dar predict`."""
    from dar_ros.files import read_rgb, write_depth

    check_camera(arguments)
    missing = [path for path in arguments.images if not Path(path).is_file()]
    if missing:
        raise UsageError(f'{missing[0]}: no such image')
    stems = [Path(path).stem for path in arguments.images]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise UsageError(
            f'two images are named {twice.pop()}: their results would overwrite each other'
        )
    settings, out = settings_of(arguments), Path(arguments.out)
    with pipeline_of(arguments) as pipeline:
        out.mkdir(parents=True, exist_ok=True)
        _, depth_range = settings.resolve(pipeline.bundle)
        for path, stem in zip(arguments.images, stems):
            image = read_rgb(path)
            frame = pipeline(image, camera_of(arguments, image), settings)
            near, far, share = write_depth(out / stem, frame, image, depth_range)
            print(f'{path}: {near:.2f}-{far:.2f} m, {share:.1%} valid, {frame.steps} steps')
            for warning in frame.warnings:
                say(f'{path}: {warning}')


def build_engine(arguments):
    """`dar build-engine`."""
    from dar_ros.backends import open_backend
    from dar_ros.bundle import open_bundle

    bundle = open_bundle(arguments.model)
    backend = open_backend(bundle, 'tensorrt', arguments.precision, progress=say)
    backend.close()
    for note in backend.notes:
        say(note)
    print(
        f'{bundle.name}: {backend.precision} engines for {backend.gpu.name}, self-test passed, '
        f'in {backend.cache_folder}'
    )


def extract(arguments):
    """`dar extract`."""
    from dar_ros.ros.extract import extract as run

    topics = (arguments.image, arguments.depth, arguments.camera_info)
    count = run(arguments.bag, topics, arguments.out, arguments.every, arguments.slop, say)
    print(f'{count} frames in {arguments.out}')


if __name__ == '__main__':
    sys.exit(main())
