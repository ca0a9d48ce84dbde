"""Puts mixtures of experts in place of the MLPs of a transformer's last blocks.

Tokens are routed, each by itself (experts.py). A device is charged for k
experts of every token that is there, and for its routing as far as the last
gate. Costs are linear in what the experts on a device are asked for, so that
those of fewer experts are interpolated.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from relief_jax.errors import InputError
from relief_jax.models import experts, transformer_split
from relief_jax.models import transformer_forward as forward
from relief_jax.models import transformer_layers as parts
from relief_jax.models import transformer_work as count
from relief_jax.models.encoders import Spec
from relief_jax.models.transformer_forward import Cut
from relief_jax.task import Experts, Work
from relief_jax.types import Array

FORM = experts.Form(parts.product, parts.gelu, count.GELU)


def check(spec: Spec) -> None:
  """Refuses mixtures that cannot be.

  Raises:
    InputError: more of them than blocks, adapters beside them, or as
      `Mixture.check`.
  """
  mixture = spec.mixture
  mixture.check()
  if mixture.blocks > spec.blocks:
    raise InputError(
      f'config.model.experts.blocks={mixture.blocks} of {spec.blocks} blocks',
      'at most as many as there are',
      f'set --config.model.experts.blocks={spec.blocks}',
    )
  if spec.lora:
    raise InputError(
      f'config.model.experts.blocks={mixture.blocks} with config.model.lora='
      f'{",".join(spec.lora)}',
      'experts that train as they are: adapters of them are not there',
      "set --config.model.experts.blocks=0, or --config.model.lora=''",
    )


def layer(spec: Spec, gate: int, expert: tuple[int, ...]) -> experts.Layer:
  """Describes the mixture of a block, of these groups."""
  return experts.Layer(spec.mixture, spec.d, gate, expert, FORM)


def described(spec: Spec, cut: Cut, size: Array) -> Experts:
  """Describes all of them.

  Args:
    spec: of the model.
    cut: its groups.
    size: [G] numbers.
  """
  mixed = cut.mixed
  own = [cut.blocks[i].mixture for i in mixed]

  def with_parts(params, new):
    first = params['blocks'][: mixed[0]]
    return {**params, 'blocks': [*first, *new]}

  return experts.described(
    [layer for layer in own if layer],
    parts=lambda params: params['blocks'][mixed[0] :],
    with_parts=with_parts,
    fuse=functools.partial(forward.fuse_routed, spec, cut),
    route=functools.partial(forward.route, spec, cut),
    routing=transformer_split.work(
      spec, cut, len(size), size, mixed[-1] + 2, {mixed[-1]: (0.0, 0.0)}
    ),
    work=functools.partial(_work, *_slopes(spec, cut, size)),
  )


def _slopes(spec: Spec, cut: Cut, size: Array):
  """Counts the model without what experts compute, and what each load adds.

  Returns:
    k, Work of no load, and [n] pairs of what comes to it with an expert more
    for a token, and with all tokens more for each expert.
  """
  nothing = dict.fromkeys(cut.mixed, (0.0, 0.0))

  def work(loads):
    return transformer_split.work(spec, cut, len(size), size, None, loads)

  least = work(nothing)

  def more(i, load):
    return jax.tree.map(
      lambda a, b: a - b if a.dtype == jnp.float32 else b,
      work({**nothing, i: load}),
      least,
    )

  slopes = [(more(i, (1.0, 0.0)), more(i, (0.0, 1.0))) for i in cut.mixed]
  return spec.mixture.top, least, slopes


def _work(top: int, least: Work, slopes, held) -> Work:
  """Counts the model of devices with so many experts, `Experts.work`."""
  found = least
  for i, (one, other) in enumerate(slopes):
    active = jnp.minimum(held[i], top)
    share = active / jnp.maximum(held[i], 1)
    found = jax.tree.map(
      lambda v, a, b, active=active, share=share: (
        v + active * a + share * b if v.dtype == jnp.float32 else v
      ),
      found,
      one,
      other,
    )
  return dataclasses.replace(found, size=least.size)
