"""
Simulated data sets on disk: seeded, resumable, written by several processes.

    OUT/dataset.json OUT/shard-00000/{images.npy uint8 (n, H, W, 3), depth.npy float32 (n, H, W),
    intrinsics.npy float64 (n, 4)}

A shard depends on (seed, split, shard number) only.
"""

import atexit
import functools
import json
import multiprocessing
import os
import shutil
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dar_ros.datasets.frames import Frame
from dar_ros.errors import DarError, UsageError
from dar_ros.geometry import Intrinsics

VERSION = 4  # of the generator: raise it when a frame of some seed changes
SHARD_FRAMES = 50
OPEN_SHARDS = 64  # of a process, in three files each: many systems allow it 1024 files
VIEWS = 4  # pictures of a scene
TEST_SEED = 20260101  # of the frozen test split


@dataclass(frozen=True)
class Split:
    """What a split is drawn from."""

    stream: int  # keeps its random numbers apart from the others' and from clips.STREAM's
    kinds: dict  # kind of scene -> its share
    # Shares of pictures
    near: float = 0.3  # that look at something from close by
    hands: float = 0.08  # with somebody's hands
    people: float = 0.0  # with people before the camera
    facing: float = 0.0  # that look at a wall or the sky, which may fill them
    pool: int = 25  # shards in a row that share textures and meshes, which cost seconds


_SEEN = {'room': 0.66, 'corridor': 0.14, 'hall': 0.09, 'outdoor': 0.11}
# Kitchens, bathrooms and their furniture are never trained on, nor a seventh of all other meshes.
SPLITS = {
    'train': Split(0, _SEEN),
    # More to train on: what is within a robot's reach, and who.
    'close': Split(3, _SEEN, near=0.8, hands=0.15, people=0.35),
    # And what says little: bare walls, however square, and skies, bright or with clouds. Without
    # them a wall that fills the picture passes for a sky, and a planner takes it for free space.
    'bare': Split(
        5, {'bare': 0.5, 'room': 0.15, 'corridor': 0.1, 'hall': 0.05, 'outdoor': 0.2}, facing=0.8
    ),
    # And what leads elsewhere: doorways, hallways and stairs. Where rooms are boxes, the painted
    # walls beside an opening pass for things at hand, and a flight of steps down for a floor.
    'passages': Split(6, {'flat': 0.6, 'stairs': 0.4}, near=0.2),
    # Of many pools: one alone may be easy, and chooses checkpoints and fits uncertainty by itself.
    'val': Split(1, _SEEN, pool=1),
    'test': Split(
        2,
        {
            'room': 0.4,
            'kitchen': 0.16,
            'bathroom': 0.1,
            'corridor': 0.14,
            'hall': 0.09,
            'outdoor': 0.11,
        },
    ),
}


class SimDataset:
    """
    The frames of a folder that `generate` wrote; UsageError if some are missing.

    With `partial` those before the first that is missing.
    """

    def __init__(self, folder, partial=False):
        self.folder = Path(folder)
        try:
            wanted = int(_read_info(self.folder / 'dataset.json')['frames'])
        except OSError:
            raise UsageError(
                f'{folder} is no simulated data set: no dataset.json; make one with `dar simulate`'
            ) from None
        except (KeyError, TypeError, ValueError):
            raise UsageError(f'{self.folder / "dataset.json"} does not say `frames`') from None
        _opened_shard.cache_clear()  # of a folder that was written anew since
        self.shards, self.starts = [], [0]
        while self.starts[-1] < wanted and (shard := self._shard(len(self.shards))).exists():
            self.starts.append(self.starts[-1] + len(_open_shard(shard)[0]))
            self.shards.append(shard)
        self.count = min(self.starts[-1], wanted)
        if not partial and self.count < wanted:
            raise UsageError(
                f'{self._shard(len(self.shards))} is missing, {self.count} of {wanted} frames lie '
                'before it: the `dar simulate` that began there goes on where it stopped'
            )

    def _shard(self, number):
        return self.folder / f'shard-{number:05d}'

    def __len__(self):
        """Return the number of frames."""
        return self.count

    def __getitem__(self, index):
        """Return a Frame; its arrays are memory-mapped and read-only."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self.starts, index, side='right')) - 1
        images, depth, intrinsics = _opened_shard(self.shards[shard])
        i = index - self.starts[shard]
        return Frame(images[i], depth[i], Intrinsics(*map(float, intrinsics[i])))


def _read_info(path):
    """Read a dataset.json -> dict; OSError if there is none, UsageError if it is none."""
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError):
        raise UsageError(f'{path} does not say `frames`') from None


def _open_shard(folder):
    """Arrays images, depth, intrinsics of a shard, memory-mapped; UsageError names the file."""
    arrays = []
    for name in ('images', 'depth', 'intrinsics'):
        path = folder / f'{name}.npy'
        try:
            arrays.append(np.load(path, mmap_mode='r', allow_pickle=False))
        except FileNotFoundError:
            raise UsageError(f'{path} is missing; remove {folder} and simulate again') from None
        except OSError as error:
            raise UsageError(f'{path} cannot be read ({error.strerror})') from None
        except (EOFError, ValueError):
            raise UsageError(
                f'{path} is no whole array; remove {folder} and simulate again'
            ) from None
    images, depth, intrinsics = arrays
    count = len(images)
    if (
        images.shape[1:] != (*depth.shape[1:], 3)
        or images.dtype != np.uint8
        or depth.ndim != 3
        or (len(depth), *intrinsics.shape) != (count, count, 4)
    ):
        raise UsageError(
            f'{folder}: images {images.shape}, depth {depth.shape} and intrinsics '
            f'{intrinsics.shape} do not belong together'
        )
    return arrays


_opened_shard = functools.lru_cache(OPEN_SHARDS)(_open_shard)


def generate(out, split, frames, seed=0, size=(240, 320), workers=2, progress=True):
    """Write a data set of `size` (rows, columns); shards that exist already are kept."""
    if split not in SPLITS:
        raise UsageError(f'no split {split!r}; there are {", ".join(SPLITS)}')
    if frames < 1 or workers < 1:
        raise UsageError('frames and workers must be at least 1')
    if seed < 0:
        raise UsageError(f'seed {seed} must not be negative')
    out = Path(out)
    info = {'version': VERSION, 'split': split, 'seed': seed, 'size': list(size), 'frames': frames}
    # Whoever asks for fewer frames must not hide those of whoever asked for more.
    info['frames'] = max(frames, _existing_frames(out, info))
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f'.dataset.json.{os.getpid()}'
    temporary.write_text(json.dumps(info) + '\n')
    temporary.replace(out / 'dataset.json')
    jobs = [
        (str(out), split, seed, shard, tuple(size))
        for shard in range(-(-frames // SHARD_FRAMES))
        if not (out / f'shard-{shard:05d}').exists()
    ]
    with tqdm(
        total=len(jobs) * SHARD_FRAMES,
        desc=f'simulate {split}',
        unit='frame',
        disable=not progress,
    ) as bar:
        for _ in _run(_write_shard, jobs, workers):
            bar.update(SHARD_FRAMES)
    return SimDataset(out, partial=True)  # whoever asked for more may not have finished


def _run(write, jobs, workers):
    if workers == 1 or len(jobs) < 2:
        yield from map(write, jobs)
        return
    # spawn: a forked GL context is undefined. Unlike a Pool this notices a worker's death.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'))
    try:
        yield from (job.result() for job in as_completed([pool.submit(write, j) for j in jobs]))
    except BrokenExecutor:
        raise DarError(
            'a process was killed, perhaps for want of memory; the same command with fewer '
            '--workers goes on where it stopped'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _existing_frames(out, info):
    """Frames of the data set in a folder, 0 if there is none; UsageError if it is another one."""
    try:
        existing = _read_info(out / 'dataset.json')
    except FileNotFoundError:
        return 0
    if any(existing.get(key) != info[key] for key in ('version', 'split', 'seed', 'size')):
        raise UsageError(f'{out} holds another data set ({existing}): name an empty folder')
    return existing.get('frames', 0)


def _write_shard(job):
    out, split, seed, shard, size = job
    cv2.setNumThreads(1)
    target = Path(out) / f'shard-{shard:05d}'
    temporary = Path(out) / f'.shard-{shard:05d}.{os.getpid()}'
    temporary.mkdir(exist_ok=True)
    frames = list(shard_frames(split, seed, shard, size))
    np.save(temporary / 'images.npy', np.stack([f.image for f in frames]))
    np.save(temporary / 'depth.npy', np.stack([f.depth for f in frames]))
    np.save(
        temporary / 'intrinsics.npy',
        np.array(
            [(f.intrinsics.fx, f.intrinsics.fy, f.intrinsics.cx, f.intrinsics.cy) for f in frames]
        ),
    )
    try:
        temporary.rename(target)
    except OSError:  # another process was faster; its shard is the same
        shutil.rmtree(temporary)


_renderers = {}


@atexit.register  # later PyOpenGL is half gone, and prints to the standard output about it
def _close_renderers():
    for renderer, _ in _renderers.values():
        renderer.close()
    _renderers.clear()


def shard_frames(split, seed, shard, size, count=SHARD_FRAMES):
    """Yield the first `count` frames of a shard."""
    from dar_ros.simulation.appearance import clouded, distorted, exposed, lit
    from dar_ros.simulation.people import hands, somebody
    from dar_ros.simulation.renderer import Renderer
    from dar_ros.simulation.scenes import make_scene
    from dar_ros.simulation.stock import Stock
    from dar_ros.simulation.viewpoints import camera_pose

    shares = SPLITS[split]
    rng = np.random.default_rng((seed, shares.stream, shard))
    # Textures and meshes cost a GL context and seconds.
    key = (*size, seed, shares.stream, shard // shares.pool)
    if key not in _renderers:
        _close_renderers()
        stock = Stock(np.random.default_rng((11, *key[2:])), held_out=split == 'test')
        _renderers[key] = Renderer(*size, key[2:], stock), stock
    (renderer, stock), kinds = _renderers[key], shares.kinds
    made = 0
    while made < count:
        scene = make_scene(rng, rng.choice(list(kinds), p=list(kinds.values())), stock)
        views = 0
        for _ in range(VIEWS * 5):
            pose = camera_pose(rng, scene, shares.near, shares.facing)
            if pose is None:
                continue
            before = hands(rng, pose) if rng.random() < shares.hands else []
            if shares.people and rng.random() < shares.people:
                before += somebody(rng, pose)
            renderer.load(before + scene.primitives, scene.lights, scene.headlight, scene.ambient)
            frame = renderer.render(*pose)
            if not worth_keeping(frame.depth, bare=shares.facing > 0):
                continue
            image = lit(frame, rng)
            if shares.facing:
                image = clouded(image, frame.depth, rng)
            frame.image = exposed(image, rng)
            yield distorted(frame, rng)
            made, views = made + 1, views + 1
            if made == count or views == VIEWS:
                break


def worth_keeping(depth, bare=False):
    """
    Not inside a thing, not a wall at the nose, not all sky; nor, unless `bare`, a wall square
    ahead or mostly sky.
    """
    coarse = depth[::4, ::4]
    low, middle, high = np.quantile(np.minimum(coarse, 200), [0.05, 0.5, 0.95])
    if (coarse < 0.15).mean() >= 0.03:
        return False
    if bare:
        return middle > 0.3 and np.isfinite(coarse).mean() > 0.1
    return middle > 0.45 and high > 1.15 * low and np.isfinite(coarse).mean() > 0.4
