"""Where files lie that are not the user's own: what is cached, what came with the package."""

import os
import sysconfig
from pathlib import Path


def cache_folder(name):
    """Return `dar_ros/NAME` in XDG_CACHE_HOME, or in ~/.cache where that is not set or empty."""
    base = os.environ.get('XDG_CACHE_HOME') or Path('~/.cache').expanduser()
    return Path(base, 'dar_ros', name)


def shared(relative):
    """
    Return the path of a file that came with the package: in the source tree, else among the
    installed package's shared files. It need not exist.
    """
    here = Path(__file__).resolve().parent.parent
    candidates = [here, Path(sysconfig.get_path('data'), 'share', 'dar_ros')]
    try:
        from ament_index_python.packages import get_package_share_directory

        candidates.insert(1, Path(get_package_share_directory('dar_ros')))
    except (ImportError, LookupError, OSError):
        pass  # no ROS environment, or the package is not in its index
    # colcon installs lib/pythonX/site-packages/dar_ros beside share/dar_ros.
    candidates += [parent / 'share' / 'dar_ros' for parent in here.parents]
    paths = [candidate / relative for candidate in candidates]
    return next((path for path in paths if path.is_file()), paths[0])
