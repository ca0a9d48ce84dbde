"""The sensor workload as a plain PyTorch loop: one process per core.

python -m benchmarks.peers.sensor_torch [--form=conv|im2col] [--smoke]

Clients are divided over the processes by the number of sensors they own; each
process trains its clients one after the other on one thread. Encoders of
absent sensors are not run at all. Updates are summed as they come, the mean
over a modality's owners is taken at the end of the round.
"""

import multiprocessing
from collections.abc import Callable

import numpy as np
import torch
from absl import flags
from torch.nn import functional

from benchmarks import turns
from benchmarks.peers import common

_FORM = flags.DEFINE_enum(
  'form', 'conv', ['conv', 'im2col'], "PyTorch's convolution, or products"
)
CLIENTS = flags.DEFINE_integer('clients', 64, 'in the round')


def init(world: common.Sensor) -> dict[str, torch.Tensor]:
  """Draws parameters, by name; the fusion is cut by modality."""
  torch.manual_seed(0)
  one, two = world.filters
  params = {}
  for name, x in world.x.items():
    params[f'{name}/w1'] = 0.1 * torch.randn(one, x.shape[-1], 5)
    params[f'{name}/b1'] = torch.zeros(one)
    params[f'{name}/w2'] = 0.1 * torch.randn(two, one, 5)
    params[f'{name}/b2'] = torch.zeros(two)
    params[f'{name}/fusion'] = 0.1 * torch.randn(two, world.hidden)
  params['bias'] = torch.zeros(world.hidden)
  params['w'] = 0.1 * torch.randn(world.hidden, world.classes)
  params['b'] = torch.zeros(world.classes)
  return params


def columns(x: torch.Tensor) -> torch.Tensor:
  """Applies im2col, kernel 5 and stride 2: [B, L, c] -> [B * L', 5 * c]."""
  length = (x.shape[1] - 5) // 2 + 1
  taps = [x[:, i : i + 2 * length - 1 : 2] for i in range(5)]
  return torch.cat(taps, -1).view(-1, 5 * x.shape[2])


def encode(w, b, x: torch.Tensor) -> torch.Tensor:
  """Applies a convolution and its ReLU; time is last, or second for im2col."""
  if _FORM.value == 'conv':
    return torch.relu(functional.conv1d(x, w, b, stride=2))
  y = torch.addmm(b, columns(x), w.permute(2, 1, 0).reshape(-1, w.shape[0]))
  return torch.relu(y).view(len(x), -1, w.shape[0])


def loss(params, inputs, y) -> torch.Tensor:
  """Computes the mean cross-entropy of a batch over the modalities given.

  Args:
    params: by name.
    inputs: {modality: [B, channels, time], for im2col [B, time, channels]}.
    y: [B].
  """
  z, time = params['bias'], -1 if _FORM.value == 'conv' else 1
  for name, x in inputs.items():
    for layer in '12':
      w, b = params[f'{name}/w{layer}'], params[f'{name}/b{layer}']
      x = encode(w, b, x)
    z = z + x.mean(time) @ params[f'{name}/fusion']
  scores = torch.addmm(params['b'], torch.relu(z), params['w'])
  return functional.cross_entropy(scores, y)


class Client:
  """Trains any client of the workload; one per process.

  Args:
    world: the workload.
    start: shared parameters of the server.
    sums: where this process adds up its clients' updates.
  """

  loss = staticmethod(loss)

  def __init__(self, world, start, sums):
    self.world, self.start, self.sums = world, start, sums
    self.x = {name: self.ordered(x) for name, x in world.x.items()}
    self.y = torch.from_numpy(world.y)
    self.rows = torch.from_numpy(world.rows)
    self.params = {k: v.clone().requires_grad_(True) for k, v in start.items()}
    self.draw = torch.Generator().manual_seed(0)

  def ordered(self, x: np.ndarray) -> torch.Tensor:
    """Gives windows [windows, time, channels] as the model reads them."""
    order = (0, 2, 1) if _FORM.value == 'conv' else (0, 1, 2)
    return torch.from_numpy(x.transpose(order).copy())

  def train(self, client: int) -> None:
    """Trains one client: five steps of SGD on the sensors that it owns."""
    world = self.world
    own = [n for n, has in zip(self.x, world.owned[client], strict=True) if has]
    names = [k for k in self.params if '/' not in k or k.split('/')[0] in own]
    params = [self.params[k] for k in names]
    start = [self.start[k] for k in names]
    with torch.no_grad():
      torch._foreach_copy_(params, start)
    for _ in range(world.steps):
      at = torch.randint(40, (world.batch,), generator=self.draw)
      row = self.rows[client][at]
      inputs = {n: self.x[n].index_select(0, row) for n in own}
      value = self.loss(self.params, inputs, self.y[row])
      grads = torch.autograd.grad(value, params)
      with torch.no_grad():
        torch._foreach_add_(params, grads, alpha=-0.01)
    sums = [self.sums[k] for k in names]
    with torch.no_grad():
      torch._foreach_add_(sums, params)
      torch._foreach_sub_(sums, start)


def deal(owned: np.ndarray, cores: int) -> list[list[int]]:
  """Assigns clients to processes, heaviest first to the least loaded."""
  hands: list[list[int]] = [[] for _ in range(cores)]
  load = [0] * cores
  for client in np.argsort(-owned.sum(1), kind='stable'):
    least = load.index(min(load))
    hands[least].append(int(client))
    load[least] += int(owned[client].sum())
  return hands


def work(make, hand, world, start, sums, gate, rounds) -> None:
  """Trains a process's share of every round; `make` gives its `Client`."""
  torch.set_num_threads(1)
  client = make(world, start, sums)
  for _ in range(rounds):
    gate.wait()
    for total in sums.values():
      total.zero_()
    for number in hand:
      client.train(number)
    gate.wait()


def race(
  workload: str,
  world: common.Sensor,
  params: dict[str, torch.Tensor],
  make: Callable[..., Client],
  **facts: str,
) -> None:
  """Times the rounds and prints one JSON line.

  Args:
    workload: its name.
    world: its data.
    params: of the server, by name; what comes before a slash is the modality
      whose owners train them, or they are everybody's.
    make: (world, params, sums) -> client.
    **facts: of the line.
  """
  rounds, cores = common.ROUNDS.value, common.CORES.value
  start = {k: v.share_memory_() for k, v in params.items()}
  parts = [
    {k: torch.zeros_like(v).share_memory_() for k, v in start.items()}
    for _ in range(cores)
  ]
  owners = dict(zip(world.x, world.owned.sum(0), strict=True))
  context = multiprocessing.get_context('fork')
  gate = context.Barrier(cores + 1)
  team = [
    context.Process(
      target=work, args=(make, hand, world, start, part, gate, rounds + 1)
    )
    for hand, part in zip(deal(world.owned, cores), parts, strict=True)
  ]
  for process in team:
    process.start()

  def one_round():
    gate.wait()
    gate.wait()
    for name, value in start.items():
      count = owners.get(name.split('/')[0], len(world.owned))
      for part in parts:
        value.add_(part[name], alpha=1.0 / max(int(count), 1))

  seconds = turns.timed(one_round, rounds)
  for process in team:
    process.join()
  common.emit(
    'torch',
    workload,
    len(world.owned),
    seconds,
    **facts,
    modalities_owned=float(world.owned.sum(1).mean()),
    parameters=sum(v.numel() for v in start.values()),
    torch=torch.__version__,
  )


def main(argv) -> None:
  """Times the rounds of the sensor workload."""
  del argv
  world = common.sensor(CLIENTS.value, common.SMOKE.value)
  race('sensor', world, init(world), Client, form=_FORM.value)


if __name__ == '__main__':
  turns.launch(main)
