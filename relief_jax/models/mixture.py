"""Holds the sizes of a mixture of experts."""

from typing import NamedTuple

from relief_jax.errors import InputError


class Mixture(NamedTuple):
  """Describes a mixture of experts; static.

  Attributes:
    number: E, experts.
    top: k, those that a sample is routed to.
    width: units inside of an expert; 0: twice those that it reads.
    balance: weight of the balance loss; 0: there is none.
    blocks: of a transformer, its last ones whose MLP is a mixture; 0: none.
  """

  number: int = 8
  top: int = 2
  width: int = 0
  balance: float = 0.01
  blocks: int = 0

  @property
  def load(self) -> tuple[float, float]:
    """Experts for a sample, and the share of samples that each then gets."""
    return self.top, self.top / self.number

  def inside(self, size: int) -> int:
    """Gives the units inside of an expert that reads `size` numbers."""
    return self.width or 2 * size

  def check(self) -> None:
    """Refuses a mixture that cannot be.

    Raises:
      InputError: more experts for a sample than there are.
    """
    if self.top > self.number:
      raise InputError(
        f'{self.top} experts for a sample, of {self.number}',
        'at most as many as there are',
        f'set --config.model.experts.top={self.number}',
      )
