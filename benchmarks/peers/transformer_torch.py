"""The transformer on the sensor workload as a plain PyTorch loop.

python -m benchmarks.peers.transformer_torch [--model=full|lora] [--smoke]

Processes and clients as in sensor_torch.py. Tokens of absent sensors are left
out; `lora` trains adapters of rank 8 on q and v, and the head.
"""

import functools

import numpy as np
import torch
from absl import flags
from torch.nn import functional

from benchmarks import turns
from benchmarks.peers import common, sensor_torch

_MODEL = flags.DEFINE_enum(
  'model', 'full', ['full', 'lora'], 'all parameters, or adapters on q and v'
)
_D, _BLOCKS, _HEADS, _TOKENS, _RANK = 64, 4, 4, 8, 8
_LINEAR = {'q': (1, 1), 'k': (1, 1), 'v': (1, 1), 'o': (1, 1)}
_LINEAR |= {'up': (1, 4), 'down': (4, 1)}


def init(world: common.Sensor) -> dict[str, torch.Tensor]:
  """Draws all parameters, by name."""
  torch.manual_seed(0)
  params = {}
  for name, x in world.x.items():
    size = x.shape[1] // _TOKENS * x.shape[2]
    params[f'{name}/w'] = torch.randn(size, _D) * size**-0.5
    params[f'{name}/position'] = 0.02 * torch.randn(_TOKENS, _D)
  for i in range(_BLOCKS):
    for name, (a, b) in _LINEAR.items():
      w = torch.randn(b * _D, a * _D) * (a * _D) ** -0.5
      params[f'{i}.{name}.w'] = w
      params[f'{i}.{name}.b'] = torch.zeros(b * _D)
    for norm in ('norm1', 'norm2'):
      params[f'{i}.{norm}.w'] = torch.ones(_D)
      params[f'{i}.{norm}.b'] = torch.zeros(_D)
  params['norm.w'], params['norm.b'] = torch.ones(_D), torch.zeros(_D)
  params['head.w'] = torch.randn(world.classes, _D) * 0.1 * _D**-0.5
  params['head.b'] = torch.zeros(world.classes)
  return params


def adapters() -> dict[str, torch.Tensor]:
  """Draws adapters of q and v, by name."""
  found = {}
  for i in range(_BLOCKS):
    for name in 'qv':
      found[f'{i}.{name}.low_a'] = torch.randn(_RANK, _D) * (2 / _D) ** 0.5
      found[f'{i}.{name}.low_b'] = torch.zeros(_D, _RANK)
  return found


def loss(frozen, params, inputs, y) -> torch.Tensor:
  """Computes the mean cross-entropy of a batch over the modalities given.

  Args:
    frozen: parameters that do not train, by name.
    params: those that do.
    inputs: {modality: [B, time, channels]}.
    y: [B].
  """
  every = {**frozen, **params}

  def linear(x, name):
    out = functional.linear(x, every[f'{name}.w'], every[f'{name}.b'])
    if f'{name}.low_a' not in every:
      return out
    low = functional.linear(x, every[f'{name}.low_a'])
    return out + 2.0 * functional.linear(low, every[f'{name}.low_b'])

  def norm(x, name):
    w, b = every[f'{name}.w'], every[f'{name}.b']
    return functional.layer_norm(x, (_D,), w, b)

  tokens = [
    x.reshape(len(y), _TOKENS, -1) @ every[f'{m}/w'] + every[f'{m}/position']
    for m, x in inputs.items()
  ]
  x = torch.cat(tokens, 1)
  shape = len(y), -1, _HEADS, _D // _HEADS
  for i in range(_BLOCKS):
    h = norm(x, f'{i}.norm1')
    q, k, v = (
      linear(h, f'{i}.{n}').reshape(shape).transpose(1, 2) for n in 'qkv'
    )
    mixed = functional.scaled_dot_product_attention(q, k, v)
    x = x + linear(mixed.transpose(1, 2).reshape(x.shape), f'{i}.o')
    h = linear(norm(x, f'{i}.norm2'), f'{i}.up')
    x = x + linear(functional.gelu(h, approximate='tanh'), f'{i}.down')
  scores = linear(norm(x.mean(1), 'norm'), 'head')
  return functional.cross_entropy(scores, y)


class Client(sensor_torch.Client):
  """Trains any client of the workload.

  Args:
    frozen: parameters that do not train.
    world: as there, and so are the others.
    start: as there.
    sums: as there.
  """

  def __init__(self, frozen, world, start, sums):
    super().__init__(world, start, sums)
    self.loss = functools.partial(loss, frozen)

  def ordered(self, x: np.ndarray) -> torch.Tensor:
    """Gives windows as they are."""
    return torch.from_numpy(x.copy())


def main(argv) -> None:
  """Times the rounds."""
  del argv
  world = common.sensor(sensor_torch.CLIENTS.value, common.SMOKE.value)
  params, frozen = init(world), {}
  if _MODEL.value == 'lora':
    trained = ('norm.', 'head.')
    frozen = {k: v for k, v in params.items() if not k.startswith(trained)}
    params = {k: v for k, v in params.items() if k not in frozen}
    params |= adapters()
  make = functools.partial(Client, frozen)
  sensor_torch.race('transformer', world, params, make, model=_MODEL.value)


if __name__ == '__main__':
  turns.launch(main)
