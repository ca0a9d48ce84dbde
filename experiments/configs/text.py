"""Text: the next character, a device per author, by FedAvg.

relief run text --workdir=runs/shakespeare --data_dir=DATA
relief run text --workdir=runs/mine --config.dataset=texts \
    --config.data_path=FOLDER --config.clients=12

The roles of Shakespeare's plays (relief_jax/datasets/shakespeare.py); the last
fifth of every role's lines is held out. `leaf` reads LEAF's own files. With as
many clients as authors a device is one author; with fewer, several.

Variants: leaf, own, transformer, smoke. `own` also keeps the end of what a
device trains on for a test of its own; `transformer` trains the preset `char`,
which sees up to 64 characters.
"""

from relief_jax import config as config_lib
from relief_jax.config import presets


def leaf(c):
  """Reads LEAF's files; windows are cut as they are there."""
  c.dataset = 'leaf_shakespeare'
  c.clients = 100


def own(c):
  """Tests every device on its own author, too."""
  c.data.own_share = 0.2


def transformer(c):
  """Takes the small transformer; half as many devices take part."""
  c.backbone, c.model.transformer.preset = 'transformer', 'char'
  c.clients_per_round = 16
  c.hparams.client_lr = 0.1


def smoke(c):
  """Shrinks to two rounds of eight devices of made-up words, in seconds."""
  c.dataset = 'synthetic_text'
  c.clients, c.clients_per_round, c.rounds = 8, 0, 2
  c.rounds_per_call = c.eval_every = 1
  c.local_steps, c.batch, c.data.width = 2, 4, 16
  c.model.hidden, c.model.transformer.preset = 16, 'tiny'


def get_config(arg=None):
  """Builds the config: a perceptron over eight characters.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default('fedavg')
  c.dataset, c.clients, c.clients_per_round = 'shakespeare', 780, 32
  c.backbone, c.fleet, c.partition = 'char_mlp', 'three_tiers', 'subject'
  c.data.split, c.data.own_share, c.data.width = 'official', 0.0, 64
  c.rounds, c.rounds_per_call, c.eval_every = 200, 10, 10
  c.local_steps, c.batch, c.model.hidden = 10, 16, 256
  c.hparams.client_lr = 0.3
  c.target = 8.0
  presets.apply(
    c, arg, leaf=leaf, own=own, transformer=transformer, smoke=smoke
  )
  return c
