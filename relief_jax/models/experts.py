"""Puts a mixture of experts between the fusion and the head of sensor models.

With a = relu(z + b) of the fused features, and s the sensors that are there,

    p = softmax(a @ w + sum_m s_m seen_m + b),   y = a + sum_e g_e E_e(a),
    E_e(a) = relu(a @ up_e + b_e) @ down_e + c_e

where g is p of the k largest, divided by their sum. No sample is dropped: an
expert has no capacity. Grade of the layer: published (top-k routing, the
balance loss E sum_e f_e P_e of Switch, https://arxiv.org/abs/2101.03961); its
place behind the fusion, the sum with a and the gate's look at the sensors are
**ours**. An expert that a device does not have is one whose bias of the gate is
`layers.NEVER`.

Trained one client at a time, an expert that is not there is not computed, and
one that does not train has no gradient of its weights. Else all experts see all
samples, which is exact; a device is charged for those that are active.
"""

import jax
import jax.numpy as jnp

from relief_jax.models import encoders, layers
from relief_jax.models.encoders import Numbering, Spec, WorkBuilder
from relief_jax.task import Skip
from relief_jax.types import Array, PyTree

# Of a model's key; exits take others.
_EXPERTS = 200


def width(spec: Spec) -> int:
  """Gives the units inside of an expert."""
  return spec.mixture.width or 2 * spec.hidden


def init(key: Array, spec: Spec) -> dict[str, PyTree]:
  """Draws {'gate': {'w', 'seen', 'b'}, 'expert': E of {up, b, down, c}}.

  Args:
    key: of the model.
    spec: of the model.
  """
  gate_key, *keys = jax.random.split(
    jax.random.fold_in(key, _EXPERTS), spec.mixture.number + 1
  )

  def expert(key):
    up, down = jax.random.split(key)
    return {
      'up': layers.dense_init(up, spec.hidden, width(spec)),
      'b': jnp.zeros(width(spec)),
      # Small, so that the first model is close to the one without experts.
      'down': 0.1 * layers.dense_init(down, width(spec), spec.hidden),
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


def groups(number: Numbering) -> dict[str, PyTree]:
  """Builds the prefix tree of their parameters, with group numbers."""
  return {'gate': number.gate[0], 'expert': list(number.expert)}


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
  """Computes p, [B, E]; 0 of experts that are not there.

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
  found = jax.nn.softmax(layers.bias(fused @ gate['w'], bias), -1)
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


def expert(own: PyTree, x: Array) -> Array:
  """Computes E_e, [B, H] -> [B, H]."""
  inside = jax.nn.relu(layers.bias(x @ own['up'], own['b']))
  return layers.bias(inside @ own['down'], own['c'])


def mixed(
  params: PyTree, fused: Array, weight: Array, number: Numbering, skip: Skip
) -> Array:
  """Computes y of one client; what it lacks or does not train is left out.

  Args:
    params: P.
    fused: [B, H] a.
    weight: [B, E] g.
    number: of the groups.
    skip: what trains.
  """
  found, on = fused, there(params['gate'])
  for e, group in enumerate(number.expert):
    own, share = params['expert'][e], weight[:, e : e + 1]
    choice = jnp.where(on[e], jnp.where(skip.train[group], 2, 1), 0)
    found += jax.lax.switch(
      choice,
      [
        lambda own, x, share: jnp.zeros_like(x),
        lambda own, x, share: share * expert(jax.lax.stop_gradient(own), x),
        lambda own, x, share: share * expert(own, x),
      ],
      own,
      fused,
      share,
    )
  return found


def everywhere(params: PyTree, fused: Array, weight: Array) -> Array:
  """Computes y with all experts on all samples, [B, H]; as `mixed`."""
  found = fused
  for e, own in enumerate(params['expert']):
    found += weight[:, e : e + 1] * expert(own, fused)
  return found


def fused(spec: Spec, params: PyTree, features, run: Array) -> Array:
  """Computes a, {m: [B, f]} -> [B, H]."""
  z = sum(h @ params['fusion'][m] for m, h in features.items())
  z = encoders.fuse_norm(spec, z, jnp.asarray(run))
  return jax.nn.relu(layers.bias(z, params['bias']))


def logits(
  spec: Spec,
  number: Numbering,
  params: PyTree,
  features,
  run: Array,
  skip: Skip | None = None,
) -> Array:
  """Computes class scores, {m: [B, f]} -> [B, C].

  Args:
    spec: of the model.
    number: of its groups.
    params: P.
    features: of the modalities.
    run: [M] bool, modalities that are there.
    skip: what trains, of one client; None: everything is computed.
  """
  a = fused(spec, params, features, run)
  weight = weigh(probabilities(spec, params['gate'], a, run), spec.mixture.top)
  y = (
    everywhere(params, a, weight)
    if skip is None
    else mixed(params, a, weight, number, skip)
  )
  return layers.bias(y @ params['head']['w'], params['head']['b'])


def balance(spec: Spec, probability: Array, weight: Array) -> Array:
  """Computes E sum_e f_e P_e, []; 1 where all experts are used alike.

  f is the share of routed places that an expert gets, P its mean probability.

  Args:
    spec: of the model.
    probability: [B, E].
    weight: [B], 0 for padding.
  """
  real = jnp.where(weight[:, None] > 0, probability, 0.0)
  used = (weigh(real, spec.mixture.top) > 0).astype(jnp.float32)
  places = jnp.maximum(used.sum(), 1e-9)
  share = jax.lax.stop_gradient(used.sum(0) / places)
  mean = real.sum(0) / jnp.maximum((weight > 0).sum(), 1)
  return spec.mixture.number * (share * mean).sum()


def flops(spec: Spec) -> float:
  """Counts the FLOPs of a sample in one expert, forward."""
  inner = width(spec)
  products = 2 * encoders.dense_flops(spec.hidden, inner)
  return products + 2 * inner + spec.hidden


def add_work(
  spec: Spec, number: Numbering, work: WorkBuilder, below, active, held
) -> None:
  """Adds what the mixture costs, with `active` experts for a sample.

  Args:
    spec: of the model.
    number: of its groups.
    work: is added to.
    below: groups of encoders, columns and the fusion's bias.
    active: experts for a sample, traced or not.
    held: experts on the device, among which samples are divided.
  """
  hidden, inner, count = spec.hidden, width(spec), spec.mixture.number
  into = encoders.dense_flops(hidden, inner)
  gate = encoders.dense_flops(hidden, count)
  # Bias, soft-max, and a comparison of every two.
  work.shared += gate + (len(spec.modalities) + 6) * count + 3 * count**2
  work.shared += active * (flops(spec) + 2 * hidden)
  work.wgrad[number.gate[0]] += gate + count
  each = (active / held) * (2 * into + inner + hidden)
  for group in number.expert:
    work.wgrad[group] += each
  every = {*number.gate, *number.expert, *below}
  # Through the weight to an expert's output, and through its last layer.
  work.gradient_path(active * 2 * hidden, every)
  work.gradient_path(active * (into + inner), {*number.expert, *below})
  # To the probabilities; through an expert's first layer and the gate.
  work.gradient_path(active * 2 * hidden, {*number.gate, *below})
  work.gradient_path(active * (into + hidden) + gate + hidden, below)
