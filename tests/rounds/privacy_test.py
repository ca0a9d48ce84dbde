"""Settings and methods in which noise would not hide a device."""

import jax
import jax.numpy as jnp
import pytest

from relief_jax.aggregation.mean import masked_mean, with_sums
from relief_jax.algorithms.cohort_mean import cohort_mean
from relief_jax.compressors import Codec
from relief_jax.errors import InputError
from relief_jax.rounds import legality, privacy
from relief_jax.rounds.method import Method, Traits
from relief_jax.settings import Guard, Setting
from relief_jax.updates import clip, link
from tests.support import tiny
from tests.support.handmade import TASK

MEAN = masked_mean(TASK)
NOISE = Guard(clip=True, noise='server')


def check(fields=None, aggregate=MEAN, **more):
  setting = Setting(**{'guard': NOISE, **(fields or {})})
  method = Method(None, None, aggregate, None, **more)
  privacy.check(setting, method, link.make(setting), 'mine')


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'guard': Guard(noise='device')}, 'clip_norm=1'),
    ({'guard': NOISE._replace(drop=True)}, 'nonfinite=drop'),
    ({'guard': NOISE._replace(mean='median')}, 'mean=median'),
    ({'weight': 'samples'}, 'no bound'),
    ({'uplink_codec': Codec('int8')}, 'longer than the clip'),
    ({'late': 'lost'}, 'online.pace.wait'),
  ],
)
def test_a_setting_is_refused_for_a_reason(fields, says):
  check()
  check({'downlink_codec': Codec('int8')})  # a model is no secret
  with pytest.raises(InputError, match=says):
    check(fields)


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'traits': Traits(sums=True)}, 'sums of other numbers'),
    ({'traits': Traits(finds_weights=True)}, 'weights themselves'),
    ({'traits': Traits(submodels=True)}, 'parts of blocks'),
    ({'traits': Traits(personal=True)}, 'a model of its own'),
    ({'traits': Traits(lockstep=True)}, 'whole updates'),
    ({'traits': Traits(wire='sends one factor')}, 'it sends one factor'),
    ({'transforms': (clip.clip_update(),)}, 'before the clip'),
    ({'base': lambda server, frozen: frozen}, 'frozen base'),
    ({'aggregate': with_sums(MEAN, lambda update, device: ())}, 'plain sum'),
    ({'aggregate': MEAN._replace(plain=False)}, 'plain sum'),
  ],
)
def test_a_method_is_refused_for_a_reason(fields, says):
  with pytest.raises(InputError, match=says):
    check(**fields)


def test_a_bound_without_a_server_takes_no_noise():
  with pytest.raises(InputError, match='privacy.noise=off'):
    legality.alone(Setting(guard=Guard(noise='server')), 'centralized')


def shaped(method, backbone='cnn'):
  """Traces a round without compiling it."""
  task = tiny.task(backbone, modalities=('acc', 'gyro'), filters=(4,))
  population = tiny.population(task)
  made = tiny.setting(population, method, guard=NOISE)
  found, key = tiny.algorithm(method, task, made), jax.random.key(0)
  state = jax.eval_shape(lambda key: found.init(key, task.init(key)), key)
  jax.eval_shape(found.step, key, state, population, made.hparams)


def test_relief_is_found_out():
  with pytest.raises(InputError, match="'relief': its plan follows from what"):
    shaped('relief')


def measures(task, setting):
  """Keeps the spread of updates."""
  base = cohort_mean(task, setting)

  def server(state, mean, round):
    state, mine = base.server(state, mean, round)
    return state._replace(method_state=mean.variance), mine

  return base._replace(
    server=server, init=lambda params: jnp.zeros(task.num_blocks)
  )


@pytest.mark.slow
def test_a_server_that_keeps_spreads_is_found_out():
  with pytest.raises(InputError, match='its server follows from norms, spr'):
    shaped(measures)


def looks(task, setting):
  """Trains on devices by the mean of their windows."""
  base = cohort_mean(task, setting)

  def plan(server, round):
    found = base.plan(server, round)
    seen = round.population.bank.y[round.windows].mean(-1) > 0
    return found._replace(trained=found.trained & seen[:, None])

  return base._replace(plan=plan)


@pytest.mark.slow
def test_a_plan_that_follows_from_windows_is_found_out():
  with pytest.raises(InputError, match="its plan follows from devices' wind"):
    shaped(looks)


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fedavg', 'fedprox', 'cohort_mean'])
def test_a_plain_method_passes(method):
  shaped(method)


@pytest.mark.slow
def test_a_plain_mean_of_adapters_passes():
  shaped('fedit', 'lora')
