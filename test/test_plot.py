"""The training log as columns and as a picture."""

import numpy as np
import pytest

from dar_ros.cli import main
from dar_ros.errors import UsageError
from dar_ros.training.plot import plot_log, read_log, running_mean

HEAD = 'iteration,size,rate,loss,depth_loss,range_loss,scale_loss'


def test_a_resumed_log_counts_each_iteration_once(tmp_path):
    lines = [HEAD, '1,32x48,0.1,4,3,2,1', '2,32x48,0.1,9,9,9,9', '2,64x96,0.2,5,3,2,1']
    (tmp_path / 'log.csv').write_text('\n'.join(lines))
    log = read_log(tmp_path / 'log.csv')
    assert log['iteration'].tolist() == [1, 2] and log['loss'].tolist() == [4, 5]
    assert log['size'].tolist() == ['32x48', '64x96'] and log['rate'].tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ('text', 'word'),
    [(None, 'is missing'), ('a,b\n1,2\n', 'no log'), (HEAD + '\n', 'no iteration yet')],
)
def test_no_log_is_one_line(tmp_path, text, word):
    if text is not None:
        (tmp_path / 'log.csv').write_text(text)
    with pytest.raises(UsageError, match=word):
        plot_log(tmp_path)


def test_running_mean_by_hand():
    assert running_mean(np.array([1.0, 3, 5, 7]), 2).tolist() == [1, 2, 4, 6]


def test_the_picture_shows_the_curve(tmp_path, capsys):
    pytest.importorskip('matplotlib', reason='matplotlib is not installed (extra: plot)')
    import cv2

    rows = [f'{i},32x48,0.1,{200 / i},3,2,1' for i in range(1, 200)]
    (tmp_path / 'log.csv').write_text('\n'.join([HEAD, *rows]))
    first = cv2.imread(str(plot_log(tmp_path)))
    assert first.shape[0] > 500 and (first != 255).any()
    flat = [f'{i},32x48,0.1,7,3,2,1' for i in range(1, 200)]
    (tmp_path / 'log.csv').write_text('\n'.join([HEAD, *flat]))
    assert main(['plot-log', str(tmp_path)]) == 0
    assert capsys.readouterr().out == f'{tmp_path / "log.png"}\n'
    assert (cv2.imread(str(tmp_path / 'log.png')) != first).any()
