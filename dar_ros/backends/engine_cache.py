"""
Built engines on disk: found by a key of everything that matters, written whole or not at all.

An engine is code for one library version and one GPU. So every file has a JSON beside it with its
key and its hash; what does not match, or is cut short, is built again and never loaded.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dar_ros.errors import BackendError
from dar_ros.paths import cache_folder

SCHEMA = 1
LOCK_PERIOD = 0.2  # seconds between two looks at a lock that another process holds


class CacheError(BackendError):
    """A file of the cache that cannot be written."""


class EngineCache:
    """
    A folder of engines, by default the user's; `key` is a dict of plain data, which must say all
    that an engine depends on. `unkept` is '' or says why engines that were built are not kept.
    """

    def __init__(self, folder=None):
        self.folder, self.unkept = Path(folder or cache_folder('engines')), ''
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BackendError(
                f'{self.folder} cannot hold engines ({error.strerror}); '
                'set XDG_CACHE_HOME to a writable folder'
            ) from None

    def path(self, name, key):
        """File of an engine; `name` is for people, and any that a model.json may hold."""
        text = json.dumps({**key, 'schema': SCHEMA}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder / f'{re.sub(r"[^a-zA-Z0-9_-]", "_", name)}-{digest}.engine'

    def get(self, name, key, build, refused=None, waiting=None):
        """
        Return an engine's bytes: from the folder, unless they are the `refused` ones, or from
        `build()`, which are then kept in their place.

        Two processes that start at once build it once: the second waits for the first, and calls
        `waiting()` now and then. An engine that cannot be kept is returned all the same.
        """
        path = self.path(name, key)
        # No lock to read: files are written whole, and two that do not belong together are None.
        plan = _read(path, key)
        if plan is not None and plan != refused:
            return plan
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path.with_suffix('.lock'), waiting))
            except CacheError as error:
                self.unkept = str(error)
            plan = _read(path, key)  # another process may have built it meanwhile
            if plan is None or plan == refused:
                plan = bytes(build())
                self._keep(path, key, plan)
        return plan

    def _keep(self, path, key, plan):
        record = {
            'key': {**key, 'schema': SCHEMA},
            'size': len(plan),
            'sha256': hashlib.sha256(plan).hexdigest(),
        }
        try:
            # The engine first: a JSON without its engine would be a promise not kept.
            write_whole(path, plan)
            write_whole(path.with_suffix('.json'), json.dumps(record, indent=1).encode())
        except CacheError as error:
            self.unkept = str(error)


def _read(path, key):
    """Engine bytes, or None if the file is missing or not what its JSON and the key say."""
    try:
        record = json.loads(path.with_suffix('.json').read_text())
        plan = path.read_bytes()
    except (OSError, ValueError):
        return None
    wanted = json.loads(json.dumps({**key, 'schema': SCHEMA}))  # tuples become lists
    digest = hashlib.sha256(plan).hexdigest()
    if record != {'key': wanted, 'size': len(plan), 'sha256': digest}:
        return None
    return plan


def read_sealed(path):
    """Bytes that `write_sealed` wrote, or b'' if there are none or they are damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return b''
    digest, body = data[:32], data[32:]
    return body if hashlib.sha256(body).digest() == digest else b''


def write_sealed(path, body):
    """Write bytes behind their hash."""
    write_whole(path, hashlib.sha256(body).digest() + body)


def write_whole(path, data):
    """Write a file that others see whole or not at all."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # which a file system that became read-only refuses as well
            temporary.unlink(missing_ok=True)
        raise CacheError(
            f'{path} cannot be written ({error.strerror}); free space, or set XDG_CACHE_HOME'
        ) from None


@contextmanager
def locked(path, waiting=None):
    """
    Hold a lock file; the kernel frees it when its process ends, however it ends.

    `waiting()` is called now and then while another holds it; what it raises ends the wait.
    """
    try:
        file = open(path, 'w')
    except OSError as error:
        raise CacheError(
            f'{path} cannot be opened ({error.strerror}); set XDG_CACHE_HOME to a writable folder'
        ) from None
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting:
                    waiting()
                time.sleep(LOCK_PERIOD)
            except OSError as error:
                raise CacheError(f'{path} cannot be locked ({error.strerror})') from None
        yield
