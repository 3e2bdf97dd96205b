"""Which CameraInfo belongs to an image: that of its stamp, else the latest."""

import threading
from collections import OrderedDict

KEPT = 30  # messages
PATIENCE = 0.03  # seconds; drivers publish camera_info right before or right after the image


def _key(msg):
    return msg.header.stamp.sec, msg.header.stamp.nanosec


def other_camera(theirs, mine):
    """
    [] or one line: the frames of camera_info and image differ.

    Size and stamps of a neighbouring camera are the same where a rig triggers both, and nothing
    else tells that the scale is of another lens.
    """
    if not (mine and theirs) or mine == theirs:
        return []
    return [f'camera_info is of frame {theirs}, the image of {mine}: another camera?']


class CameraInfos:
    """
    The last CameraInfo messages by stamp; filled by one thread, asked by another.

    The camera_info of an image that was published first is awaited for a moment, unless the
    camera has shown that its stamps do not match: then waiting would only add latency.
    """

    def __init__(self):
        self._messages, self._came = OrderedDict(), threading.Condition()
        self._matching, self._missed = True, None

    def add(self, msg):
        """Keep a message; of two with one stamp the later one."""
        with self._came:
            self._messages[_key(msg)] = msg
            self._messages.move_to_end(_key(msg))
            while len(self._messages) > KEPT:
                self._messages.popitem(last=False)
            # A late twin: the stamps do match, and the next image may wait for its own.
            self._matching = self._matching or _key(msg) == self._missed
            self._came.notify()

    def find(self, image):
        """
        Return (CameraInfo, whether it is of the image's stamp); (None, False) before the first.
        """
        stamp = _key(image)
        with self._came:
            if not self._messages:
                return None, False
            if self._matching:
                self._came.wait_for(lambda: stamp in self._messages, PATIENCE)
            if stamp in self._messages:
                self._matching = True
                return self._messages[stamp], True
            self._matching, self._missed = False, stamp
            return next(reversed(self._messages.values())), False

    def clear(self):
        """Forget the camera."""
        with self._came:
            self._messages.clear()
            self._matching, self._missed = True, None
