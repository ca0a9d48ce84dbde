"""Codes what crosses in a step of split training: activations and gradients.

    z' = what arrives of z_n = f(x_n; theta_n)          up
    L_n = loss(g(z'; phi), y_n)
    h' = what arrives of h_n = dL_n/dz'                 down
    theta_n <- opt(theta_n, (dz_n/dtheta_n)^T h')

The server's gradient is taken at what arrived, the device's at its own z_n: the
code itself has no derivative (straight through). Every sample of every sensor
is coded by itself, so that neither padding nor a sensor that others have moves
a number. Nothing is remembered of what did not arrive: samples differ from step
to step. **Ours**; the codes are those of the links (compressors/).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import compressors, tree
from relief_jax.clients.device import Row
from relief_jax.clients.records import Steps
from relief_jax.compressors import Codec, Compressor, base
from relief_jax.errors import InputError
from relief_jax.keys import name, option, real
from relief_jax.rounds import crossing
from relief_jax.rounds.split_steps import Place
from relief_jax.task import SplitPoints, Task
from relief_jax.types import Array, PyTree

# Purposes of a round's key of messages, beside those of weights.
UP, DOWN = 2, 3
_KEYS = ('activation_codec', 'gradient_codec')


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of a method whose activations may be coded."""

  activation_codec: str = option(
    name('none', 'codecs', 'of activations on their way up')
  )
  gradient_codec: str = option(
    name('none', 'codecs', 'of gradients at the split on their way down')
  )
  codec_share: float = option(
    real(
      0.05,
      0,
      1,
      'of both, top_k and random_k: of the numbers of a sample that are sent',
      above=True,
    )
  )


class Codes(NamedTuple):
  """Describes the codes of a split; static.

  Attributes:
    up: of activations.
    down: of gradients.
    shapes: of `SplitPoints`; () of a sensor whose inputs cross.
  """

  up: Compressor
  down: Compressor
  shapes: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]

  def sent(self, points: SplitPoints) -> tuple[np.ndarray, np.ndarray]:
    """Counts the bytes of a sample that cross up and down, [S, M] each."""
    found = []
    for code in (self.up, self.down):
      sent = np.array(points.sent)
      for s, shapes in enumerate(self.shapes):
        if any(shapes):
          sent[s] = [
            sum(base.wire_bytes(code, shape) for shape in own) for own in shapes
          ]
      found.append(sent)
    return found[0], found[1]

  def cross(self, place: Place, row: Row, step: Steps, s: int, z: PyTree):
    """Gives what arrives of activations; its gradient arrives coded, too.

    Args: as `arrived`.
    """

    @jax.custom_vjp
    def over(z, key, step):
      return self._coded(z, key, step, s, UP)

    def forward(z, key, step):
      return self._coded(z, key, step, s, UP), (key, step)

    def backward(kept, grads):
      return self._coded(grads, *kept, s, DOWN), None, None

    over.defvjp(forward, backward)
    return over(z, _key(place, row), step)

  def arrived(
    self, place: Place, row: Row, step: Steps, s: int, z: PyTree, way: int
  ) -> PyTree:
    """Codes and decodes what crosses, as it arrives.

    Args:
      place: of the round.
      row: of the device.
      step: its step.
      s: number of the point, static.
      z: of `SplitPoints.front`, or its gradient.
      way: `UP` or `DOWN`.
    """
    return self._coded(z, _key(place, row), step, s, way)

  def _coded(self, z, key, step: Steps, s: int, way: int) -> PyTree:
    code, shapes = (self.up if way == UP else self.down), self.shapes[s]
    if code.lossless or not any(shapes):
      return z
    size = len(step.weight)
    key = jax.random.fold_in(key, way)

    def each(x, m, number):
      keys = jax.random.fold_in(jax.random.fold_in(key, m), number)
      keys = jax.vmap(jax.random.fold_in, (None, 0))(keys, jnp.arange(size))
      there = step.run[m] & (step.weight > 0)
      found = jax.vmap(partial(base.arrived, code))(x, keys)
      # Of zeros something else may arrive.
      return tree.masked(tree.along(there, found), found)

    if isinstance(z, dict):  # the tokens of all sensors in a row
      x = z['x'].reshape(size, -1, z['x'].shape[-1])
      ends = np.cumsum([own[0][0] for own in shapes])[:-1]
      parts = [each(v, m, 0) for m, v in enumerate(jnp.split(x, ends, 1))]
      return {**z, 'x': jnp.concatenate(parts, 1).reshape(z['x'].shape)}
    found = []
    for m, own in enumerate(z):
      leaves, structure = jax.tree.flatten(own)
      coded = [each(x, m, number) for number, x in enumerate(leaves)]
      found.append(jax.tree.unflatten(structure, coded))
    return found


def _key(place: Place, row: Row) -> Array:
  """Gives the key of a device's messages in a step."""
  key = jax.random.fold_in(place.known.link_key, row.fleet.id)
  return jax.random.fold_in(key, place.step)


def asked(options: Any) -> dict[str, str]:
  """Lists the codecs that a method's options ask for, by their key."""
  names = {key: getattr(options, key, 'none') for key in _KEYS}
  return {key: name for key, name in names.items() if name != 'none'}


def of(
  task: Task, options: Any, points: SplitPoints, among, method: str
) -> Codes | None:
  """Builds the codes that a method's options ask for; None for none.

  Args:
    task: the model.
    options: of the method, with `Options` or without.
    points: of the model.
    among: places of those that a device may take.
    method: its name, for messages.

  Raises:
    InputError: nothing crosses that could be coded, shapes that nobody knows, a
      model whose loss has terms of its own, an unknown codec.
  """
  wanted = asked(options)
  if not wanted:
    return None
  key, value = next(iter(wanted.items()))
  told = f'config.{method}.{key}={value}'
  up, down = (
    compressors.make(Codec(wanted.get(key, 'none'), options.codec_share))
    for key in _KEYS
  )
  last = len(points.layers) - 1
  if not any(0 < points.layers[s] and s < last for s in among):
    raise InputError(
      f'{told} where no activations cross',
      'a split with layers on either side',
      f'set --config.{method}.layers=-2, or leave the codec out',
    )
  if not points.shapes:
    raise InputError(
      f'{told} with a model that does not say what crosses',
      'the shapes of its activations (`SplitPoints.shapes`), whose code has a '
      'length',
      'add them, or leave the codec out',
    )
  if task.penalty is not None:
    raise InputError(
      f'{told} with a model whose loss has a term of its own',
      'a loss of the scores alone, which the server computes',
      'set --config.model.fusion=concat, or leave the codec out',
    )
  shapes = (
    own if layers and s < last else ((),) * len(own)
    for s, (layers, own) in enumerate(
      zip(points.layers, points.shapes, strict=True)
    )
  )
  return Codes(up, down, tuple(shapes))


def loss(
  codes: Codes, points: SplitPoints, among: tuple[int, ...]
) -> Callable[[Place, Row], Callable[[PyTree, Steps], Array]]:
  """Builds the objective of devices whose activations and gradients are coded.

  Args:
    codes: of the split.
    points: of the model.
    among: places of those that a device may take, `Row.args` is the one that
      it takes.

  Returns:
    As `Lockstep.loss`.
  """

  def build(place, row):
    def objective(params, step):
      def at(s):
        split = crossing.Crossing(points, s)
        z = crossing.front(place, split, row, step)(params)
        z = codes.cross(place, row, step, s, z)
        return crossing.back(place, split, step)(params, z)

      if len(among) == 1:
        return at(among[0])
      which = jnp.searchsorted(jnp.array(among), row.args)
      return jax.lax.switch(which, [lambda s=s: at(s) for s in among])

    return objective

  return build
