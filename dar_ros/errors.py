"""Errors whose message is one line: what is wrong, and the cure."""


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
