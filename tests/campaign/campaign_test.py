"""Sweeps: which points, what is run again, what shares a program."""

import errno
import heapq
import io
import os
import signal

import pytest
import rich.console

from experiments.configs import relief
from relief_jax.campaign import (
  bundle,
  campaign,
  estimate,
  execution,
  overview,
  points,
  pool,
  worker,
)
from relief_jax.engine import machine
from relief_jax.errors import InputError, StorageError
from relief_jax.report import printed
from relief_jax.storage import job_spec, locks, records, runner
from tests.campaign.compare_test import inline  # noqa: F401
from tests.support import tiny


def config():
  found = relief.get_config('smoke')
  found.rounds, found.eval_every, found.rounds_per_call = 10, 5, 5
  return found


def jobs(folder, **texts):
  names = {k.replace('__', '.'): v for k, v in texts.items()}
  found = points.expand([], points.swept(config(), names))
  return campaign.of_sweep(config(), found, folder).jobs


def run(folder, part=(1, 1), **texts):
  made = campaign.Campaign(jobs(folder, **texts), config(), 'client_lr=0.03')
  return execution.run(made, folder, 1, part)


@pytest.mark.parametrize(
  ('text', 'like', 'values'),
  [
    ('.03,1', 0.1, [0.03, 1.0]),
    ('0:5:2', 0, [0, 2, 4]),
    ('1e2', 0, [100]),
    ('True,False', True, [True, False]),
    ('relief,fedavg', '', ['relief', 'fedavg']),
    ('tight,1.75*tight', '', ['tight', '1.75*tight']),
    ('(7,8),(1,)', (1, 2), [(7, 8), (1,)]),
  ],
)
def test_values_of_a_flag(text, like, values):
  assert points.parse('key', text, like) == values


@pytest.mark.parametrize(
  ('key', 'text', 'message'),
  [
    ('seed', 'a', "with 'a'"),
    ('seed', '5:0', '5:0'),
    ('sed', '1', "unknown config key 'sed'"),
    ('method', 'log(1,2)', 'two numbers'),
    ('hparams.ema', 'log(0,1)', 'two numbers'),
  ],
)
def test_bad_flags_are_refused(key, text, message):
  with pytest.raises(InputError, match=message):
    points.swept(config(), {key: text})


@pytest.mark.parametrize(
  ('point', 'message'),
  [
    ({'method': 'relef'}, 'relef'),
    ({'batch': 0}, 'config.batch is 0'),
    ({'rounds': 'many'}, 'config.rounds'),
  ],
)
def test_bad_points_are_refused_before_any_runs(tmp_path, point, message):
  with pytest.raises(InputError, match=message):
    campaign.of_sweep(config(), [point], tmp_path)


def test_draws_stay_when_there_are_more():
  flags = {
    'hparams.client_lr': points.Draw('log', 1e-3, 1e-1),
    'local_steps': points.Draw('int', 1, 3),
    'seed': [0, 1],
  }
  few, many = (points.expand([], flags, n, seed=3) for n in (20, 40))
  assert few == many[:40] and len(many) == 80
  rates = [p['hparams.client_lr'] for p in many[::2]]
  assert min(rates) >= 1e-3 and max(rates) <= 1e-1
  assert 10 <= sum(rate < 1e-2 for rate in rates) <= 30  # log, not even
  assert {p['local_steps'] for p in many} == {1, 2, 3}
  assert points.expand([], flags, 20, seed=4) != few
  with pytest.raises(InputError, match='--trials=0'):
    points.expand([], flags)
  with pytest.raises(InputError, match='--trials=2'):
    points.expand([], {'seed': [0]}, 2)


def test_a_configs_own_points_are_crossed_with_the_flags():
  def own(add):
    add({'method': 'relief', 'hparams': {'client_lr': 0.1}})
    add({'method': 'fedavg'})

  found = points.expand(points.collect(own), {'seed': [0, 1]})
  assert len(found) == 4
  assert found[1] == {
    'method': 'relief',
    'hparams.client_lr': 0.1,
    'seed': 1,
  }


def test_points_are_runs(tmp_path):
  found = jobs(
    tmp_path, hparams__client_lr='.03,.1', seed='0:2', method='relief,fedavg'
  )
  assert len(found) == 8
  assert [(j.label, j.seed) for j in found][:3] == [
    ('client_lr=0.03/relief', 0),
    ('client_lr=0.03/fedavg', 0),
    ('client_lr=0.03/relief', 1),
  ]
  assert found[1].config['method'] == 'fedavg'
  assert found[2].config['seed'] == 1
  assert found[2].config['devices'] == 1
  assert found[2].workdir == str(tmp_path / found[2].label / 'seed_1')
  # Rates and seeds share a program, methods do not.
  names = [job_spec.structure(job.config) for job in found]
  assert len(set(names)) == 2
  bundles = pool.by_structure(found)
  methods = [[job.config['method'] for job in some] for some in bundles]
  assert methods == [['relief'] * 4, ['fedavg'] * 4]
  for some in bundles:  # worlds are kept together
    assert [job.seed for job in some] == [0, 0, 1, 1]


def test_the_manifest_tells_how_each_stands(inline, tmp_path, capsys):  # noqa: F811
  swept = {'hparams__client_lr': '.03,1e3', 'seed': '0:2'}
  assert run(tmp_path, **swept) == 1
  manifest = records.read_json(tmp_path / 'manifest.json')
  rows = {p['folder']: p for p in manifest['points']}
  assert rows['client_lr=0.03/seed_1']['status'] == 'complete'
  assert rows['client_lr=0.03/seed_1']['values'] == {
    'hparams.client_lr': 0.03,
    'seed': 1,
  }
  assert 'head' in rows['client_lr=1000.0/seed_0']['reason']
  out = capsys.readouterr().out
  assert 'failed: client_lr=1000.0 seed 0' in out
  assert '2 failed' in out and 'runs/min' in out
  # Neither the finished nor the diverged ones are run again; more seeds are.
  inline.clear()
  assert run(tmp_path, **swept) == 1
  assert not inline
  assert run(tmp_path, hparams__client_lr='.03', seed='0:3') == 0
  assert inline == [('client_lr=0.03', 2)]


def test_shards_make_the_whole(inline, tmp_path):  # noqa: F811
  swept = {'hparams__client_lr': '.03,.1', 'seed': '0:2'}
  for number in (1, 2, 3):
    assert run(tmp_path / 'parts', (number, 3), **swept) == 0
  assert len(inline) == 4
  assert run(tmp_path / 'whole', **swept) == 0
  names = ('table.csv', 'table.md')
  parts, whole = (
    [(tmp_path / kind / name).read_bytes() for name in names]
    for kind in ('parts', 'whole')
  )
  assert parts == whole
  found = [
    p['folder']
    for i in (1, 2, 3)
    for p in records.read_json(tmp_path / f'parts/manifest-{i}of3.json')[
      'points'
    ]
  ]
  assert len(found) == len(set(found)) == 4


def small(seed, lr, **keys):
  found = tiny.config(
    backbone='lora',
    layout='one',
    devices=1,
    deadline='1.5*tight',
    seed=seed,
    **{'model.base': 'random', 'synthetic.modalities': 2},
    **keys,
  )
  found.hparams.client_lr = lr
  return found


@pytest.mark.slow
def test_one_program_for_several_directories(tmp_path):
  """Seeds with worlds of their own; one is stopped half-way and goes on."""
  configs = [small(0, 0.1), small(1, 0.1), small(0, 0.2)]
  ends = {}

  def together(configs, folder):
    members = [
      runner.Member(c, tmp_path / folder / str(i))
      for i, c in enumerate(configs)
    ]
    runner.run_together(
      members, runner.Worlds(), lambda i, result: ends.update({i: result})
    )

  together(configs, 'a')
  assert ends == {0: 'complete', 1: 'complete', 2: 'complete'}
  summaries = [
    records.read_json(tmp_path / 'a' / str(i) / 'summary.json')
    for i in range(3)
  ]
  assert [s['compiles'] for s in summaries] == [1, 0, 0]
  for i, one in enumerate(configs):
    runner.run(one, tmp_path / 'alone' / str(i))
    found, alone = (
      records.read_metrics(tmp_path / kind / str(i) / 'metrics.jsonl')
      for kind in ('a', 'alone')
    )
    assert len(found) == len(alone)
    for mine, other in zip(found, alone, strict=True):
      for key in ('f1', 'sim_seconds', 'joules', 'up_bytes'):
        assert mine[key] == pytest.approx(other[key], rel=1e-5)
  # As if the first had been killed before its end: the others are not run.
  os.remove(tmp_path / 'a' / '0' / 'summary.json')
  before = (tmp_path / 'a' / '0' / 'metrics.jsonl').read_bytes()
  others = (tmp_path / 'a' / '1' / 'metrics.jsonl').stat().st_mtime_ns
  together(configs, 'a')
  assert (tmp_path / 'a' / '0' / 'metrics.jsonl').read_bytes() == before
  assert (tmp_path / 'a' / '1' / 'metrics.jsonl').stat().st_mtime_ns == others
  assert ends == {0: 'complete', 1: 'complete', 2: 'complete'}


def test_what_devices_did_is_kept(tmp_path):
  one = small(0, 0.1)
  runner.run(one, tmp_path / 'a')
  rows = records.read_metrics(tmp_path / 'a' / 'devices.jsonl')
  metrics = records.read_metrics(tmp_path / 'a' / 'metrics.jsonl')
  fleet = records.read_json(tmp_path / 'a' / 'summary.json')['fleet']
  assert [r['round'] for r in rows] == [m['round'] for m in metrics]
  assert rows[0]['last'] is None
  assert len(fleet['client']) == one.clients == len(rows[-1]['f1'])
  window = one.eval_every
  for name, share in metrics[-1]['trained_share'].items():
    trained = sum(rows[-1]['trained'][name])
    assert trained == pytest.approx(share * window * one.clients)
  last = rows[-1]['last']
  spent = [
    sum(s)
    for s in zip(
      *(last[k] for k in ('download', 'compute', 'upload')), strict=True
    )
  ]
  per_round = (metrics[-1]['sim_seconds'] - metrics[-2]['sim_seconds']) / window
  assert max(spent) == pytest.approx(per_round, rel=1e-5)
  assert sum(rows[-1]['f1']) / len(rows[-1]['f1']) == pytest.approx(
    metrics[-1]['f1']
  )


def test_a_worker_per_gpu(monkeypatch):
  assert machine.accelerators() == []  # the tests ask for the CPU
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setattr(machine, '_plugins', lambda: True)
  monkeypatch.setattr(machine, '_ask', lambda *_: ('gpu', 2))
  assert machine.accelerators() == ['0', '1']
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5')
  assert pool.default_workers() == 2
  found = [pool.environment(3, 'cache', i) for i in range(3)]
  assert [env['CUDA_VISIBLE_DEVICES'] for env in found] == ['2', '5', '2']
  assert found[0]['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'
  two = pool.environment(2, 'cache', 1)
  assert 'XLA_PYTHON_CLIENT_PREALLOCATE' not in two


@pytest.mark.parametrize('shown', ['', '-1', '0'])
def test_what_jax_cannot_use_is_no_gpu(monkeypatch, shown):
  """A hidden card stays hidden from workers; one of a CPU's JAX is none."""
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', shown)
  monkeypatch.setattr(machine, '_plugins', lambda: shown != '0')
  monkeypatch.setattr(machine, '_ask', lambda *_: ('cpu', 1))
  assert machine.accelerators() == []
  assert pool.default_workers() == machine.cores()
  assert pool.environment(1, 'cache')['CUDA_VISIBLE_DEVICES'] == shown


def test_a_campaign_of_many_labels_shows_the_best():
  f1 = {f'lr={i}/{m}': float(i) for i in range(30) for m in 'ab'}
  assert printed.foremost(f1, 'a', kept=2) == ['lr=29/a', 'lr=29/b']
  assert printed.foremost(f1, 'a', most=60) == list(f1)


def test_the_live_view_tells_rate_best_and_failures(tmp_path):
  out = io.StringIO()
  found = jobs(tmp_path, seed='0:3')
  view = overview.Overview(rich.console.Console(file=out, width=200), found, 0)
  taken = {'event': 'take', 'fresh': True, 'waited': 1.0}
  view.event(found[0], taken)
  view.event(found[0], {'event': 'start', 'round': 0})
  view.event(found[0], {'event': 'compile', 'before': 8.21})
  assert 'run seed 0: compiling, 8.21 s the last time' in out.getvalue()
  assert 'ETA' not in view.state()
  view.event(found[0], {'event': 'update', 'round': 0, 'f1': 0.1})
  view.event(found[0], {'event': 'update', 'round': 10, 'f1': 0.5})
  view.event(found[0], {'event': 'end', 'status': 'complete'})
  view.event(found[1], taken | {'fresh': False})
  view.event(found[1], {'event': 'start', 'round': 0})
  view.event(found[1], {'event': 'end', 'status': 'failed'})
  assert 'best F1 50.0 % run seed 0' in view.state()
  assert 'ETA' in view.state() and '1 failed' in view.state()
  assert '[2/3] run seed 1: failed' in out.getvalue()


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('labels', [1, 2, 6])
@pytest.mark.parametrize(('compile_', 'each'), [(20.0, 0.1), (2.0, 1.0)])
def test_the_first_estimate_is_close(workers, labels, compile_, each):
  """Within a factor of 1.5, whatever compiling and rounds are to each other."""
  jobs = [
    job_spec.Job(str(m), s, f'{m}/{s}', {'rounds': 20, 'method': m})
    for m in range(labels)
    for s in range(3)
  ]
  now, told = 0.0, []
  view = estimate.Estimate(jobs, workers, clock=lambda: now)
  left = [list(some) for some in pool.by_structure(jobs)]
  new = list(left)
  free = [(0.0, i, []) for i in range(workers)]  # when, who, on what
  events = []
  while any(left):
    at, number, some = heapq.heappop(free)
    fresh = not some
    if fresh:  # a new structure, else help with the longest
      some = new.pop(0) if new else max(left, key=len)
    job = some.pop(0)
    at += 3.0 * fresh
    take = {'event': 'take', 'fresh': fresh, 'waited': 3.0 * fresh}
    events.append((at, job, take))
    at += 0.5 + compile_ * fresh
    for done in range(0, 21, 5):
      events.append((at, job, {'event': 'update', 'round': done}))
      at += 5 * each * (done < 20)
    events.append((at, job, {'event': 'end', 'status': 'complete'}))
    heapq.heappush(free, (at, number, some))
  events.sort(key=lambda one: one[0])
  last = events[-1][0]
  for at, job, message in events:
    now = at
    view.event(job, message)
    if (found := view.left()) is not None:
      told.append((last - now, found))
  real, found = told[0]
  assert real / 1.5 <= found <= 1.5 * real
  assert told[-1] == (0.0, 0.0)


def test_a_bundle_is_shared_and_each_run_taken_once(tmp_path):
  jobs = [job_spec.Job('a', s, f'a/{s}', {}) for s in range(5)]
  one = bundle.Bundle.write(tmp_path / 'b.json', jobs, 2)
  other = bundle.Bundle(tmp_path / 'b.json')
  assert one.jobs == other.jobs == jobs
  assert (one.take(), other.take(), one.take()) == ([0, 1], [2, 3], [4])
  assert other.take() == other.left() == []


def test_half_a_line_is_read_when_it_is_whole(tmp_path):
  log, follower = (
    bundle.Log(tmp_path / 'log'),
    bundle.Follower(tmp_path / 'log'),
  )
  assert not list(follower.news())
  log.tell('start', 3, round=0)
  with open(tmp_path / 'log', 'a') as file:
    file.write('{"event": "upd')
    file.flush()
    assert [m['event'] for m in follower.news()] == ['start']
    assert not list(follower.news())
    file.write('ate"}\n')
  assert list(follower.news()) == [{'event': 'update'}]


def test_a_free_worker_begins_a_new_structure_then_helps(tmp_path):
  def made(name, count):
    jobs = [job_spec.Job(name, s, f'{name}/{s}', {}) for s in range(count)]
    return bundle.Bundle.write(tmp_path / name, jobs, 1)

  few, many = made('few', 1), made('many', 3)
  both = [few, many]
  assert pool.choose(both, [], [], []) is few
  assert pool.choose(both, [few], [], [few]) is many
  # Help finds the compiled program.
  assert pool.choose(both, both, [few], both) is None
  assert pool.choose(both, both, both, both) is many
  many.take(), many.take()
  # The last one is for the worker that is on its way.
  assert pool.choose(both, both, both, both) is None
  few.take(), many.take()
  assert pool.choose(both, both, both, []) is None


def test_a_worker_performs_its_bundle(fake, tmp_path):
  """Failures are messages; a stop leaves the rest to others."""
  some = jobs(tmp_path, seed='0:3')
  some[1].config['fleet'] = 'nowhere.csv'
  made = bundle.Bundle.write(tmp_path / 'b.json', some, 1)
  log = tmp_path / 'log'
  worker.work(made, bundle.Log(log))
  told = list(bundle.Follower(log).news())
  ends = [(m['job'], m['status']) for m in told if m['event'] == 'end']
  assert ends == [(0, 'complete'), (1, 'failed'), (2, 'complete')]
  assert [m['jobs'] for m in told if m['event'] == 'take'] == [[0], [1], [2]]
  rounds = [m['round'] for m in told if m['event'] == 'update']
  assert rounds == [0, 5, 10] * 2


def test_a_worker_that_was_stopped_takes_nothing_more(
  fake, tmp_path, monkeypatch
):
  some = jobs(tmp_path, seed='0:2')
  made = bundle.Bundle.write(tmp_path / 'b.json', some, 1)
  advance = fake.Simulation.advance

  def stopped(self):
    os.kill(os.getpid(), signal.SIGTERM)
    return advance(self)

  monkeypatch.setattr(fake.Simulation, 'advance', stopped)
  worker.work(made, bundle.Log(tmp_path / 'log'))
  ends = [m for m in bundle.Follower(tmp_path / 'log').news() if 'status' in m]
  assert [end['status'] for end in ends] == ['interrupted']
  assert made.left() == [1]


def test_the_same_sweep_is_refused_while_it_runs(inline, tmp_path):  # noqa: F811
  run(tmp_path, seed='0:2')
  before = (tmp_path / 'manifest.json').read_bytes()
  with locks.claim(tmp_path), pytest.raises(InputError, match='in use'):
    run(tmp_path, seed='0:3')
  assert (tmp_path / 'manifest.json').read_bytes() == before
  # Parts run beside each other, but not beside themselves or the whole.
  with locks.claim(tmp_path, shared=True):
    with pytest.raises(InputError, match='in use'):
      run(tmp_path, seed='0:3')
    assert run(tmp_path, (1, 2), seed='0:3') == 0
    with locks.claim(tmp_path / 'logs' / '1of2'):
      with pytest.raises(InputError, match='in use'):
        run(tmp_path, (1, 2), seed='0:3')
      assert run(tmp_path, (2, 2), seed='0:3') == 0


@pytest.mark.parametrize('place', ['file/x', 'file'])
def test_a_folder_that_cannot_be_made_is_one_line(inline, tmp_path, place):  # noqa: F811
  (tmp_path / 'file').touch()
  with pytest.raises(StorageError, match='file'):
    run(tmp_path / place, seed='0:2')
  assert not inline


def test_tables_on_a_full_disk_are_one_line(inline, tmp_path, monkeypatch):  # noqa: F811
  def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  for writer in ((execution.printed, 'save'), (execution.curves, 'save')):
    with monkeypatch.context() as patch:
      patch.setattr(*writer, full)
      with pytest.raises(StorageError, match='No space left'):
        run(tmp_path, seed='0:2')
  assert run(tmp_path, seed='0:2') == 0 and len(inline) == 2


def test_a_file_that_cannot_be_read_is_said_once(inline, tmp_path):  # noqa: F811
  """Before anything runs, not by every run."""
  (tmp_path / 'own.npz').write_bytes(b'PK' + b'half a file')
  own = config()
  own.dataset, own.data_path = 'npz', str(tmp_path / 'own.npz')
  found = campaign.of_sweep(own, [{'seed': s} for s in (0, 1)], tmp_path / 'a')
  with pytest.raises(InputError, match=r'own\.npz'):
    execution.run(found, tmp_path / 'a', 1)
  assert not inline and not (tmp_path / 'a').exists()


def test_a_reason_that_many_runs_share_is_said_once(tmp_path, capsys, inline):  # noqa: F811
  bad = config()
  bad.fleet = 'nowhere.csv'
  found = campaign.of_sweep(bad, [{'seed': s} for s in range(5)], tmp_path)
  assert execution.run(found, tmp_path, 1) == 1
  said = [
    line
    for line in capsys.readouterr().out.splitlines()
    if 'nowhere.csv' in line
  ]
  (line,) = said
  assert line.startswith(
    'failed: run seed 0, run seed 1, run seed 2 and 2 more'
  )


def test_data_named_and_not_there_stop_a_sweep_before_it_runs(
  inline,  # noqa: F811
  tmp_path,
  capsys,
):
  auto = config()
  auto.dataset = 'auto'
  (tmp_path / 'dsads').mkdir()
  found = campaign.of_sweep(
    auto, [{'seed': 0}], tmp_path / 'a', str(tmp_path / 'dsads')
  )
  with pytest.raises(InputError, match='no dsads in --data_dir'):
    execution.run(found, tmp_path / 'a', 1)
  assert not inline and not (tmp_path / 'a').exists()
  # Synthetic data are named as such before the work and above its tables.
  run(tmp_path / 'b', seed='0:1')
  lines = capsys.readouterr().out.splitlines()
  said = [i for i, line in enumerate(lines) if 'random numbers' in line]
  assert len(said) == 2 and said[1] < lines.index(
    next(line for line in lines if ' f1 % ' in line)
  )
  text = (tmp_path / 'b' / 'table.md').read_text()
  assert text.startswith('Data: synthetic.')
