"""T-FedAvg (https://arxiv.org/abs/2003.03564): ternary weights both ways.

A device trains latent weights V and computes with Q(V) = s sign(V) [|V| > D]
(FTTQ). Back through Q, with g the gradient of Q(V), V gets s g where |V| > D
and g elsewhere, and s gets the sum of g over V > D. The device sends Q(V); the
server averages, makes the mean ternary again where that loses little, and V
starts anew from what it broadcasts. Biases and the first and the last layer
stay in full precision. Grade: published code
(https://github.com/VeritasXu/Ternary-Federated), D and s in
compressors/ternary.py. Departures (**ours** unless the code has them too):

- s is always the mean magnitude of what is kept, as in the code, where it
  overwrites the trained one; its gradient is passed on to these weights.
- One D for the forward pass, the gradient and the server.
- The code falls back to a broadcast in full precision by *test* accuracy. Here
  a weight matrix is broadcast ternary where |Q(W) - W| < lost |W|.
- A convolution is a matrix of taps times channels, so that `released` cuts as
  in dense layers: 4 % zeros where the code has 22 % with 5 taps.

A short local training, from a ternary broadcast, moves few weights across D:
then s, the ends and the biases do most of the learning.

*Budget*: none. *FLOPs*: FedAvg's; the quantiser's few per weight and step, and
what ternary products may save, are not charged. *Bytes*: two bits a weight and
s up; the same down where the broadcast is ternary, else four bytes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.algorithms import fedavg
from relief_jax.clients.work import local_sgd, projected
from relief_jax.compressors import Codec, none, ternary
from relief_jax.compressors import base as codes
from relief_jax.engine import ambient
from relief_jax.keys import name, option, real
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Traits
from relief_jax.rounds.records import SubModels
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, PyTree

# Q(Q(V)) is Q(V) but for the rounding of a mean of equal numbers.
_SAME = 1e-5


@jax.custom_vjp
def straight_through(value: Array, kept: Array, scale: Array) -> Array:
  """Gives s sign(V) where kept, else 0.

  Args:
    value: V, [...].
    kept: [...] bool, |V| > D.
    scale: s, [].
  """
  return jnp.where(kept, scale * jnp.sign(value), 0.0)


def _forward(value, kept, scale):
  return straight_through(value, kept, scale), (value, kept, scale)


def _backward(saved, g):
  value, kept, scale = saved
  above = jnp.where(kept & (value > 0), g, 0.0)
  return jnp.where(kept, scale * g, g), None, above.sum()


straight_through.defvjp(_forward, _backward)


def quantise(value: Array, mode: str) -> Array:
  """Quantises V to Q(V), with the gradient of FTTQ.

  Args:
    value: V, an array of two axes or more.
    mode: of D, `twn` or `released`.
  """
  kept = jnp.abs(value) > ternary.threshold(mode)(value)
  return straight_through(value, kept, ternary.scale(value, kept))


def lost(value: Array, mode: str) -> Array:
  """Computes |Q(W) - W| / |W|, []; 0 for zeros.

  Args:
    value: W, an array of two axes or more.
    mode: of D.
  """
  missing = jnp.square(quantise(value, mode) - value).sum()
  return jnp.sqrt(missing / jnp.maximum(jnp.square(value).sum(), 1e-30))


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of T-FedAvg."""

  mode: str = option(name('twn', tuple(ternary.MODES), 'its threshold'))
  exempt: str = option(
    name(
      'ends',
      ('ends', 'none', 'all'),
      'full precision: first and last layer; none, all',
    )
  )
  lost: float = option(
    real(0.2, 0, 1, 'relative error at most for a ternary broadcast; 0: none')
  )


@Facts(options=Options, fill='input')
def tfedavg(task: Task, setting: Setting) -> Method:
  """Builds T-FedAvg; with `exempt='all'` it is FedAvg.

  Args:
    task: the model.
    setting: the round, with `Options`. `exempt` says what stays in full
      precision beside the biases; with `lost=0` the broadcast is never ternary.

  Raises:
    InputError: an unknown mode, a codec of the links, or a server's optimiser
      that adds more than the mean, which would not stay ternary.
  """
  mode, most = setting.options.mode, setting.options.lost
  code = ternary.ternary(Codec('ternary', mode=mode))
  base = fedavg.fedavg(task, setting)
  num = task.num_blocks
  shapes = jax.eval_shape(task.init, ambient.key(0))
  exempt = {'ends': task.ends, 'all': True, 'none': False}
  coded = jax.tree.map(
    lambda end, part: jax.tree.map(lambda v: not end and v.ndim > 1, part),
    exempt[setting.options.exempt],
    shapes,
  )

  def view(params: PyTree) -> PyTree:
    return jax.tree.map(
      lambda on, v: quantise(v, mode) if on else v, coded, params
    )

  def settle(params: PyTree) -> PyTree:
    def one(on, value):
      if not on:
        return value
      fits = lost(value, mode) < most
      return jnp.where(fits, quantise(value, mode), value)

    return jax.tree.map(one, coded, params)

  def up(on, value):
    own = code if on else none.NONE
    return float(codes.wire_bytes(own, value.shape))

  def down(on, value):
    whole = up(False, value)
    if not on:
      return whole
    return jnp.where(lost(value, mode) < _SAME, up(True, value), whole)

  def plan(server, round: Round) -> Plan:
    wire = [
      tree.group_sum(task.groups, jax.tree.map(size, coded, server.params), num)
      for size in (up, down)
    ]
    found = fedavg.everybody(setting, round)
    return found._replace(cost=found.cost._replace(wire=jnp.stack(wire)))

  train = local_sgd(task, view=view)

  def client(received, device):
    return projected(train(received, device), received, view)

  def server(state, mean, round):
    state, own = base.server(state, mean, round)
    params = tree.select(mean.touched, settle(state.params), state.params)
    return state._replace(params=params), own

  def device_submodels(params, done, fleet, hparams) -> SubModels:
    del done, hparams
    model = jnp.ones(fleet.id.shape, jnp.int32)
    return SubModels(model, ((task, view(params)),))

  return base._replace(
    plan=plan,
    client=client,
    server=server,
    model=lambda received, kept: view(received.params),
    device_submodels=device_submodels,
    traits=Traits(
      projects=True, wire='codes both links itself', optimizers=('sgd',)
    ),
  )
