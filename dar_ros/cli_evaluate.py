"""The commands that look at data and at what a model makes of it."""

from contextlib import nullcontext
from dataclasses import replace

from dar_ros.cli_options import (
    REAL_DATASETS,
    camera_of,
    camera_options,
    check_camera,
    check_split_file,
    frames_of,
    model_options,
    pipeline_of,
    positive,
    settings_of,
)
from dar_ros.console import print_json
from dar_ros.errors import UsageError

CLIP = 5  # frames of a clip of --steadiness


def add_commands(command):
    """Add the parsers; `command(name, run, text, example)` makes one."""
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
        '--split-file', help='list of frames: nyu, kitti, sunrgbd; folder and stereo may have one'
    )
    sub.add_argument('--flip', action='store_true', help='average with the mirrored image')
    other = sub.add_mutually_exclusive_group()
    other.add_argument(
        '--awareness',
        action='store_true',
        help='instead: change of the error with depth_max, and with the lens in simulated scenes',
    )
    other.add_argument(
        '--steadiness',
        action='store_true',
        help='instead: change of depth beyond what the motion explains, in simulated clips',
    )
    sub.add_argument(
        '--frames', type=positive, help='how many (default: 200 of sim, all of a real data set)'
    )
    sub.add_argument('--json', action='store_true', help='print one JSON object')
    model_options(sub)

    sub = command(
        'calibrate',
        calibrate,
        'Fit depth_scale to a data set with known depth, or to distances measured by hand.',
        'dar calibrate --data data/mine, or dar calibrate --at room.jpg:320,240=2.5 --fov 70',
    )
    sub.add_argument('--dataset', choices=REAL_DATASETS, default='folder')
    known = sub.add_mutually_exclusive_group(required=True)
    known.add_argument('--data', help='folder of the data set')
    known.add_argument(
        '--at',
        nargs='+',
        metavar='IMAGE:X,Y=METRES',
        help='depth along the optical axis at a pixel (column, row); needs --focal or --fov',
    )
    known.add_argument('--points', metavar='CSV', help='the same as lines image,x,y,metres')
    sub.add_argument(
        '--straight-line',
        action='store_true',
        help='METRES are straight from the camera to the point, as a laser or tape measures',
    )
    camera_options(sub, required=False)
    sub.add_argument('--split-file', help='list of frames')
    sub.add_argument('--frames', type=positive, help='of --data (default 200)')
    sub.add_argument('--json', action='store_true', help='print one JSON object')
    model_options(sub)

    sub = command(
        'sheet',
        sheet,
        'Lay out frames of a data set, each over its depth in colours, in one picture.',
        'dar sheet data/train --out sheet.png',
    )
    sub.add_argument('data', help='folder of the data set')
    sub.add_argument('--dataset', choices=('sim', *REAL_DATASETS), default='sim')
    sub.add_argument('--split-file', help='list of frames')
    sub.add_argument('--frames', type=positive, default=24, help='spread over all (default 24)')
    sub.add_argument('--out', required=True, help='picture file')
    sub.add_argument('--model', help="bundle or checkpoint whose depth is shown below the data's")

    sub = command(
        'plot-log',
        plot_log,
        'Draw the losses of a training run: RUN/log.csv becomes RUN/log.png.',
        'dar plot-log runs/dar_tiny',
    )
    sub.add_argument('folder', metavar='RUN', help='folder of the run')


def evaluate(arguments):
    """`dar evaluate`."""
    if arguments.steadiness and (arguments.dataset != 'sim' or arguments.data):
        raise UsageError('--steadiness renders its own clips: --dataset sim, without --data')
    if arguments.flip and (arguments.steadiness or arguments.awareness):
        raise UsageError('--flip averages what is scored, not --awareness or --steadiness')
    if arguments.awareness and arguments.depth_max:
        raise UsageError('--awareness sets depth_max itself')
    check_split_file(arguments)
    if arguments.frames is None and (arguments.dataset == 'sim' or arguments.awareness):
        arguments.frames = 200
    with pipeline_of(arguments) as pipeline:
        report, table = _evaluated(arguments, pipeline)
    asked = {name: getattr(arguments, name) for name in ('dataset', 'data', 'split_file', 'flip')}
    print_json({**asked, **report}) if arguments.json else print(table(report))


def _evaluated(arguments, pipeline):
    """Return what was asked for as plain data, and the function that renders it for people."""
    settings = settings_of(arguments)
    if arguments.steadiness:
        from dar_ros.evaluation import steadiness
        from dar_ros.simulation.clips import moving_views

        count = max(1, arguments.frames // CLIP)
        clips = moving_views(count, CLIP)
        return steadiness.steadiness(pipeline, clips, settings, count), steadiness.table
    from dar_ros.evaluation import report
    from dar_ros.evaluation.evaluate import evaluate as score
    from dar_ros.evaluation.evaluate import frozen_test_split

    if arguments.dataset == 'sim' and not arguments.data:
        frames = frozen_test_split(arguments.frames)
    else:
        frames = frames_of(arguments)
    if not arguments.depth_max and hasattr(frames, 'cap'):
        # The protocol's range, whatever the model's: what it cannot say counts against it.
        settings = replace(settings, depth_max=frames.cap)
    if arguments.awareness:
        from dar_ros.evaluation import awareness
        from dar_ros.simulation.clips import views_through_lenses

        count = max(1, arguments.frames // len(awareness.FOVS))
        scenes = views_through_lenses(count, awareness.FOVS)
        changes = {
            'range': awareness.range_awareness(pipeline, frames, arguments.frames, settings),
            'focal': awareness.focal_awareness(pipeline, scenes, settings, count),
        }
        return changes, awareness.table
    scores = score(pipeline, frames, arguments.frames, settings, flip=arguments.flip)
    return scores, report.table


def calibrate(arguments):
    """`dar calibrate`."""
    from dar_ros.evaluation.calibrate import (
        fit_depth_scale,
        fit_to_points,
        parse_point,
        read_csv,
        table,
    )

    _check_calibration(arguments)
    if arguments.data is None:
        if arguments.focal is None and arguments.fov is None:
            raise UsageError('measured points need the camera: --focal or --fov')
        check_camera(arguments)
        points = (
            read_csv(arguments.points)
            if arguments.points
            else [parse_point(text) for text in arguments.at]
        )
        with pipeline_of(arguments) as pipeline:
            report = fit_to_points(
                pipeline,
                points,
                lambda image: camera_of(arguments, image),
                arguments.straight_line,
                settings_of(arguments),
            )
    else:
        with pipeline_of(arguments) as pipeline:
            frames, count = frames_of(arguments), arguments.frames or 200
            report = fit_depth_scale(pipeline, frames, count, settings_of(arguments))
    print_json(report) if arguments.json else print(table(report))


def _check_calibration(arguments):
    """UsageError for what only the other kind of known depth would make use of."""
    measured = arguments.data is None
    camera = {'--focal': arguments.focal is not None, '--fov': arguments.fov is not None}
    ignored = (
        {'--dataset': arguments.dataset != 'folder', '--frames': arguments.frames is not None}
        if measured
        else {**camera, '--straight-line': arguments.straight_line}
    )
    for option, given in ignored.items():
        if given:
            other = 'measured points' if measured else '--data'
            raise UsageError(f'{option} means nothing with {other}')
    check_split_file(arguments)
    if arguments.split_file and measured:
        raise UsageError('--split-file means nothing with measured points')


def sheet(arguments):
    """`dar sheet`."""
    from dar_ros.evaluation.sheet import write_sheet
    from dar_ros.pipeline import opened

    check_split_file(arguments)
    with opened(arguments.model) if arguments.model else nullcontext() as pipeline:
        count = write_sheet(frames_of(arguments), arguments.frames, arguments.out, pipeline)
    print(f'{count} frames in {arguments.out}')


def plot_log(arguments):
    """`dar plot-log`."""
    from dar_ros.training.plot import plot_log as run

    print(run(arguments.folder))
