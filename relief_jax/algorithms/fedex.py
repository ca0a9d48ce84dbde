"""FedEx-LoRA: the residual goes into the base (arXiv 2410.09432).

Factors are averaged as by FedIT and go on as the starting point; the base takes
what their product lacks, W <- W + s (mean of a_n b_n - mean a mean b). The
model is then exact, and nothing starts again. *Bytes*: r (i + o) up; down as
much and the residual, of every layer the factors of all devices or the dense
i o, whichever is less (`merge_dense`). Who missed rounds is sent all residuals
(**ours**). Grade: published code (https://github.com/CERT-Lab/fedex-lora;
https://arxiv.org/abs/2410.09432). Departures: the residual is scaled by
alpha / r once, as in training; a public port leaves the scale out.
"""

from relief_jax.aggregation import lora
from relief_jax.algorithms.parts.adapters import (
  Family,
  Kind,
  Merging,
  Options,
)
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


def residual(family: Family):
  """Builds the merge: what the product of the means lacks into the base."""

  def merge(now: Merging):
    product = lora.pieces(family.ranks, now.params)
    return now.params, {k: v - product[k] for k, v in now.goal.items()}

  return merge


@Facts(options=Options, adapters=True)
def fedex(task: Task, setting: Setting) -> Method:
  """Builds FedEx-LoRA."""
  kind = Kind(merge=residual, merges=True)
  return Family(task, setting, 'fedex', kind).method()
