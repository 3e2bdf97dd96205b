"""What a process loads of a run's batches, by itself or by processes of its own."""

import os
import signal
import threading

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
        worker_init_fn=_heed_the_parent_alone,
    )
    try:
        yield from loader
    except UsageError as error:
        raise UsageError(str(error).strip().splitlines()[-1].split('UsageError: ')[-1]) from None


def _heed_the_parent_alone(_):
    """
    Let a loading process live on when torchrun or a batch system signals it as well: without it
    there would be no iteration to end with. SIGTERM of the process that it loads for ends it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent():
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
