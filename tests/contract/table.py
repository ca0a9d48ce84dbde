"""How each method is held to the contract: one row, and no name elsewhere.

What the library knows of a method, the tests ask it: its facts
(`rounds/facts.py`) and its traits (`rounds/method.py`). A row says the rest,
which is of tests alone. A method without a row is tried with the defaults.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from relief_jax import algorithms
from relief_jax.rounds.method import Traits
from relief_jax.rounds.records import Algorithm
from tests.support import tiny
from tests.twins import (
  elastic_twin,
  events_twin,
  exits_twin,
  experts_twin,
  fedmfs_twin,
  flism_twin,
  lockstep_twin,
  lora_twin,
  prototype_twin,
  split_twin,
  tfedavg_twin,
  twin,
)
from tests.twins.twin import Twin

# Those of `--method` among them, which conftest.py has found by now.
METHODS = tuple(algorithms.known())
# A row's deadline for a method that learns too little in eight rounds else.
UNLIMITED = {'deadline': float('inf')}


class Row(NamedTuple):
  """How a method is held to the contract.

  Attributes:
    twin: the method as a Python loop over clients, steps and groups; None of
      one with personal models or a round of another kind.
    neutral: options with which it is FedAvg where no device is short of
      anything, beside an infinite deadline; None: it never is.
    fills: what it is compared with its twin in, beside its default `fill`.
    often: tried with the frozen base and in every question with every change;
      the others' programs take long to compile, and are slow tests.
    frozen: options that a frozen base asks for; None: it refuses one, for
      another reason than its facts and traits say.
    learns: settings with which its loss falls in eight rounds.
    least: share of its first loss that the last ones are below.
    terms: its loss has more of them than cross-entropy.
    sent: (task, population, infos) -> [rounds, K] bytes up, of a method
      without a twin that sends something else than what is trained.
    turns: its server may change parameters that nobody trained.
    still: with the model that it needs it trains nothing of single sensors.
    rests: (population, infos) -> [rounds, K] bool, devices with windows that
      have nothing to do.
    tried: options as its twin has them, where these are not the default ones:
      what the twin does not choose has tests of its own.
    held: options with which what it plans does not follow from speeds and
      links.
    late: its loop is a slow test: it takes long to compile, or another method
      runs the same code.
    aside: single questions that are slow tests, beside those of `often` and
      `late`: 'loop', 'neutral', 'twin', 'types'.
  """

  twin: type[Twin] | None = None
  neutral: dict[str, Any] | None = {}
  fills: tuple[str, ...] = ()
  often: bool = False
  frozen: dict[str, Any] | None = {}
  learns: dict[str, Any] = {}
  least: float = 0.9
  terms: bool = False
  sent: Callable | None = None
  turns: bool = False
  still: bool = False
  rests: Callable | None = None
  tried: dict[str, Any] = {}
  held: dict[str, Any] = {}
  late: bool = False
  aside: tuple[str, ...] = ()
  waits: dict[str, Any] = {}


def raw_windows(task, population, infos):
  """Bytes of the windows of the sensors on board, once."""
  fleet = population.fleet
  numbers = [4 * population.bank.x[m][0].size for m in task.modalities]
  raw = (fleet.samples * (fleet.owned @ np.array(numbers)))[infos.client]
  return np.where(np.arange(len(raw))[:, None] == 0, raw, 0)


def second_stage(infos):
  """Of Harmony: devices in the rounds after two of three, [rounds, K]."""
  first = np.ceil(2 / 3 * tiny.HPARAMS['rounds'])
  return np.arange(len(infos.client))[:, None] >= np.full(
    infos.client.shape[1], first
  )


def sent_by_harmony(task, population, infos):
  """A shared part per sensor, then all but the encoders and a distance each."""
  owned = np.asarray(population.fleet.owned)[infos.client].sum(-1)
  size, trained = 4 * np.asarray(task.work.size), np.asarray(infos.trained)
  first = trained @ size + trained[..., -1] * (owned - 1) * size[-1]
  encoder = np.array([g.startswith('encoder') for g in task.blocks.name])
  later = trained @ (size * ~encoder) + trained.any(-1) * 4 * owned
  return np.where(second_stage(infos), later, first)


def single_in_second_stage(population, infos):
  """Devices of one sensor, which Harmony then has no classifier for."""
  owned = np.asarray(population.fleet.owned)[infos.client].sum(-1)
  return second_stage(infos) & (owned == 1)


def sent_by_fed_sb(task, population, infos):
  """Gradients of the base in the first round, then a small matrix; the head."""
  owned = np.asarray(population.fleet.owned)[infos.client]
  shapes = [v.shape for v in jax.tree.leaves(population.frozen['fusion'])]
  rank, working = task.ranks.rank, np.asarray(infos.trained).any(-1)
  head = np.asarray(task.work.size)[-1] - rank * shapes[0][1]
  dense = owned @ np.array([i * o for i, o in shapes])
  first = np.arange(len(owned))[:, None] == 0
  return working * 4 * (head + np.where(first, dense, rank**2))


def sent_by_hsplitlora(task, population, infos):
  """All that is trained; in every fifth round a number for each layer, too."""
  trained = np.asarray(infos.trained)
  turn = np.arange(len(trained))[:, None] % 5 == 0
  told = 4 * len(task.ranks.layers) * (turn & trained.any(-1))
  return trained @ (4 * np.asarray(task.work.size)) + told


_INPUT = ('input',)  # of publications that know no modalities

TABLE = {
  'fedavg': Row(twin.Twin, often=True),
  'centralized': Row(sent=raw_windows),
  'cohort_mean': Row(twin.CohortTwin, often=True, aside=('neutral',)),
  'fed_sb': Row(
    lora_twin.SmallTwin,
    None,
    sent=sent_by_fed_sb,
    turns=True,
    still=True,
    late=True,
  ),
  # Of a single layer nothing can be cut.
  'depthfl': Row(
    exits_twin.ExitTwin,
    {'exits': 'last'},
    fills=_INPUT,
    learns=UNLIMITED,
    aside=('loop', 'types'),
  ),
  'elastic_fl': Row(elastic_twin.ElasticTwin, late=True),
  'fedasync': Row(
    events_twin.MixedTwin,
    {'alpha': 1.0, 'rho': 0.0},
    waits={'buffer': 0},
    late=True,
  ),
  'fedat_style': Row(
    events_twin.TierTwin, waits={'tiers': 1}, turns=True, late=True
  ),
  'fedbuff': Row(events_twin.EventTwin, late=True),
  'feddrop': Row(twin.DropTwin, fills=_INPUT, late=True),
  'fedex': Row(lora_twin.ResidualTwin, None, late=True),
  'fedit': Row(lora_twin.AdapterTwin, often=True, aside=('neutral',)),
  'fedsvd': Row(lora_twin.TurnTwin, None, turns=True, still=True, late=True),
  'ffa_lora': Row(lora_twin.SecondTwin, None, still=True, late=True),
  'flexlora': Row(lora_twin.CutTwin, None, turns=True, late=True),
  'flora': Row(
    lora_twin.RestartTwin, None, often=True, aside=('loop', 'types')
  ),
  'fedalign_moe_style': Row(
    experts_twin.AlignedTwin, None, frozen=None, terms=True, late=True
  ),
  'fedel': Row(elastic_twin.WindowTwin, late=True, aside=('twin',)),
  'fedmfs_style': Row(fedmfs_twin.MeritTwin, late=True),
  'fedpmt': Row(twin.DepthTwin),
  'fedprox': Row(twin.ProxTwin, {'prox': 0.0}),
  # Units take turns.
  'fedrolex': Row(
    twin.RollTwin,
    {'masked': 'off'},
    fills=_INPUT,
    learns=UNLIMITED,
    late=True,
  ),
  # The head starts too small to be among the largest weights.
  'fiarse': Row(twin.MagnitudeTwin, fills=_INPUT, learns=UNLIMITED, late=True),
  'flism': Row(
    flism_twin.FlismTwin,
    {'contrast': False, 'entropy': False, 'kd': 0.0},
    frozen={'contrast': False},
    terms=True,
    late=True,
  ),
  'harmony': Row(
    frozen=None, sent=sent_by_harmony, rests=single_in_second_stage
  ),
  'hfedmoe': Row(
    experts_twin.ImportanceTwin,
    {'threshold': 0.0, 'gate': 'equal'},
    frozen=None,
    late=True,
  ),
  'hetlora': Row(lora_twin.PaddedTwin, {'weights': 'equal', 'prune': 0.0}),
  # Of a single layer with rank 2 a device has all of it or nothing.
  'hsplitlora': Row(
    lora_twin.LayerTwin,
    None,
    learns=UNLIMITED,
    sent=sent_by_hsplitlora,
    late=True,
  ),
  'rolora': Row(lora_twin.AlternatingTwin, None, still=True, aside=('loop',)),
  'heterofl': Row(
    twin.SliceTwin,
    {'masked': 'off'},
    fills=_INPUT,
    aside=('loop', 'types'),
  ),
  'local_only': Row(often=True),
  'psl': Row(frozen=None),
  'gapsl_style': Row(frozen=None),
  'flexp_sfl': Row(frozen=None),
  'ho_sfl': Row(
    lockstep_twin.ProbedTwin,
    None,
    frozen=None,
    # Five directions in a space of many.
    least=0.97,
    # A difference over a kink of a ReLU is not its twin's derivative.
    tried={'probe': 'jvp'},
    late=True,
  ),
  'hasfl_style': Row(
    lockstep_twin.PooledTwin,
    {'rule': 'fixed', 'layers': -1, 'batches': 'fixed'},
    frozen=None,
    tried={'rule': 'fixed', 'layers': -2, 'batches': 'fixed'},
    late=True,
  ),
  'pmm': Row(prototype_twin.PrototypeTwin, {'substitute': False}, late=True),
  'qqr_style': Row(
    prototype_twin.QualityTwin,
    {'confidence': False, 'align': 0.0},
    late=True,
  ),
  'relief': Row(twin.ReliefTwin, often=True),
  'relief_async': Row(events_twin.CohortEvents, late=True),
  # A frozen base has no layers to split behind.
  'splitfed': Row(
    split_twin.SplitTwin,
    {'rule': 'fixed', 'layers': -1},
    frozen=None,
    held={'rule': 'deepest'},
    late=True,
  ),
  'splitfed_v2': Row(
    lockstep_twin.InTurnTwin,
    {'rule': 'fixed', 'layers': -1},
    frozen=None,
    aside=('loop',),
  ),
  # Two bits a weight learn more slowly.
  'tfedavg': Row(
    tfedavg_twin.TernaryTwin, {'exempt': 'all'}, least=0.95, aside=('loop',)
  ),
}


def row(method: str) -> Row:
  """Gives a method's row, the defaults where it has none."""
  return TABLE.get(method, Row())


def slow(case: bool):
  """Marks of a case: slow or none."""
  return pytest.mark.slow if case else ()


def traits(method: str, task, setting) -> Traits | None:
  """Asks a method for its traits; None of a round of another kind."""
  found = algorithms.find(method)(task, setting.static)
  return None if isinstance(found, Algorithm) else found.traits
