"""Builds the local optimiser of devices, and its rate in a round.

Any optimiser of optax that looks at each parameter by itself: those in
`OPTIMIZERS` by their names, others by reference, such as `optax:lamb` or
`FILE.py:NAME`, a function (learning_rate, ...) -> GradientTransformation. It
has a state, and a count of steps, for every parameter by itself, so that one
that does not train keeps all of it, as in a device's own framework.

Numbers among its arguments are traced, as all hyperparameters; what its state
begins with, switches and whole numbers are static.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from relief_jax import plugins
from relief_jax.types import Array, PyTree

Factory = Callable[..., optax.GradientTransformation]

OPTIMIZERS: dict[str, Factory] = {
  'momentum': optax.sgd,  # with hparams.client_momentum
  **{
    name: getattr(optax, name)
    for name in (
      'sgd',
      'adam',
      'adamw',
      'adamax',
      'adamaxw',
      'nadam',
      'nadamw',
      'radam',
      'amsgrad',
      'adabelief',
      'yogi',
      'rmsprop',
      'adagrad',
      'adadelta',
      'lion',
      'sign_sgd',
    )
  },
}

KIND = plugins.Kind(
  'local optimiser',
  'client_optimizer',
  'relief_jax.optimizers',
  OPTIMIZERS,
  'a function (learning_rate, ...) that gives an optax.GradientTransformation',
  plugins.takes(1),
)

SCHEDULES = ('constant', 'exponential', 'step', 'linear', 'cosine')


class Optimizer(NamedTuple):
  """Describes a local optimiser; static and hashable.

  Attributes:
    name: as `find`.
    traced: arguments whose values are hyperparameters, `optimizer.NAME`.
    fixed: (name, value) of the others that are given.
    schedule: of `SCHEDULES`.
    warms: the rate rises over the first hparams.lr_warmup rounds.
  """

  name: str = 'momentum'
  traced: tuple[str, ...] = ()
  fixed: tuple[tuple[str, Any], ...] = ()
  schedule: str = 'constant'
  warms: bool = False


def find(name: str) -> Factory:
  """Looks up a local optimiser.

  Args:
    name: in `OPTIMIZERS`, or outside of this package (`plugins.py`).

  Raises:
    InputError: there is none of that name.
  """
  return plugins.find(KIND, name)


def key(argument: str) -> str:
  """Gives the hyperparameter that holds a traced argument."""
  return f'optimizer.{argument}'


def build(
  optimizer: Optimizer, hparams: Mapping[str, Any], rate: Array
) -> optax.GradientTransformation:
  """Builds the optimiser of a round's local steps.

  Args:
    optimizer: which.
    hparams: traced hyperparameters.
    rate: [] learning rate.
  """
  given = dict(optimizer.fixed)
  given |= {name: hparams[key(name)] for name in optimizer.traced}
  if optimizer.name == 'momentum':
    given['momentum'] = hparams['client_momentum']
  return by_parameter(find(optimizer.name)(rate, **given))


def by_parameter(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Runs an optimiser on every parameter by itself; its states are a P."""

  def init(params):
    return jax.tree.map(tx.init, params)

  def update(grads, state, params=None):
    leaves, structure = jax.tree.flatten(grads)
    rest = [
      [None] * len(leaves) if v is None else structure.flatten_up_to(v)
      for v in (state, params)
    ]
    pairs = [tx.update(*one) for one in zip(leaves, *rest, strict=True)]
    updates, states = ([pair[i] for pair in pairs] for i in range(2))
    return structure.unflatten(updates), structure.unflatten(states)

  return optax.GradientTransformation(init, update)


def select(mask: PyTree, new: PyTree, old: PyTree) -> PyTree:
  """Selects the state of parameters that train, else the bits of the old one.

  Args:
    mask: prefix tree of P, bool, scalars or of the parameters' shapes; a count
      goes on where any number of its parameter trains.
    new: of `by_parameter`.
    old: likewise.
  """

  def one(m, a, b):
    m = jnp.asarray(m)

    def pick(u, v):
      return jnp.where(m if m.shape == v.shape else m.any(), u, v)

    return jax.tree.map(pick, a, b)

  return jax.tree.map(one, mask, new, old)


def numbers_kept(tx: optax.GradientTransformation) -> float:
  """Counts the numbers that an optimiser keeps per parameter of a matrix.

  Its counts of steps, one for a whole array, are left out.
  """
  one = jax.ShapeDtypeStruct((256, 256), jnp.float32)
  state = jax.eval_shape(tx.init, one)
  kept = [
    v for v in jax.tree.leaves(state) if jnp.issubdtype(v.dtype, jnp.floating)
  ]
  return sum(v.size * v.dtype.itemsize for v in kept) / (4 * one.size)


def rate(
  optimizer: Optimizer, hparams: Mapping[str, Any], round_index: Array | int
) -> Array:
  """Computes the learning rate of a round, the same in all its local steps.

  With `exponential` hparams.lr_decay times the last one, with `step` in every
  hparams.lr_every-th round, down to hparams.lr_floor; with `linear` and
  `cosine` on a line or half a cosine from hparams.client_lr to
  hparams.lr_floor over the rounds of the run that follow the warm-up.

  Args:
    optimizer: its schedule.
    hparams: traced hyperparameters.
    round_index: [] int32.
  """
  # Schedules of optax branch on their arguments in Python; these are traced.
  first = value = hparams['client_lr']
  begins = hparams['lr_warmup'] if optimizer.warms else 0.0
  kind = optimizer.schedule
  if kind in ('exponential', 'step'):
    falls = round_index
    if kind == 'step':
      falls = jnp.floor(round_index / hparams['lr_every'])
    value = first * hparams['lr_decay'] ** falls
    value = jnp.maximum(value, hparams['lr_floor'])
  elif kind in ('linear', 'cosine'):
    length = jnp.maximum(hparams['rounds'] - begins, 1.0)
    done = jnp.clip((round_index - begins) / length, 0.0, 1.0)
    left = 1 - done
    if kind == 'cosine':
      left = 0.5 * (1 + jnp.cos(jnp.pi * done))
    value = hparams['lr_floor'] + (first - hparams['lr_floor']) * left
  if optimizer.warms:
    value = value * jnp.minimum((round_index + 1) / begins, 1.0)
  return value
