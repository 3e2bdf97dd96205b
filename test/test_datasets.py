"""Real data sets, written here in each set's own layout."""

import json

import cv2
import numpy as np
import pytest

from dar_ros.cli import main
from dar_ros.datasets import open_dataset
from dar_ros.datasets.frames import spread
from dar_ros.datasets.stereo import matched_disparity
from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics

RNG = np.random.default_rng(5)
NORMALISED = '{"fx": 0.2, "fy": 0.2, "cx": 0.5, "cy": 0.5}'


def write_image(path, rows, columns, color=(10, 120, 240)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((rows, columns, 3), np.uint8) + np.array(color, np.uint8)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_depth(path, raw):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), raw.astype(np.uint16))


@pytest.fixture
def folder(tmp_path):
    """Two frames: one with millimetres, one with an array; one camera for both."""
    for name in ('a', 'b'):
        write_image(tmp_path / 'image' / f'{name}.png', 4, 6)
    raw = np.full((4, 6), 1500)
    raw[0] = 0
    write_depth(tmp_path / 'depth' / 'a.png', raw)
    np.save(tmp_path / 'depth' / 'b.npy', np.full((4, 6), 2.5, np.float32))
    camera = {'fx': 5.0, 'fy': 6.0, 'cx': 2.5, 'cy': 1.5}
    (tmp_path / 'intrinsics.json').write_text(json.dumps(camera))
    return tmp_path


def test_folder(folder):
    frames = open_dataset('folder', folder)
    assert len(frames) == 2
    first, second = frames[0], frames[1]
    assert first.image[2, 2].tolist() == [10, 120, 240]
    assert np.isnan(first.depth[0]).all() and np.allclose(first.depth[1:], 1.5)
    assert np.allclose(second.depth, 2.5)
    assert first.intrinsics == Intrinsics(5.0, 6.0, 2.5, 1.5)
    (folder / 'intrinsics').mkdir()
    (folder / 'intrinsics' / 'b.json').write_text('{"fx": 9, "fy": 9, "cx": 1, "cy": 1}')
    assert open_dataset('folder', folder)[1].intrinsics.fx == 9
    (folder / 'some.txt').write_text('b\n')
    (only,) = open_dataset('folder', folder, folder / 'some.txt')
    assert np.allclose(only.depth, 2.5)
    # Of Windows: a byte order mark, CRLF; of a listing: the file's name and folder.
    (folder / 'some.txt').write_bytes(b'\xef\xbb\xbfimage/b.png\r\n')
    (folder / 'intrinsics' / 'b.json').write_bytes(
        b'\xef\xbb\xbf{"fx": 9, "fy": 9, "cx": 1, "cy": 1}'
    )
    (folder / 'depth' / 'a.png').rename(folder / 'depth' / 'a.PNG')
    (only,) = open_dataset('folder', folder, folder / 'some.txt')
    assert np.allclose(only.depth, 2.5) and only.intrinsics.fx == 9
    assert np.allclose(open_dataset('folder', folder)[0].depth[1:], 1.5)
    (folder / 'some.txt').write_text('b\nc\n')
    with pytest.raises(UsageError, match='c is missing .image that .*some.txt names'):
        open_dataset('folder', folder, folder / 'some.txt')


@pytest.mark.parametrize(
    ('break_it', 'message'),
    [
        (lambda f: (f / 'intrinsics.json').unlink(), 'intrinsics.json is missing'),
        (lambda f: (f / 'intrinsics.json').write_text('{"fx": 1}'), 'fx, fy, cx, cy'),
        (lambda f: (f / 'depth' / 'a.png').unlink(), 'a.png is missing'),
        (lambda f: write_image(f / 'depth' / 'a.png', 4, 6), 'no 16-bit depth image'),
        (lambda f: write_depth(f / 'depth' / 'a.png', np.ones((3, 6))), 'differ in size'),
        (lambda f: (f / 'image').rename(f / 'images'), 'image is missing'),
        (lambda f: (f / 'image' / 'a.png').write_bytes(b'x'), 'no readable image'),
        (lambda f: np.save(f / 'depth' / 'b.npy', np.ones(3)), 'no float array'),
        (lambda f: write_image(f / 'image' / 'a.jpg', 4, 6), 'a.jpg and a.png: one depth'),
        # In parts of the image's width.
        (lambda f: (f / 'intrinsics.json').write_text(NORMALISED), 'no camera has .* of its 6x4'),
    ],
)
def test_a_wrong_folder_is_refused_in_one_line(folder, break_it, message):
    break_it(folder)
    with pytest.raises(UsageError, match=message) as caught:
        [open_dataset('folder', folder)[i] for i in range(2)]
    assert '\n' not in str(caught.value)


def test_nyu_crop_and_cap(tmp_path):
    """Eigen crop rows 45:471, columns 41:601; 0 and what lies beyond 10 m are not scored."""
    raw = np.full((480, 640), 3000)
    raw[100, 100], raw[100, 101], raw[100, 102] = 0, 10001, 9999
    write_image(tmp_path / 'bath' / 'rgb_00045.jpg', 480, 640)
    write_depth(tmp_path / 'bath' / 'sync_depth_00045.png', raw)
    (tmp_path / 'list.txt').write_text('/bath/rgb_00045.jpg /bath/sync_depth_00045.png 518.8579\n')
    frame = open_dataset('nyu', tmp_path, tmp_path / 'list.txt')[0]
    scored = np.isfinite(frame.depth)
    assert scored.sum() == (471 - 45) * (601 - 41) - 2
    assert scored[45, 41] and scored[470, 600] and not scored[44, 41] and not scored[45, 601]
    assert frame.depth[100, 102] == pytest.approx(9.999)
    assert frame.intrinsics.fx == pytest.approx(518.8579)


def test_kitti_crops_and_skips(tmp_path):
    """1216x352 from the bottom's middle, then Garg's crop: rows 143:349, columns 43:1172."""
    image = tmp_path / '2011_09_26' / 'drive' / 'data' / '0000000069.png'
    write_image(image, 375, 1242)
    write_depth(tmp_path / 'gt' / '0000000069.png', np.full((375, 1242), 256 * 20))
    name = image.relative_to(tmp_path)
    (tmp_path / 'list.txt').write_text(
        f'{name} gt/0000000069.png 721.5377\n{name} None 721.5377\n'
    )
    frames = open_dataset('kitti', tmp_path, tmp_path / 'list.txt')
    assert len(frames) == 1
    frame = frames[0]
    assert frame.image.shape == (352, 1216, 3)
    rows, columns = np.nonzero(np.isfinite(frame.depth))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (143, 349, 43, 1172)
    assert np.nanmax(frame.depth) == pytest.approx(20)
    assert frame.intrinsics.cx == pytest.approx(1241 / 2 - 13)
    # As KITTI's own files lie, unpacked where they should or beside the images.
    for place in ('data_depth_annotated', 'data_depth_annotated/val', 'train'):
        (tmp_path / place).mkdir()
        (tmp_path / 'gt').rename(tmp_path / place / 'gt')
        assert open_dataset('kitti', tmp_path, tmp_path / 'list.txt')[0].depth.shape == (352, 1216)
        (tmp_path / place / 'gt').rename(tmp_path / 'gt')
    (tmp_path / '2011_09_26' / 'calib_cam_to_cam.txt').write_text(
        'P_rect_02: 721.5 0 609.5 44 0 720.5 172.8 0.2 0 0 1 0.002\n'
    )
    assert frames[0].intrinsics == Intrinsics(721.5, 720.5, 609.5 - 13, 172.8 - 23)
    (tmp_path / '2011_09_26' / 'calib_cam_to_cam.txt').write_text('P_rect_02: 721.5 0\n')
    with pytest.raises(UsageError, match='12 numbers of P_rect_02'):
        frames[0]
    (tmp_path / 'list.txt').write_text(f'{name} None 721.5377\n')
    with pytest.raises(UsageError, match='names no frame with depth'):
        open_dataset('kitti', tmp_path, tmp_path / 'list.txt')


def test_a_protocol_is_scored_over_its_own_range_and_whole(tmp_path, capsys):
    """Not over the model's range, and not over the first 200 images."""
    lines = []
    for i in range(202):
        if not i:
            write_image(tmp_path / 'rgb' / '0.png', 375, 1242)
            write_depth(tmp_path / 'gt' / '0.png', np.full((375, 1242), 256 * 50))
        lines.append('rgb/0.png gt/0.png 721.5')
    (tmp_path / 'list.txt').write_text('\n'.join(lines) + '\n')
    command = ['evaluate', '--dataset', 'kitti', '--data', str(tmp_path), '--num-steps', '1']
    assert main([*command, '--split-file', str(tmp_path / 'list.txt'), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['depth_range'] == [0.1, 80.0] and report['frames'] == 202
    assert report['dataset'] == 'kitti' and report['flip'] is False  # what a figure is of


def test_sunrgbd_unpacks_its_rotated_bits(tmp_path):
    metres = np.array([[1.0, 7.9], [8.1, 0.0]])
    packed = (metres * 1000).astype(np.uint16)
    scene = tmp_path / 'kv1' / 'NYUdata' / 'NYU0001'
    write_image(scene / 'image' / 'NYU0001.jpg', 2, 2)
    write_depth(scene / 'depth_bfx' / 'NYU0001.png', (packed << 3) | (packed >> 13))
    (scene / 'intrinsics.txt').write_text('2.5 0.0 0.3 0 2.4 0.6 0 0 1')
    (tmp_path / 'split.txt').write_text('kv1/NYUdata/NYU0001\n')
    frame = open_dataset('sunrgbd', tmp_path, tmp_path / 'split.txt')[0]
    assert np.allclose(frame.depth, [[1.0, 7.9], [np.nan, np.nan]], equal_nan=True)
    assert frame.intrinsics == Intrinsics(2.5, 2.4, 0.3, 0.6)
    official = '/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/NYU0001/\n'  # a line of its allsplit.mat
    (tmp_path / 'split.txt').write_text(official)
    (scene / 'image' / '.DS_Store').write_bytes(b'')
    assert len(open_dataset('sunrgbd', tmp_path, tmp_path / 'split.txt')) == 1
    (scene / 'intrinsics.txt').unlink()
    with pytest.raises(UsageError, match=r'intrinsics.txt is missing'):
        open_dataset('sunrgbd', tmp_path, tmp_path / 'split.txt')


@pytest.mark.parametrize('name', ['nyu', 'kitti', 'sunrgbd'])
def test_lists_are_checked(tmp_path, name):
    with pytest.raises(UsageError, match='--split-file'):
        open_dataset(name, tmp_path)
    with pytest.raises(UsageError, match=r'absent.txt is missing'):
        open_dataset(name, tmp_path, tmp_path / 'absent.txt')
    (tmp_path / 'list.txt').write_text('nowhere/a.png nowhere/b.png 500\n')
    with pytest.raises(UsageError, match='nowhere.* is missing'):
        open_dataset(name, tmp_path, tmp_path / 'list.txt')
    if name != 'sunrgbd':
        (tmp_path / 'list.txt').write_text('a.png b.png\n')
        with pytest.raises(UsageError, match=r'line 1: `IMAGE DEPTH FOCAL`'):
            open_dataset(name, tmp_path, tmp_path / 'list.txt')
    with pytest.raises(UsageError, match='is no list of frames'):
        open_dataset(name, tmp_path, tmp_path)
    with pytest.raises(UsageError, match='--data'):
        open_dataset(name, None)


def test_stereo_finds_planes_of_known_disparity(tmp_path):
    """A textured wall 10 pixels apart and a box 40 apart in front of it, f * b = 30 px m."""
    noise = cv2.GaussianBlur(RNG.integers(0, 255, (240, 500)).astype(np.uint8), (0, 0), 1.0)
    left, right = noise[:, 100:420].copy(), noise[:, 110:430].copy()
    box = cv2.GaussianBlur(RNG.integers(0, 255, (100, 100)).astype(np.uint8), (0, 0), 1.0)
    left[70:170, 160:260], right[70:170, 120:220] = box, box
    disparity = matched_disparity(left, right)
    assert np.nanmedian(disparity[:60]) == pytest.approx(10, abs=0.3)
    assert np.nanmedian(disparity[80:160, 170:250]) == pytest.approx(40, abs=0.3)
    cv2.imwrite(str(tmp_path / 'x_left.png'), left)
    cv2.imwrite(str(tmp_path / 'x_right.png'), right)
    camera = {'fx': 300, 'cx0': 160, 'cx1': 160, 'cy': 120, 'baseline_meters': 0.1}
    (tmp_path / 'camera.json').write_text(json.dumps(camera))
    frame = open_dataset('stereo', tmp_path)[0]
    assert np.nanmedian(frame.depth[:60]) == pytest.approx(3.0, rel=0.03)
    assert np.nanmedian(frame.depth[80:160, 170:250]) == pytest.approx(0.75, rel=0.03)
    # A point that only the left camera sees, beside the box, has no match.
    assert np.isnan(frame.depth[80:160, 135:155]).mean() > 0.5


def test_frames_are_spread_over_a_data_set():
    assert spread(range(10), 3) == [0, 4, 9]
    assert spread(range(3), 10) == spread(range(3)) == [0, 1, 2]
    assert spread([], 5) == []


@pytest.mark.parametrize(
    ('break_it', 'message'),
    [
        (lambda f: (f / 'x_right.png').unlink(), 'x_right.png is missing'),
        (lambda f: (f / 'camera.json').unlink(), r'NAME_left.png, NAME_right.png and a .json'),
        (lambda f: (f / 'camera.json').write_text('{"fx": 3}'), 'camera.json holds no fx'),
        (lambda f: (f / 'x_left.png').write_bytes(b'x'), 'x_left.png is no readable image'),
    ],
)
def test_wrong_stereo_pairs_are_refused_in_one_line(tmp_path, break_it, message):
    for side in ('left', 'right'):
        write_image(tmp_path / f'x_{side}.png', 32, 200)
    camera = {'fx': 300, 'cx0': 160, 'cx1': 160, 'cy': 120, 'baseline_meters': 0.1}
    (tmp_path / 'camera.json').write_text(json.dumps(camera))
    break_it(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset('stereo', tmp_path)[0]
    assert '\n' not in str(caught.value)


def test_wrong_scenes_of_sunrgbd_are_refused_in_one_line(tmp_path):
    scene = tmp_path / 'kv1' / 'a'
    write_image(scene / 'image' / 'a.jpg', 2, 2)
    (scene / 'intrinsics.txt').write_text('1 2')
    (tmp_path / 'split.txt').write_text('kv1/a\n')
    with pytest.raises(UsageError, match='depth_bfx is missing'):
        open_dataset('sunrgbd', tmp_path, tmp_path / 'split.txt')
    write_depth(scene / 'depth_bfx' / 'a.png', np.ones((2, 2)))
    write_depth(scene / 'depth_bfx' / 'b.png', np.ones((2, 2)))
    with pytest.raises(UsageError, match='one file is expected, there are 2'):
        open_dataset('sunrgbd', tmp_path, tmp_path / 'split.txt')
    (scene / 'depth_bfx' / 'b.png').unlink()
    with pytest.raises(UsageError, match='9 numbers of K'):
        open_dataset('sunrgbd', tmp_path, tmp_path / 'split.txt')[0]


def test_an_nyu_image_of_another_size_is_refused(tmp_path):
    """The crop is in pixels of 640x480: elsewhere it would score another part of the picture."""
    write_image(tmp_path / 'rgb.jpg', 48, 64)
    write_depth(tmp_path / 'depth.png', np.full((48, 64), 3000))
    (tmp_path / 'list.txt').write_text('rgb.jpg depth.png 518.8579\n')
    with pytest.raises(UsageError, match='rgb.jpg is 64x48: the crop is made for 640x480'):
        open_dataset('nyu', tmp_path, tmp_path / 'list.txt')[0]


def test_kitti_depth_of_another_drive_is_refused(tmp_path):
    """Sizes differ from day to day; both are larger than the crop."""
    write_image(tmp_path / 'rgb.png', 375, 1242)
    write_depth(tmp_path / 'depth.png', np.full((376, 1300), 256 * 20))
    (tmp_path / 'list.txt').write_text('rgb.png depth.png 721.5\n')
    with pytest.raises(UsageError, match='rgb.png.*differ in size'):
        open_dataset('kitti', tmp_path, tmp_path / 'list.txt')[0]


@pytest.mark.parametrize('fx', ['0', '-500', 'NaN', 'Infinity'])
def test_a_focal_length_that_no_camera_has_is_refused(folder, fx):
    (folder / 'intrinsics.json').write_text(f'{{"fx": {fx}, "fy": 500, "cx": 3, "cy": 2}}')
    with pytest.raises(UsageError, match='a.png: no camera has the Intrinsics'):
        open_dataset('folder', folder)[0]


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / 'list.txt').write_bytes(b'\xff\xfe\x00image')
    with pytest.raises(UsageError, match='list.txt is no list of frames'):
        open_dataset('nyu', tmp_path, tmp_path / 'list.txt')


def test_a_small_kitti_image_is_refused(tmp_path):
    write_image(tmp_path / 'd' / 'a.png', 300, 1242)
    write_depth(tmp_path / 'd' / 'b.png', np.ones((300, 1242)))
    (tmp_path / 'list.txt').write_text('d/a.png d/b.png 700\n')
    with pytest.raises(UsageError, match='smaller than 1216x352'):
        open_dataset('kitti', tmp_path, tmp_path / 'list.txt')[0]
