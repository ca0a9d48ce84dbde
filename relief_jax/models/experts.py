"""Computes mixtures of experts: behind a fusion, or the MLPs of a transformer.

Between the fusion and the head of sensor models, with a = relu(z + b) of the
fused features, and s the sensors that are there,

    p = softmax(a @ w + sum_m s_m seen_m + b),   y = a + sum_e g_e E_e(a),
    E_e(a) = f(a @ up_e + b_e) @ down_e + c_e,   f = relu

where g is p of the k largest, divided by their sum. In a block of a transformer
(transformer_forward.py) the same of every token that is there, x + sum_e g_e
E_e(LN x) with f = GELU, and a gate that sees the token alone. Nothing is
dropped: an expert has no capacity. Grade of the layer: published (top-k
routing, the balance loss E sum_e f_e P_e of Switch,
https://arxiv.org/abs/2101.03961); its place behind the fusion, the sum with a
and the gate's look at the sensors are **ours**. An expert that a device does
not have is one whose bias of the gate is `layers.NEVER`.

Trained one client at a time, an expert that is not there is not computed, and
one that does not train has no gradient of its weights. Else all experts see all
samples, which is exact; a device is charged for those that are active.

Probabilities of n mixtures are [B, ..., n, E], 0 of a token that is not there.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.models import encoders, layers
from relief_jax.models.encoders import Numbering, Spec
from relief_jax.models.mixture import Mixture
from relief_jax.models.work_builder import WorkBuilder
from relief_jax.task import Experts, Skip
from relief_jax.types import Array, PyTree

# Of a model's key; exits take others.
_EXPERTS = 200


class Form(NamedTuple):
  """Says how an expert computes; static.

  Attributes:
    dense: (x [R, i], w [i, o], b [o]) -> [R, o].
    activation: f, [R, i] -> [R, i].
    flops: of it for a number, forward and of the gradient.
  """

  dense: Callable[[Array, Array, Array], Array]
  activation: Callable[[Array], Array]
  flops: tuple[int, int]


class Layer(NamedTuple):
  """Describes one mixture; static.

  Attributes:
    mixture: its sizes.
    size: H, numbers that an expert reads, and makes.
    gate: number of the gate's group.
    expert: [E] groups of the experts.
    form: of the experts.
    sensors: that the gate looks at, beside what it is given; their number.
  """

  mixture: Mixture
  size: int
  gate: int
  expert: tuple[int, ...]
  form: Form
  sensors: int = 0


def _dense(x, w, b) -> Array:
  return layers.bias(x @ w, b)


FUSED = Form(_dense, jax.nn.relu, (1, 1))


def layer(spec: Spec, number: Numbering) -> Layer:
  """Describes the mixture behind a fusion."""
  return Layer(
    spec.mixture,
    spec.hidden,
    number.gate[0],
    number.expert,
    FUSED,
    len(spec.modalities),
  )


def init(key: Array, spec: Spec) -> dict[str, PyTree]:
  """Draws {'gate': {'w', 'seen', 'b'}, 'expert': E of {up, b, down, c}}.

  Args:
    key: of the model.
    spec: of the model.
  """
  gate_key, *keys = jax.random.split(
    jax.random.fold_in(key, _EXPERTS), spec.mixture.number + 1
  )
  width = spec.mixture.inside(spec.hidden)

  def expert(key):
    up, down = jax.random.split(key)
    return {
      'up': layers.dense_init(up, spec.hidden, width),
      'b': jnp.zeros(width),
      # Small, so that the first model is close to the one without experts.
      'down': 0.1 * layers.dense_init(down, width, spec.hidden),
      'c': jnp.zeros(spec.hidden),
    }

  return {
    'gate': {
      'w': layers.dense_init(gate_key, spec.hidden, spec.mixture.number),
      'seen': {m: jnp.zeros(spec.mixture.number) for m in spec.modalities},
      'b': jnp.zeros(spec.mixture.number),
    },
    'expert': [expert(k) for k in keys],
  }


def groups(gate: int, expert: tuple[int, ...]) -> dict[str, PyTree]:
  """Builds the prefix tree of their parameters, with group numbers."""
  return {'gate': gate, 'expert': list(expert)}


def there(gate: PyTree) -> Array:
  """Marks the experts that the gate can choose, [E] bool."""
  return gate['b'] > layers.NEVER / 2


def within(params: PyTree, held: Array) -> PyTree:
  """Gives parameters whose gate routes to some experts alone.

  Args:
    params: P.
    held: [E] bool.
  """
  gate = params['gate']
  bias = jnp.where(held, gate['b'], layers.NEVER)
  return {**params, 'gate': {**gate, 'b': bias}}


def probabilities(spec: Spec, gate: PyTree, fused: Array, run: Array) -> Array:
  """Computes p behind a fusion, [B, E]; 0 of experts that are not there.

  Args:
    spec: of the model.
    gate: its parameters.
    fused: [B, H] a.
    run: [M] bool, sensors that are there.
  """
  run = jnp.asarray(run)
  bias = gate['b'] + sum(
    jnp.where(run[i], gate['seen'][m], 0.0)
    for i, m in enumerate(spec.modalities)
  )
  return shares(gate, fused, bias)


def shares(gate: PyTree, x: Array, bias: Array) -> Array:
  """Computes softmax(x @ w + bias) of the experts that are there, [R, E]."""
  found = jax.nn.softmax(layers.bias(x @ gate['w'], bias), -1)
  return jnp.where(there(gate)[None], found, 0.0)


def weigh(probability: Array, top: int) -> Array:
  """Computes g: p of the `top` largest over their sum, [..., E].

  Of equals the first are taken. Where all are 0 so is g.

  Args:
    probability: [..., E].
    top: k.
  """
  one, other = probability[..., :, None], probability[..., None, :]
  at = jnp.arange(probability.shape[-1])
  before = jnp.broadcast_to(
    at[None, :] < at[:, None], jnp.broadcast_shapes(one.shape, other.shape)
  )
  first = (other == one) & before
  above = ((other > one) | first).sum(-1)
  kept = jnp.where(above < top, probability, 0.0)
  return kept / jnp.maximum(kept.sum(-1, keepdims=True), 1e-9)


def expert(form: Form, own: PyTree, x: Array) -> Array:
  """Computes E_e, [R, H] -> [R, H]."""
  inside = form.activation(form.dense(x, own['up'], own['b']))
  return form.dense(inside, own['down'], own['c'])


def added(
  own: Layer,
  params: PyTree,
  base: Array,
  x: Array,
  weight: Array,
  skip: Skip | None = None,
) -> Array:
  """Adds what the experts say of x, base + sum_e g_e E_e(x), [R, H].

  Args:
    own: the mixture.
    params: {'gate', 'expert'} of it.
    base: [R, H].
    x: [R, H].
    weight: [R, E] g.
    skip: what trains, of one client: what it lacks or does not train is left
      out. None: all experts see all samples, which is the same.
  """
  form, found, on = own.form, base, there(params['gate'])
  for e, mine in enumerate(params['expert']):
    share = weight[:, e : e + 1]
    if skip is None:
      found += share * expert(form, mine, x)
      continue
    trains = skip.train[own.expert[e]]
    found += jax.lax.switch(
      jnp.where(on[e], jnp.where(trains, 2, 1), 0),
      [
        lambda mine, x, share: jnp.zeros_like(x),
        lambda mine, x, share: (
          share * expert(form, jax.lax.stop_gradient(mine), x)
        ),
        lambda mine, x, share: share * expert(form, mine, x),
      ],
      mine,
      x,
      share,
    )
  return found


def fused(spec: Spec, params: PyTree, features, run: Array) -> Array:
  """Computes a, {m: [B, f]} -> [B, H]."""
  z = sum(h @ params['fusion'][m] for m, h in features.items())
  z = encoders.fuse_norm(spec, z, jnp.asarray(run))
  return jax.nn.relu(layers.bias(z, params['bias']))


def logits(
  spec: Spec,
  own: Layer,
  params: PyTree,
  features,
  run: Array,
  skip: Skip | None = None,
) -> tuple[Array, Array]:
  """Computes class scores behind a fusion, and what the gate says.

  Args:
    spec: of the model.
    own: its mixture.
    params: P.
    features: {m: [B, f]} of the modalities.
    run: [M] bool, modalities that are there.
    skip: as in `added`.

  Returns:
    [B, C] scores and [B, 1, E] probabilities.
  """
  a = fused(spec, params, features, run)
  p = probabilities(spec, params['gate'], a, run)
  y = added(own, params, a, a, weigh(p, spec.mixture.top), skip)
  scores = layers.bias(y @ params['head']['w'], params['head']['b'])
  return scores, p[:, None]


def counted(probability: Array, weight: Array) -> Array:
  """Marks the tokens that are there and count, [B, ..., n, 1] bool.

  Args:
    probability: [B, ..., n, E].
    weight: [B] or [B, ...], 0 for padding.
  """
  axes = (1,) * (probability.ndim - weight.ndim)
  return (weight > 0).reshape(weight.shape + axes) & (
    probability.sum(-1, keepdims=True) > 0
  )


def mean(values: Array, on: Array) -> Array:
  """Averages [B, ..., n, E] over the tokens `on`, [n, E]; 0 of none."""
  axes = tuple(range(values.ndim - 2))
  total = jnp.where(on, values, 0.0).sum(axes)
  return total / jnp.maximum(on.sum(axes), 1)


def balance(mixture: Mixture, probability: Array, weight: Array) -> Array:
  """Computes E sum_e f_e P_e, [], summed over mixtures.

  1 where all experts are used alike. f is the share of routed places that an
  expert gets, P its mean probability.

  Args:
    mixture: its sizes.
    probability: [B, ..., n, E].
    weight: [B] or [B, ...], 0 for padding.
  """
  on = counted(probability, weight)
  real = jnp.where(on, probability, 0.0)
  used = (weigh(real, mixture.top) > 0).astype(jnp.float32)
  often = used.sum(tuple(range(used.ndim - 2)))
  places = jnp.maximum(often.sum(-1, keepdims=True), 1e-9)
  share = jax.lax.stop_gradient(often / places)
  return mixture.number * (share * mean(real, on)).sum()


def described(
  own: Sequence[Layer],
  parts: Callable[[PyTree], list[PyTree]],
  with_parts: Callable[[PyTree, list[PyTree]], PyTree],
  **known,
) -> Experts:
  """Describes a model's mixtures for methods that choose among them.

  Args:
    own: [n], which are alike but for their groups.
    parts: P -> [n] of {'gate', 'expert', ...}.
    with_parts: (P, [n]) -> P with these in place of its own.
    **known: fields of `Experts` that are the model's.
  """
  first = own[0]
  mixture = first.mixture

  def weighed(probability, weight):
    if not mixture.balance:
      return jnp.zeros(())
    return mixture.balance * balance(mixture, probability, weight)

  def narrowed(params, held):
    among = held.reshape(len(own), mixture.number)
    every = zip(parts(params), among, strict=True)
    return with_parts(params, [within(part, h) for part, h in every])

  def outputs(params, x):
    every = (e for part in parts(params) for e in part['expert'])
    return jnp.stack([expert(first.form, e, x) for e in every])

  return Experts(
    blocks=tuple(g for one in own for g in one.expert),
    gates=tuple(one.gate for one in own),
    top=mixture.top,
    size=first.size,
    each=flops(first),
    weigh=lambda p: weigh(p, mixture.top),
    counted=counted,
    mean=mean,
    balance=weighed,
    within=narrowed,
    outputs=outputs,
    **known,
  )


def flops(own: Layer) -> float:
  """Counts the FLOPs of a sample, or token, in one expert, forward."""
  inner = own.mixture.inside(own.size)
  products = 2 * encoders.dense_flops(own.size, inner)
  return products + (1 + own.form.flops[0]) * inner + own.size


def gate_flops(own: Layer) -> float:
  """Counts the FLOPs of a sample, or token, in the gate, forward."""
  count = own.mixture.number
  # Bias, soft-max, and a comparison of every two.
  others = (own.sensors + 6) * count + 3 * count**2
  return encoders.dense_flops(own.size, count) + others


def add_work(own: Layer, work: WorkBuilder, below, active, share) -> None:
  """Adds what a mixture costs a sample, or a token.

  Args:
    own: the mixture.
    work: is added to.
    below: groups of all that comes before it.
    active: experts for a sample, traced or not; costs are linear in it and in
      `share`.
    share: of the samples that each expert on the device gets, likewise.
  """
  hidden, inner = own.size, own.mixture.inside(own.size)
  into = encoders.dense_flops(hidden, inner)
  gate = encoders.dense_flops(hidden, own.mixture.number)
  work.shared += gate_flops(own)
  work.shared += active * (flops(own) + 2 * hidden)
  work.wgrad[own.gate] += gate + own.mixture.number
  for group in own.expert:
    work.wgrad[group] += share * (2 * into + inner + hidden)
    # Through its weight and its last layer.
    passed = hidden + into + own.form.flops[1] * inner
    work.gradient_path(share * passed, {group, *below})
  # To the probabilities; through an expert's first layer and the gate.
  work.gradient_path(active * 3 * hidden, {own.gate, *below})
  work.gradient_path(active * (into + hidden) + gate + hidden, below)
