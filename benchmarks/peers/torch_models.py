"""The public set-ups' models in PyTorch, for all sides that use it."""

import torch
from torch import nn

from benchmarks.peers.common import Setup


def build(setup: Setup) -> nn.Module:
  """Builds the model of a set-up; images are [B, C, H, W].

  Args:
    setup: `cnn` or `linear`.
  """
  if setup.model == 'linear':
    return nn.Linear(setup.shape[0], setup.classes)
  side = (setup.shape[0] - 4) // 2
  return nn.Sequential(
    nn.Conv2d(setup.shape[2], 32, 3),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(64 * side * side, 128),
    nn.ReLU(),
    nn.Linear(128, setup.classes),
  )


def parameters(model: nn.Module) -> int:
  """Counts the numbers that train."""
  return sum(p.numel() for p in model.parameters())


def tensors(x, y) -> tuple[torch.Tensor, torch.Tensor]:
  """Converts data for PyTorch: channels before height, int64 classes."""
  if x.ndim > 3:
    x = x.transpose(0, 1, 4, 2, 3).copy()
  return torch.from_numpy(x), torch.from_numpy(y).long()
