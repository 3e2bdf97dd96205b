"""The last depth of a model, by a backend and by torch itself, to be compared; an image for it."""

import numpy as np

NEAR, FAR = 0.2, 9.0


def picture():
    """Return RGB uint8 (1, 56, 112, 3), a tensor."""
    import torch

    image = np.random.default_rng(1).integers(0, 256, (1, 56, 112, 3), dtype=np.uint8)
    return torch.from_numpy(image)


def depth_by(backend, image):
    """Depth (h, w) after every step, of RGB uint8 (1, h, w, 3)."""
    backend.start(image[0].numpy(), NEAR, FAR)
    for _ in range(backend.bundle.num_steps):
        backend.step()
    return backend.finish().depth


def depth_by_torch(model, image):
    """See depth_by; of a DAR with log bins."""
    import torch

    with torch.inference_mode():
        (*_, last), encoded = model(image, torch.tensor([NEAR]), torch.tensor([FAR]))
        return model.upsample(last, encoded.upsample_mask).depth[0, 0].exp().numpy()
