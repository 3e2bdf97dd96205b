"""Awareness, steadiness and calibration on made-up cases with known answers."""

import csv
import json

import cv2
import numpy as np
import pytest

from dar_ros.cli import main
from dar_ros.datasets.frames import Frame
from dar_ros.errors import UsageError
from dar_ros.evaluation import awareness, steadiness
from dar_ros.evaluation.calibrate import KnownPoint, fit_to_points, parse_point, read_csv
from dar_ros.evaluation.evaluate import runtime
from dar_ros.evaluation.sheet import RANGE, contact_sheet, write_sheet
from dar_ros.geometry import Intrinsics
from dar_ros.pipeline import DepthFrame, DepthSettings
from dar_ros.postprocess import colorize

SIZE = (48, 64)


class View:
    """A camera that looks along world z from `position` at planes z = `walls` per column."""

    def __init__(self, wall=4.0, fov=60.0, z=0.0, box=None):
        self.intrinsics = Intrinsics.from_fov(fov, SIZE[1], SIZE[0])
        self.rotation, self.position = np.eye(3), np.array([0.0, 0.0, z])
        self.depth = np.full(SIZE, wall - z, np.float32)
        if box is not None:  # a box 1 m ahead of the start, seen in columns of its own
            self.depth[:, box] = 1.0 - z
        self.image = np.zeros((*SIZE, 3), np.uint8)


class Pipeline:
    """Says what `answer(image, intrinsics, settings)` says, at each of two steps."""

    def __init__(self, pipeline, answer):
        self.bundle, self.answer = pipeline.bundle, answer

    def __call__(self, image, intrinsics, settings):
        depth = self.answer(image, intrinsics, settings)
        return DepthFrame(depth.astype(np.float32), depth, intrinsics, 2)

    def per_step(self, image, intrinsics, settings):
        return [self(image, intrinsics, settings)] * settings.num_steps


def test_range_awareness_compares_the_same_pixels(pipeline):
    """10, 12 and 20 % too far at 5, 10 and 30 m: the change is 100 % of the smallest."""
    truth = np.full(SIZE, 2.0, np.float32)
    truth[:, 32:] = 8.0  # only within 10 and 30 m: in none of the figures
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), truth, Intrinsics(50, 50, 32, 24))
    factors = {5.0: 1.1, 10.0: 1.12, 30.0: 1.2}

    def answer(image, intrinsics, settings):
        depth = np.where(truth < 5, truth * factors[settings.depth_max], 77.0)
        depth[0, 0] = np.inf if settings.depth_max == 10 else depth[0, 0]
        return depth

    report = awareness.range_awareness(Pipeline(pipeline, answer), [frame], progress=False)
    assert report['depth_max'] == [5, 10, 30]
    assert report['abs_rel'] == pytest.approx([0.1, 0.12, 0.2], abs=1e-6)
    assert report['change'] == pytest.approx(1.0, abs=1e-4) and not report['ok']
    assert report['valid'] == pytest.approx(1 - 1 / (48 * 32))
    steady = awareness.range_awareness(
        Pipeline(pipeline, lambda *_: truth * 1.1), [frame], progress=False
    )
    assert steady['change'] == pytest.approx(0, abs=1e-6) and steady['ok']
    assert 'limit 15%' in awareness.table({'range': steady, 'focal': {'abs_rel': None}})


def test_wider_lenses_are_looked_up_at_the_narrow_ones_rays():
    """Depth that codes the ray: the same value at the same ray, within half a pixel."""
    narrow, wide = View(fov=50), View(fov=95)
    rows, columns = awareness.same_rays(narrow, wide)
    tangents = [(np.arange(SIZE[1]) - v.intrinsics.cx) / v.intrinsics.fx for v in (narrow, wide)]
    error = np.abs(tangents[1][columns] - tangents[0][None]).max()
    assert error <= 0.5 / wide.intrinsics.fx + 1e-9
    assert rows.min() > 0 and rows.max() < SIZE[0] - 1 and columns[0, 0] == 64 - 1 - columns[0, -1]
    assert np.array_equal(awareness.same_rays(narrow, narrow)[1][0], np.arange(SIZE[1]))


def test_focal_awareness_sees_a_model_that_ignores_the_lens(pipeline):
    """A wall at 4 m through four lenses; right for 50 degrees, or as wrong as the focal length."""
    views = [View(fov=fov) for fov in awareness.FOVS]
    right = Pipeline(pipeline, lambda *_: np.full(SIZE, 4.4))
    found = awareness.focal_awareness(right, [views, views], progress=False)
    assert found['hfov'] == pytest.approx(awareness.FOVS) and found['images'] == 2
    assert found['abs_rel'] == pytest.approx([0.1] * 4) and found['ok']
    assert found['bias'] == pytest.approx([0.1] * 4)
    assert found['abs_rel_median_scaled'] == pytest.approx([0] * 4, abs=1e-6)
    focal = views[0].intrinsics.fx
    blind = Pipeline(pipeline, lambda _, camera, __: np.full(SIZE, 4.4 * focal / camera.fx))
    found = awareness.focal_awareness(blind, [views], progress=False)
    expected = [1.1 * focal / view.intrinsics.fx - 1 for view in views]
    assert found['abs_rel'] == pytest.approx(expected, rel=1e-4) and not found['ok']
    assert found['bias'] == pytest.approx(expected, rel=1e-4)


def test_scale_that_images_leave_open_is_no_bias_of_the_lens(pipeline):
    """Half the images twice too far, half twice too near, all surfaces in proportion."""
    answers = iter(np.full(SIZE, z) for z in [8.0] * 4 + [2.0] * 4)
    views = [View(fov=fov) for fov in awareness.FOVS]
    found = awareness.focal_awareness(
        Pipeline(pipeline, lambda *_: next(answers)), [views, views], progress=False
    )
    assert found['abs_rel'] == pytest.approx([0.75] * 4)
    assert found['bias'] == pytest.approx([0] * 4, abs=1e-6)
    report = awareness.table({'range': {'abs_rel': None}, 'focal': found})
    assert 'focal 50 deg: abs_rel 0.7500, median-scaled 0.0000, bias +0.0%' in report


def clip(answers, views, pipeline):
    """Report on a clip whose frames are answered one after the other."""
    given = iter(answers)
    settings = DepthSettings(num_steps=1)
    return steadiness.steadiness(
        Pipeline(pipeline, lambda *_: next(given)), [views], settings, progress=False
    )


def test_motion_explains_the_change_of_a_steady_model(pipeline):
    """0.5 m towards a wall at 4 m: depth falls to 3.5 m, and a wrong scale may be as wrong."""
    views = [View(), View(z=0.5)]
    for scale in (1.0, 1.3):
        report = clip([view.depth * scale for view in views], views, pipeline)
        assert report['per_step'][0]['median_log_change'] == pytest.approx(0, abs=1e-6)
        assert report['pairs'] == 1 and report['visible'] == pytest.approx(0.77, abs=0.05)
    flicker = clip([views[0].depth, views[1].depth * 1.1], views, pipeline)
    assert flicker['per_step'][0]['median_log_change'] == pytest.approx(np.log(1.1), abs=1e-6)
    # A model that does not see the motion at all flickers by what the motion is.
    still = clip([views[0].depth, views[0].depth], views, pipeline)
    assert still['per_step'][0]['median_log_change'] == pytest.approx(np.log(4 / 3.5), abs=1e-6)
    assert 'step 1' in steadiness.table(flicker)


def test_hidden_points_are_not_compared(pipeline):
    """The box grows over the wall as the camera nears it: none of that wall has a partner."""
    before, after = View(box=slice(24, 40)), View(z=0.5, box=slice(16, 48))
    (rows, columns), (moved_rows, moved_columns) = steadiness.correspondence(
        before, after, (0.1, 20.0)
    )
    wall = before.depth[rows, columns] == 4.0
    assert wall.any() and not wall.all()
    assert (after.depth[moved_rows, moved_columns][wall] == 3.5).all()
    hidden = (before.depth == 4.0).sum() - wall.sum()
    assert hidden > 48 * 8
    assert np.allclose(after.depth[moved_rows, moved_columns][~wall], 0.5)


def test_turning_moves_points_as_geometry_says():
    """A camera that turns right by 4 pixels: what was at the centre is 4 pixels to the left."""
    before, after = View(), View()
    angle = np.arctan(4 / before.intrinsics.fx)
    c, s = np.cos(angle), np.sin(angle)
    after.rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    x = (np.arange(SIZE[1]) - after.intrinsics.cx) / after.intrinsics.fx
    after.depth = np.tile((4 / (c - x * s)).astype(np.float32), (SIZE[0], 1))
    (rows, columns), (_, moved) = steadiness.correspondence(before, after, (0.1, 20.0))
    middle = (rows == 24) & (columns == 32)
    assert moved[middle].tolist() == [28]


@pytest.mark.usefixtures('furniture')
def test_simulated_clips_are_consistent(pipeline):
    """Truth warped by the renderer's own poses meets truth; lenses look along one axis."""
    from dar_ros.simulation.clips import moving_views, views_through_lenses

    (views,) = moving_views(1, 3, SIZE)
    answers = iter([view.depth for view in views])
    truthful = Pipeline(pipeline, lambda *_: next(answers))
    report = steadiness.steadiness(truthful, [views], DepthSettings(num_steps=1), progress=False)
    assert report['per_step'][0]['p90_log_change'] == 0 and report['visible'] > 0.5
    assert not np.allclose(views[0].position, views[1].position)
    (lenses,) = views_through_lenses(1, awareness.FOVS, SIZE)
    narrow, wide = lenses[0], lenses[-1]
    looked_up = wide.depth[awareness.same_rays(narrow, wide)]
    finite = np.isfinite(narrow.depth) & np.isfinite(looked_up)
    close = np.isclose(looked_up[finite], narrow.depth[finite], rtol=0.05)
    assert finite.mean() > 0.3 and close.mean() > 0.85


@pytest.fixture
def simulated(tmp_path):
    """Write two frames of a floor as `dar simulate` does."""
    shard = tmp_path / 'shard-00000'
    shard.mkdir()
    depth = np.tile(np.linspace(4, 1, 60, dtype=np.float32)[:, None], (2, 1, 80))
    camera = Intrinsics.from_fov(70, 80, 60)
    np.save(shard / 'images.npy', np.repeat((60 * depth)[..., None], 3, -1).astype(np.uint8))
    np.save(shard / 'depth.npy', depth)
    np.save(shard / 'intrinsics.npy', [[camera.fx, camera.fy, camera.cx, camera.cy]] * 2)
    (tmp_path / 'dataset.json').write_text('{"frames": 2}')
    return tmp_path


@pytest.mark.usefixtures('furniture')
def test_the_command_reports_awareness_and_steadiness(simulated, capsys):
    some = ['--frames', '4', '--json']
    assert main(['evaluate', '--data', str(simulated), '--awareness', *some]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['range']['images'] == 2 and report['focal']['images'] == 1
    assert len(report['range']['abs_rel']) == 3 and len(report['focal']['abs_rel']) == 4
    assert main(['evaluate', '--steadiness', *some]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['pairs'] == 4 and len(report['per_step']) == 5
    assert all(row['median_log_change'] > 0 for row in report['per_step'])
    assert main(['evaluate', '--steadiness', '--dataset', 'folder', '--data', 'x']) == 2


def test_runtime_counts_the_end_once():
    timings = {'encode': 3.0, 'step_1': 1.0, 'step_2': 1.0, 'upsample': 4.0, 'postprocess': 2.0}
    assert runtime(DepthFrame(None, None, None, 2, timings)) == pytest.approx(8.0)


@pytest.fixture
def wall(tmp_path):
    cv2.imwrite(str(tmp_path / 'a:b.png'), np.zeros((48, 64, 3), np.uint8))
    return tmp_path / 'a:b.png'


def test_points_measured_by_hand_give_the_factor(pipeline, wall):
    """The model says 2 m; the tape says 2.5 m along the axis, and more in a straight line."""
    two = Pipeline(pipeline, lambda *_: np.full(SIZE, 2.0))

    def camera(_):
        return Intrinsics(40, 40, 32, 24)

    points = [parse_point(f'{wall}:{x},{y}=2.5') for x, y in ((32, 24), (0, 0), (62, 10))]
    assert points[1] == KnownPoint(str(wall), 0, 0, 2.5)
    report = fit_to_points(two, points, camera)
    assert report['depth_scale'] == pytest.approx(1.25) and report['frames'] == 1
    assert report['abs_rel_before'] == pytest.approx(0.2)
    corner = KnownPoint(str(wall), 62, 54 - 30, 2.5)
    straight = fit_to_points(two, [corner], camera, straight_line=True)
    assert straight['depth_scale'] == pytest.approx(2.5 / np.hypot(1, 30 / 40) / 2)
    with pytest.raises(UsageError, match='outside the image'):
        fit_to_points(two, [KnownPoint(str(wall), 64, 0, 1)], camera)
    with pytest.raises(UsageError, match='no readable image'):
        fit_to_points(two, [KnownPoint('absent.png', 1, 0, 1)], camera)
    nowhere = Pipeline(pipeline, lambda *_: np.full(SIZE, np.inf))
    with pytest.raises(UsageError, match='no depth there'):
        fit_to_points(nowhere, points, camera)


def test_points_in_a_file(wall):
    path = wall.parent / 'points.csv'
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([('image', 'x', 'y', 'metres'), (wall.name, 3, 4, 1.5)])
    assert read_csv(path) == [KnownPoint(str(wall), 3, 4, 1.5)]
    path.write_text('a.png,1,2\n')
    with pytest.raises(UsageError, match='is not image,x,y,metres'):
        read_csv(path)
    for text in ('a.png', 'a.png:1=3', 'a.png:1,2=x', 'a.png:1,2=-1'):
        with pytest.raises(UsageError, match='is not IMAGE:X,Y=METRES'):
            parse_point(text)


def test_calibrate_needs_the_camera_of_a_picture(wall, capsys):
    assert main(['calibrate', '--at', f'{wall}:3,4=2']) == 2
    assert '--focal or --fov' in capsys.readouterr().err
    assert main(['calibrate', '--at', f'{wall}:30,24=2', '--fov', '70', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['abs_rel_after'] == pytest.approx(0, abs=1e-6)


def test_a_sheet_shows_every_frame_over_its_depth(tmp_path, capsys):
    camera = Intrinsics(50, 50, 32, 24)
    frames = [
        Frame(np.full((*SIZE, 3), 20 * i, np.uint8), np.full(SIZE, 1.0 + i, np.float32), camera)
        for i in range(8)
    ]
    sheet = contact_sheet(frames)
    assert sheet.shape == (2 * 2 * 180, 6 * 240, 3)
    for i in range(8):
        cell = sheet[i // 6 * 360 : i // 6 * 360 + 360, i % 6 * 240 : i % 6 * 240 + 240]
        assert (cell[:180] == 20 * i).all() and len(
            np.unique(cell[180:].reshape(-1, 3), axis=0)
        ) == 1
    assert (sheet[360:, 480:] == 255).all()
    assert write_sheet(frames, 3, tmp_path / 'sheet.png') == 3
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape == (360, 720, 3)
    with pytest.raises(UsageError, match='cannot be written'):
        write_sheet(frames, 3, tmp_path / 'no' / 'sheet.png')
    with pytest.raises(UsageError, match='empty'):
        write_sheet([], 3, tmp_path / 'sheet.png')


def test_the_command_lays_out_a_sheet(simulated, capsys):
    out = str(simulated / 'sheet.png')
    assert main(['sheet', str(simulated), '--frames', '2', '--out', out]) == 0
    assert capsys.readouterr().out == f'2 frames in {out}\n'
    assert cv2.imread(out).shape == (360, 480, 3)


def test_a_sheet_shows_the_depth_of_a_model_below(pipeline):
    frame = Frame(
        np.full((60, 80, 3), 128, np.uint8),
        np.full((60, 80), 2.0, np.float32),
        Intrinsics.from_fov(60, 80, 60),
    )
    sheet = contact_sheet([frame], pipeline)
    assert sheet.shape == (3 * 180, 240, 3)
    predicted = pipeline(frame.image, frame.intrinsics).depth
    small = cv2.resize(predicted, (240, 180), interpolation=cv2.INTER_NEAREST)
    assert (sheet[360:] == colorize(small, *RANGE)).all()
