"""Fuses modalities by how far each can be trusted, window by window.

In the manner of the abstract of DUAL-Health
(https://arxiv.org/abs/2508.09085: uncertainty from the noise of the inputs and
from sudden change, calibrated weights, alignment in a common space); not the
authors' algorithm, which is centralised. Grade: reconstruction. All formulas
are **ours**. With p_m = h_m W_m of a window, its modality's place among H units
that all modalities share,

    noise  = log(1 + mean of (x[t-1] - 2 x[t] + x[t+1])^2 / 6)
    change = log(1 + mean of (s - EMA)^2),  s: mean and deviation of a channel
    log u_m = c_m + softplus(a_m) noise_m + softplus(b_m) change_m
    w_m ~ exp(-log u_m / temperature), over those that are there;  z = sum w p

u_m is the squared distance, a unit, at which p_m is expected from the
prototype of the window's class, so that the weights at temperature 1 are those
of independent estimates with such variances. It is fitted to the distance d
that there is, by d / u + log u, which is least at u = d on average: that is the
calibration. Nothing else trains a, b and c, and it trains nothing else; a and b
enter as positive numbers, so noise and change can only lower a weight. The
prototypes, parameters [C, H] of the shared block, are drawn to the p_m of their
class and these to them, with the weight `align`.

The noise of a window is that of its second differences, which white noise of
deviation s makes s^2. The moving average is of what the device's sensor read in
the windows before, in the order of time, `past` of them, the oldest standing
for all that came before it. It is of the inputs and not of features, so it does
not depend on the model: whatever the order of a batch, a window meets the
average that its device really had when it came. Nothing is kept between rounds.
It has the faults of the device's own sensors, and is 0 for a first window.

A window that a sensor did not deliver, or in which it did not move at all (one
that was filled in), is not there: weight 0, no gradient. Where none is, z = 0.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.models import attention
from relief_jax.types import Array, PyTree

# What a window brings beside its features: it is there, noise, change.
READINGS = 3
_THERE, _NOISE, _CHANGE = range(-READINGS, 0)
# softplus of it is 0.5.
_HALF = -0.4327521
# |log u| stays below it, so that no distance can blow up the fit.
_MOST = 4.0
# A class's key of a model; experts and exits take others.
_PROTOTYPES = 300


class Dual(NamedTuple):
  """Describes the fusion; static.

  Attributes:
    past: windows that the moving average looks back; 0: no change is seen.
    newest: weight of the newest window in it.
    temperature: of the weights.
    align: weight of the distance to prototypes in the loss.
  """

  past: int = 3
  newest: float = 0.5
  temperature: float = 1.0
  align: float = 0.05


def init(key: Array, modalities: Sequence[str], classes: int, hidden: int):
  """Draws {'trust': {m: [a, b, c]}, 'prototype': [C, H]}.

  Args:
    key: of the model.
    modalities: names.
    classes: C.
    hidden: H.
  """
  own = jax.random.fold_in(key, _PROTOTYPES)
  return {
    'trust': {m: jnp.array([_HALF, _HALF, 0.0]) for m in modalities},
    'prototype': 0.1 * jax.random.normal(own, (classes, hidden)),
  }


def readings(dual: Dual, x: Array, width: int) -> Array:
  """Computes what the inputs alone tell, [B, 3]: there, noise, change.

  Args:
    dual: of the fusion.
    x: [B, n * width, channels], z-scored, the window behind those before it;
      with n = 1 there is no change.
    width: samples in a window.
  """
  batch, length, channels = x.shape
  every = x.reshape(batch, length // width, width, channels)
  mean, deviation = every.mean(2), jnp.sqrt(every.var(2) + 1e-12)
  summary = jnp.concatenate([mean, deviation], -1)
  ema = summary[:, 0]
  for i in range(1, summary.shape[1] - 1):
    ema += dual.newest * (summary[:, i] - ema)
  change = jnp.square(summary[:, -1] - ema).mean(-1)
  newest = every[:, -1]
  bend = newest[:, 2:] - 2 * newest[:, 1:-1] + newest[:, :-2]
  noise = jnp.square(bend).mean((1, 2)) / 6
  # A flat line is no reading; of a window that is not there nothing is told.
  moves = newest.max(1) > newest.min(1)
  there = moves.any(-1).astype(x.dtype)
  told = jnp.log1p(jnp.stack([noise, change], -1)) * there[:, None]
  return jnp.concatenate([there[:, None], told], -1)


# FLOPs a window of the gradient of a, b and c, from log u on.
FIT = 12.0


def flops(width: int, channels: int) -> float:
  """Counts the FLOPs of `readings` of one window, and of its weight.

  Args:
    width: samples.
    channels: of the modality.
  """
  # Mean 1, deviation 3, largest and least 2, bend 4 and its square 2.
  return 12.0 * width * channels + 14.0 * channels + 20.0


def log_variance(trust: Array, features: Array) -> Array:
  """Computes log u, [B].

  Args:
    trust: [3] a, b, c of the modality.
    features: [B, d_m + 3], the last of `readings`.
  """
  a, b, c = trust
  noise, change = features[:, _NOISE], features[:, _CHANGE]
  found = c + jax.nn.softplus(a) * noise + jax.nn.softplus(b) * change
  return _MOST * jnp.tanh(found / _MOST)


def there(features: Array) -> Array:
  """Marks the windows that a sensor delivered, [B] bool."""
  return features[:, _THERE] > 0.5


def project(column: Array, features: Array) -> Array:
  """Computes p, [B, d_m + 3] -> [B, H]."""
  return features[:, :-READINGS] @ column


def weights(
  dual: Dual,
  trust: Mapping[str, Array],
  features: Mapping[str, Array],
  run: Mapping[str, Array],
) -> Array:
  """Computes w of the modalities given, [m, B].

  They add up to 1 where one of them is there, else all are 0.

  Args:
    dual: of the fusion.
    trust: {m: [3]}.
    features: {m: [B, d_m + 3]}.
    run: {m: [] bool}.
  """
  score = jnp.stack(
    [-log_variance(trust[m], h) / dual.temperature for m, h in features.items()]
  )
  here = jnp.stack([run[m] & there(h) for m, h in features.items()])
  return attention.shares(jax.lax.stop_gradient(score), here)


def pool(dual: Dual, params: PyTree, features, run) -> Array:
  """Computes z, [B, H].

  Args:
    dual: of the fusion.
    params: with 'fusion' {m: W_m} and 'trust'.
    features: {m: [B, d_m + 3]}.
    run: {m: [] bool}.
  """
  found = weights(dual, params['trust'], features, run)
  return sum(
    w[:, None] * project(params['fusion'][m], h)
    for w, (m, h) in zip(found, features.items(), strict=True)
  )


def penalty(dual: Dual, params: PyTree, features, run, weight, y) -> Array:
  """Computes the terms of the loss that calibrate and align, [].

  Every modality's is a mean over the windows that it is there in.

  Args:
    dual: of the fusion.
    params: with 'fusion', 'trust' and 'prototype'.
    features: {m: [B, d_m + 3]}.
    run: {m: [] bool}.
    weight: [B], 0 for padding.
    y: [B] int32 classes.
  """
  prototype, total = params['prototype'][y], jnp.float32(0.0)
  for m, h in features.items():
    real = run[m] & there(h) & (weight > 0)
    apart = jnp.square(project(params['fusion'][m], h) - prototype).mean(-1)
    log_u = log_variance(params['trust'][m], h)
    fixed = jax.lax.stop_gradient(apart)
    fit = 0.5 * (fixed * jnp.exp(-log_u) + log_u)
    each = jnp.where(real, dual.align * apart + fit, 0.0)
    total += each.sum() / jnp.maximum(real.sum(), 1)
  return total
