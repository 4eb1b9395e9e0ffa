"""From the host's memory to a device's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sent(values: np.ndarray, device: str | torch.device) -> Tensor:
    """Returns `values` on the device. They go to a GPU from pinned memory, so that the host need not wait for it."""
    tensor = torch.from_numpy(values)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
