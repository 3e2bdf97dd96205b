"""Commands that install what is missing, as errors print them."""

import re
import shlex
import sys
from importlib import metadata


def pip_install(*requirements):
    """
    Command for the Python that runs this: `pip` alone may be another's, as beside a virtual
    environment.

    NumPy 1 stays where it is: ROS's message modules and apt's OpenCV may be compiled against it.
    """
    if _version('numpy').startswith('1.'):
        requirements += ('numpy<2',)
    return shlex.join([sys.executable, '-m', 'pip', 'install', *requirements])


def extra_install(name):
    """Command for what an extra of setup.py names: this package itself is on no index."""
    try:
        entries = metadata.requires('dar_ros') or ()
    except metadata.PackageNotFoundError:  # run from a source tree
        entries = ()
    of_extra = re.compile(rf'extra\s*==\s*["\']{name}["\']')
    wanted = [entry.split(';')[0].strip() for entry in entries if of_extra.search(entry)]
    return pip_install(*wanted) if wanted else pip_install(f'.[{name}]') + ' in its source tree'


def _version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ''
