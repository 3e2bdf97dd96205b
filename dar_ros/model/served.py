"""A checkpoint of `dar train` in the place of a bundle: what can be evaluated before export."""

import copy
from functools import cached_property

from dar_ros.bundle import Bundle
from dar_ros.model.checkpoint import load_checkpoint


class CheckpointBundle(Bundle):
    """
    The fields of a bundle, from a checkpoint and its record; only the torch backend serves it.

    The reference that backends replay is computed here, in fp32 on the CPU.
    """

    def __init__(self, path):
        from dar_ros.manifest import describe

        self.model, record = load_checkpoint(path)
        super().__init__(path, describe(self.model, record))

    @cached_property
    def _reference(self):
        import torch

        from dar_ros.model.reference import reference_arrays, reference_run

        with torch.no_grad():
            return reference_arrays(reference_run(self.model))

    def reference(self):
        """See Bundle."""
        return self._reference


def network(bundle):
    """Return the DAR of a bundle or a CheckpointBundle, in eval mode, for the caller to alter."""
    if isinstance(bundle, CheckpointBundle):
        return copy.deepcopy(bundle.model)
    from dar_ros.model.from_bundle import model_from_bundle

    return model_from_bundle(bundle)
