"""Images: a convolutional network on digits, CIFAR and others, by FedAvg.

relief run image --workdir=runs/digits
relief run image:cifar10 --workdir=runs/cifar --config.data.download=True

Without a variant the digits that come with scikit-learn, on twenty devices of
unlike classes. `cifar10` is the set-up of pfl-research, arXiv:2404.06430: 1,000
devices of 50 images, alike in classes, 50 a round, batches of 10, one epoch at
rate 0.1 without momentum. `cifar100`, `fashion_mnist` and `femnist` (a device
per writer) likewise, the first two with Dirichlet(0.5).

Variants: digits, cifar10, cifar100, fashion_mnist, femnist, smoke.
"""

from relief_jax import config as config_lib
from relief_jax.config import presets


def _set(c, dataset, clients, cohort, rounds):
  c.dataset, c.clients, c.clients_per_round = dataset, clients, cohort
  c.rounds, c.rounds_per_call, c.eval_every = rounds, 10, 10


def digits(c):
  """Sets 20 devices of Dirichlet(0.5), all of them in each of 40 rounds."""
  _set(c, 'digits', 20, 0, 40)
  c.local_steps, c.batch = 10, 16


def cifar10(c):
  """Sets pfl-research's CIFAR-10 with clients alike."""
  _set(c, 'cifar10', 1000, 50, 1500)
  c.partition = 'contiguous'  # the files are in random order
  c.local_steps, c.local_epochs, c.batch = 0, 1, 10
  c.hparams.client_lr, c.hparams.client_momentum = 0.1, 0.0
  c.target_f1 = 0.6


def cifar100(c):
  """Sets 500 devices of Dirichlet(0.5), 50 a round."""
  _set(c, 'cifar100', 500, 50, 1500)


def fashion_mnist(c):
  """Sets 500 devices of Dirichlet(0.5), 50 a round."""
  _set(c, 'fashion_mnist', 500, 50, 200)


def femnist(c):
  """Sets a device per writer of LEAF's sample of 5 %, 10 a round."""
  _set(c, 'femnist', 175, 10, 1000)
  c.partition = 'subject'


def smoke(c):
  """Shrinks to two rounds of eight devices on digits, in seconds."""
  _set(c, 'digits', 8, 0, 2)
  c.rounds_per_call = c.eval_every = 1
  c.local_steps, c.local_epochs, c.batch = 2, 0, 8
  c.partition = 'dirichlet'


def get_config(arg=None):
  """Builds the config; FedAvg, the official test images held out."""
  c = config_lib.default('fedavg')
  c.backbone, c.fleet, c.partition = 'image_cnn', 'three_tiers', 'dirichlet'
  c.data.split, c.data.own_share = 'official', 0.0
  digits(c)
  presets.apply(
    c,
    arg,
    digits=digits,
    cifar10=cifar10,
    cifar100=cifar100,
    fashion_mnist=fashion_mnist,
    femnist=femnist,
    smoke=smoke,
  )
  return c
