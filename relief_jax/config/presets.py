"""What configs share: variants, joined by commas after the config's name.

    relief:smoke        two rounds of a small world, in seconds
    relief:best,lora    several at once, applied from left to right

`paper` has every option beyond the paper off, which is also the default.
`best` turns on modality dropout (0.3) and the fusion norm. Shrinkage towards
the global mean stays off there: in an independent study on DSADS it did not
help, while dropout was the one clear gain. It remains an option,
`--config.relief.shrinkage=True`.
"""

from collections.abc import Callable

import ml_collections

from relief_jax import config as config_lib
from relief_jax.errors import unknown

# The same for all methods of a backbone: with LoRA and the fusion norm several
# diverge at 0.05; at 0.02 all but one run of `local_only` end well.
RATES = {'cnn': 0.05, 'lora': 0.02}


def smoke(c: ml_collections.ConfigDict) -> None:
  """Shrinks to two rounds of eight clients on synthetic data, in seconds."""
  c.dataset = 'synthetic'
  c.clients, c.rounds, c.rounds_per_call, c.eval_every = 8, 2, 1, 1
  c.local_steps, c.batch = 2, 8
  c.synthetic.subjects, c.synthetic.windows_per_class = 4, 4
  c.synthetic.classes = 4
  c.data.width = c.data.stride = 32
  c.data.test_subjects = (4,)
  c.model.filters, c.model.hidden, c.model.rank = (4, 8), 16, 2
  c.model.base_steps = 4
  c.model.transformer.preset = 'tiny'


def paper(c: ml_collections.ConfigDict) -> None:
  """Switches off the options that go beyond the paper."""
  c.modality_dropout, c.fusion_norm, c.relief.shrinkage = 0.0, False, False
  c.relief.max_stale, c.deadline_end = 0, ''


def best(c: ml_collections.ConfigDict) -> None:
  """Switches on the options beyond the paper that earned their place."""
  paper(c)
  c.modality_dropout, c.fusion_norm = 0.3, True


def lora(c: ml_collections.ConfigDict) -> None:
  """Freezes the base and trains adapters instead of all parameters.

  At the default rate of 0.05 single-sensor devices diverge on DSADS as soon as
  the fusion norm multiplies their features by M.
  """
  c.backbone = 'lora'
  c.hparams.client_lr = 0.02


def tight(c: ml_collections.ConfigDict) -> None:
  """Sets the smallest deadline that lets every device take part."""
  c.deadline = 'tight'


def full(c: ml_collections.ConfigDict) -> None:
  """Sets the smallest deadline that lets every device train all it owns."""
  c.deadline = 'full'


VARIANTS = {
  'smoke': smoke,
  'paper': paper,
  'best': best,
  'lora': lora,
  'tight': tight,
  'full': full,
}


def apply(c: ml_collections.ConfigDict, arg: str | None, **own) -> None:
  """Applies the variants named in `arg`, joined by commas.

  Args:
    c: changed in place.
    arg: what followed the colon on the command line.
    **own: variants of one config, name -> function of the config.

  Raises:
    InputError: an unknown variant.
  """
  known = {**VARIANTS, **own}
  for name in (arg or '').split(','):
    if name and name not in known:
      raise unknown('variant', name, known)
    if name:
      known[name](c)


def method(name: str, arg: str | None, **own) -> ml_collections.ConfigDict:
  """Builds a method's default config, yours too, with its variants applied.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default(name)
  apply(c, arg, **own)
  return c


def getter(
  name: str, **own: Callable[[ml_collections.ConfigDict], None]
) -> Callable[..., ml_collections.ConfigDict]:
  """Builds the `get_config` of a method's config file.

  Args:
    name: of the method.
    **own: variants of it, name -> function of the config.
  """

  def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    return method(name, arg, **own)

  return get_config


def adapters(c: ml_collections.ConfigDict) -> None:
  """Gives the transformer adapters of its embeddings and its attention."""
  c.backbone, c.model.lora = 'transformer', ('embed', 'q', 'v')


def adapted(
  name: str, **own: Callable[[ml_collections.ConfigDict], None]
) -> Callable[..., ml_collections.ConfigDict]:
  """Builds the `get_config` of a method of adapters: the backbone `lora`.

  Args:
    name: of the method.
    **own: variants of it beside `transformer`, name -> function of the config.
  """
  return _started(name, lora, transformer=adapters, **own)


def experts(c: ml_collections.ConfigDict) -> None:
  """Puts a mixture of experts behind the fusion."""
  c.model.fusion = 'experts'


def blocks(c: ml_collections.ConfigDict) -> None:
  """Takes the transformer, the MLP of whose last block is such a mixture."""
  c.backbone, c.model.fusion, c.model.experts.blocks = (
    'transformer',
    'concat',
    1,
  )


def mixed(
  name: str, **own: Callable[[ml_collections.ConfigDict], None]
) -> Callable[..., ml_collections.ConfigDict]:
  """Builds the `get_config` of a method of experts: the fusion has them.

  Args:
    name: of the method.
    **own: variants of it beside `transformer`, name -> function of the config.
  """
  return _started(name, experts, transformer=blocks, **own)


def _started(
  name: str, first: Callable[[ml_collections.ConfigDict], None], **own
) -> Callable[..., ml_collections.ConfigDict]:
  """Builds a `get_config` that changes a default config before its variants."""

  def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    c = config_lib.default(name)
    first(c)
    apply(c, arg, **own)
    return c

  return get_config


def dsads() -> ml_collections.ConfigDict:
  """Builds the larger comparisons' base: 24 devices of DSADS for 60 rounds."""
  c = config_lib.default()
  c.dataset, c.clients, c.rounds = 'dsads', 24, 60
  c.rounds_per_call = c.eval_every = 5
  c.target_f1 = 0.5  # of the fleet, on persons it has never seen
  c.devices = 1  # of each worker process
  return c
