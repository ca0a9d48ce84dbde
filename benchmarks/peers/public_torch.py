"""A plain PyTorch loop on a public set-up: one process per core.

python -m benchmarks.peers.public_torch [--setup=pfl_cifar10] [--smoke]

Clients are divided over the processes; each trains one after the other on one
thread and adds the updates up as they come.
"""

import multiprocessing

import torch

from benchmarks import turns
from benchmarks.peers import common, torch_models


def train(model, start, sums, x, y, setup, order) -> None:
  """Trains one client from `start` and adds its update to `sums`."""
  params = list(model.parameters())
  with torch.no_grad():
    torch._foreach_copy_(params, start)
  for _ in range(setup.epochs):
    shuffled = torch.randperm(len(x), generator=order)
    for rows in shuffled.split(setup.batch):
      loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
      grads = torch.autograd.grad(loss, params)
      with torch.no_grad():
        torch._foreach_add_(params, grads, alpha=-setup.lr)
  with torch.no_grad():
    torch._foreach_add_(sums, params)
    torch._foreach_sub_(sums, start)


def work(rank, setup, start, sums, gate, rounds) -> None:
  """Trains a process's share of every round's cohort."""
  torch.set_num_threads(1)
  x, y = torch_models.tensors(*common.data(setup))
  model = torch_models.build(setup)
  order = torch.Generator().manual_seed(rank)
  for number in range(rounds):
    cohort = torch.randperm(
      setup.clients, generator=torch.Generator().manual_seed(number)
    )[: setup.cohort]
    gate.wait()
    for total in sums:
      total.zero_()
    for client in cohort[rank :: common.CORES.value].tolist():
      train(model, start, sums, x[client], y[client], setup, order)
    gate.wait()


def main(argv) -> None:
  """Times the loop's rounds and prints one JSON line."""
  del argv
  setup, rounds = common.chosen(), common.ROUNDS.value + 1
  torch.manual_seed(0)
  model = torch_models.build(setup)
  start = [p.detach().clone().share_memory_() for p in model.parameters()]
  cores = common.CORES.value
  parts = [[torch.zeros_like(p).share_memory_() for p in start]] + [
    [torch.zeros_like(p).share_memory_() for p in start]
    for _ in range(cores - 1)
  ]
  context = multiprocessing.get_context('fork')
  gate = context.Barrier(cores + 1)
  team = [
    context.Process(target=work, args=(r, setup, start, part, gate, rounds))
    for r, part in enumerate(parts)
  ]
  for process in team:
    process.start()

  def one_round():
    gate.wait()
    gate.wait()
    for part in parts:
      torch._foreach_add_(start, part, alpha=1.0 / setup.cohort)

  seconds = turns.timed(one_round, common.ROUNDS.value)
  for process in team:
    process.join()
  common.emit_setup(
    'torch',
    setup,
    seconds,
    parameters=torch_models.parameters(model),
    torch=torch.__version__,
  )


if __name__ == '__main__':
  turns.launch(main)
