"""One Flower client; a module of its own, since Ray's actors import it."""

import functools

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from benchmarks.peers import common, torch_models


@functools.cache
def shards(setup):
  """Loads the data, once per actor."""
  return torch_models.tensors(*common.data(setup))


def train(setup, message: Message) -> Message:
  """Trains one client for its local epochs."""
  torch.set_num_threads(1)
  x, y = shards(setup)
  client = message.metadata.dst_node_id % setup.clients
  x, y = x[client], y[client]
  model = torch_models.build(setup)
  model.load_state_dict(message.content['arrays'].to_torch_state_dict())
  optimizer = torch.optim.SGD(model.parameters(), lr=setup.lr)
  for _ in range(setup.epochs):
    for rows in torch.randperm(len(x)).split(setup.batch):
      optimizer.zero_grad()
      torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
      optimizer.step()
  content = {
    'arrays': ArrayRecord(model.state_dict()),
    'metrics': MetricRecord({'num-examples': len(x)}),
  }
  return Message(content=RecordDict(content), reply_to=message)
