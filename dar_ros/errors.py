"""Errors whose message is one line: what is wrong, and the cure."""

import traceback


class DarError(Exception):
    """Base of every error this package raises on purpose."""


class BundleError(DarError):
    """A model bundle that must not be served."""


class BackendError(DarError):
    """A backend that cannot run, or runs wrongly."""


class FrameError(DarError):
    """An image or camera info that cannot be used."""


class UsageError(DarError):
    """A request that makes no sense."""


def forget_frames(error):
    """
    Drop the local variables of all frames that an exception, or one before it, went through: they
    would keep alive what is to be closed while it is handled.
    """
    known = set()
    while error is not None and id(error) not in known:
        known.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def first_line(error):
    """Return an exception as one line: its text, with its type where that is not ours."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else 'no further word'
    return text if isinstance(error, DarError) else f'{type(error).__name__}: {text}'
