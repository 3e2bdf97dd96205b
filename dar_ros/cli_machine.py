"""The commands of `dar` that look at the machine: doctor, benchmark."""

import sys
from pathlib import Path

from dar_ros.benchmark import PARTS
from dar_ros.cli_options import positive
from dar_ros.console import print_json
from dar_ros.errors import DarError


def add_machine_commands(command):
    """Add them by cli.build_parser's `command`."""
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
    sub.add_argument('--only', nargs='+', metavar='PART', choices=PARTS, default=())
    sub.add_argument('--check', action='store_true', help='exit code 1 if a check falls short')
    sub.add_argument('--json', action='store_true', help='print one JSON object')
    sub.add_argument('--model', help='bundle folder (default: the bundled model)')
    sub.add_argument('--rounds', type=positive, default=50, help='of every timing (default 50)')
    sub.add_argument(
        '--frames', type=positive, default=20000, help='of the endurance run (default 20000)'
    )
    sub.add_argument(
        '--seconds', type=positive, default=10, help='of every run of the node (default 10)'
    )


def doctor(arguments):
    """`dar doctor`."""
    from dar_ros.doctor import FAIL, as_json, examine, report

    findings = examine(arguments.model)
    if arguments.json:
        print_json(as_json(findings))
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
        print_json({**result, 'parts': {n: asdict(part) for n, part in result['parts'].items()}})
    else:
        print(report(result))
    short = [check['name'] for check in result['checks'] if not check['ok']]
    if arguments.check and short:
        raise DarError(f'{", ".join(short)} fell short')
