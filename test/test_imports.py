"""The node runs without torch, the model without ROS; each proved in a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

from conftest import need

ROOT = Path(__file__).resolve().parents[1]


BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {names!r}:
            raise ImportError('blocked: ' + name, name=name)
sys.meta_path.insert(0, Blocker())
"""


def run(names, code):
    return subprocess.run(
        [sys.executable, '-c', BLOCK.format(names=names) + code],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=200,
    )


def test_the_node_imports_without_torch():
    need('rclpy', 'ros')
    done = run(
        ['torch', 'timm', 'mujoco'],
        'import dar_ros.ros.node, dar_ros.ros.camera\n'
        'from dar_ros.pipeline import open_pipeline\nprint(open_pipeline().bundle.name)',
    )
    assert (done.returncode, done.stdout) == (0, 'dar_tiny\n'), done.stderr


def test_the_model_imports_without_ros():
    need('timm', 'train')
    done = run(
        ['rclpy', 'sensor_msgs', 'mujoco'],
        'import dar_ros.model.dar, dar_ros.training.losses, dar_ros.training.train; print("ok")',
    )
    assert (done.returncode, done.stdout) == (0, 'ok\n'), done.stderr


def test_the_model_needs_no_backend_and_onnx_only_to_read_onnx_files(tmp_path):
    """A checkpoint's reference, which torch replays when it serves one, needs neither."""
    need('timm', 'train')
    need('onnx', 'train')
    done = run(
        [],
        'import importlib, pkgutil\n'
        'from dataclasses import replace\n'
        'import dar_ros.model\n'
        'names = {module.name for module in pkgutil.iter_modules(dar_ros.model.__path__)}\n'
        'readers = {"dinov2_onnx", "from_bundle", "onnx_weights"}\n'
        'assert readers < names\n'
        'for name in names - readers:\n'
        '    importlib.import_module("dar_ros.model." + name)\n'
        'from dar_ros.model import checkpoint, dar, presets, served\n'
        'config = replace(presets.preset("dar_tiny"), input_size=(64, 96))\n'
        f'checkpoint.save_checkpoint({str(tmp_path)!r}, dar.DAR(config))\n'
        f'bundle = served.CheckpointBundle({str(tmp_path)!r})\n'
        'assert len(bundle.reference()["depth"]) == bundle.num_steps\n'
        'served.network(bundle)\n'
        'assert "onnx" not in sys.modules\n'
        'for name in readers:\n'
        '    importlib.import_module("dar_ros.model." + name)\n'
        'above = ("dar_ros.backends", "dar_ros.export")\n'
        'print([name for name in sys.modules if name.startswith(above)])',
    )
    assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr


def test_the_pipeline_needs_neither():
    done = run(
        ['rclpy', 'sensor_msgs', 'torch', 'timm', 'mujoco'],
        'import dar_ros.pipeline, dar_ros.cli; print("ok")',
    )
    assert (done.returncode, done.stdout) == (0, 'ok\n'), done.stderr


def test_a_missing_extra_is_named_with_its_cure():
    done = run(['torch'], 'from dar_ros.cli import main; sys.exit(main(["info", "dar_small"]))')
    assert done.returncode == 1
    # Of the Python that runs it, and by names that an index has.
    start = f'dar: torch is missing: {sys.executable} -m pip install '
    assert done.stderr.startswith(start) and 'timm' in done.stderr
    assert done.stderr.count('\n') == 1 and 'dar_ros' not in done.stderr.removeprefix(start)


def test_a_missing_onnxruntime_is_one_line_with_its_cure(tmp_path):
    """No rosdep brings it: the command says so, and so does the node's log at configure."""
    cure = f'onnxruntime is not installed; {sys.executable} -m pip install onnxruntime'
    picture = tmp_path / 'a.png'
    picture.write_bytes(b'')
    words = ['predict', str(picture), '--fov', '70', '--out', str(tmp_path)]
    words += ['--backend', 'onnxruntime']  # where a GPU is, auto may do without
    done = run(['onnxruntime'], f'from dar_ros.cli import main\nsys.exit(main({words}))')
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and cure in done.stderr
    need('rclpy', 'ros')
    done = run(
        ['onnxruntime'],
        'import rclpy\n'
        'from dar_ros.ros.node import DarNode\n'
        'rclpy.init()\n'
        'backend = rclpy.Parameter("backend", value="onnxruntime")\n'
        'node = DarNode(parameter_overrides=[backend])\n'
        'print(node.trigger_configure().name)\n'
        'node.destroy_node()\nrclpy.shutdown()',
    )
    assert done.stdout == 'FAILURE\n', done.stderr
    (line,) = [line for line in done.stderr.splitlines() if '[ERROR]' in line]
    assert cure in line


def test_rendering_and_training_share_a_process():
    """Mesa's LLVM before torch's used to end in a segmentation fault."""
    need('mujoco', 'sim')
    need('timm', 'train')
    done = run(
        [],
        'from dar_ros.simulation.room import RoomCamera\n'
        'camera = RoomCamera(48, 64)\ncamera.frame(0)\n'
        'import dar_ros.training.train\n'
        'print("ok")\ncamera.renderer.close()',
    )
    assert (done.returncode, done.stdout) == (0, 'ok\n'), done.stderr
