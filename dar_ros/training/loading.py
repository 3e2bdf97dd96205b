"""What a process loads of a run's batches, by itself or by processes of its own."""

import signal

from torch.utils.data import DataLoader, Subset

from dar_ros.errors import UsageError


def parts_of(samples, batches, rank, world_size, accumulate, workers):
    """
    Yield the parts of one process: of every batch, indices (n, batch) of `samples`, one stretch in
    `accumulate` parts. What a loading process finds wrong is told without its traceback.
    """
    share = batches.shape[1] // world_size
    mine = batches[:, rank * share : (rank + 1) * share].ravel()
    loader = DataLoader(
        Subset(samples, mine.tolist()),
        share // accumulate,
        num_workers=workers,
        worker_init_fn=_ignore_sigterm,
    )
    try:
        yield from loader
    except UsageError as error:
        raise UsageError(str(error).strip().splitlines()[-1].split('UsageError: ')[-1]) from None


def _ignore_sigterm(_):
    """
    Let a loading process live on: torchrun and batch systems signal it too, and without it there
    would be no iteration to end with. It leaves when the process that it loads for does.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
