"""One thread: the networks here are too small to share, and results must not depend on the machine."""

import torch

torch.set_num_threads(1)
