"""What makes a run the same run, and what may change while it goes on."""

import json

import pytest

from relief_jax import algorithms, simulate
from relief_jax import config as config_lib
from relief_jax.campaign import campaign, execution, manifest
from relief_jax.config import presets
from relief_jax.errors import InputError
from relief_jax.keys import flatten
from relief_jax.storage import identity, job_spec, records, runner
from tests.support import fake_simulate


def config(**keys):
  found = config_lib.default()
  found.dataset, found.rounds, found.eval_every = 'synthetic', 10, 5
  found.update_from_flattened_dict(
    {key.replace('__', '.'): value for key, value in keys.items()}
  )
  return found


def contents(folder):
  """All files but TensorBoard's and the checkpoints'."""
  return {
    p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()
  }


# A longer run.


@pytest.mark.invariant(2)
@pytest.mark.parametrize('first', [5, 10])
def test_a_finished_run_goes_on_as_the_longer_one(fake, tmp_path, first):
  runner.run(config(rounds=20), tmp_path / 'whole')
  runner.run(config(rounds=first), tmp_path / 'grown')
  fake.CALLS.clear()
  notes = fake_simulate.Notes()
  status = runner.run(
    config(rounds=20), tmp_path / 'grown', resume=True, reporter=notes
  )
  assert status == 'complete' and fake.CALLS[0] == first
  assert f'config.rounds=20 from here on, {first} before' in notes.lines
  assert contents(tmp_path / 'whole') == contents(tmp_path / 'grown')


def test_a_longer_run_that_is_killed_is_not_finished(
  fake, tmp_path, monkeypatch
):
  runner.run(config(rounds=20), tmp_path / 'whole')
  runner.run(config(), tmp_path / 'grown')

  def killed(self):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(fake.Simulation, 'advance', killed)
    with pytest.raises(KeyboardInterrupt):
      runner.run(config(rounds=20), tmp_path / 'grown', resume=True)
  summary = records.read_json(tmp_path / 'grown' / 'summary.json')
  assert summary['status'] == 'interrupted'
  runner.run(config(rounds=20), tmp_path / 'grown', resume=True)
  assert contents(tmp_path / 'whole') == contents(tmp_path / 'grown')


@pytest.mark.parametrize(
  ('keys', 'why'),
  [
    (dict(rounds=5), '10 rounds are done'),
    (dict(rounds=20, method='centralized'), 'method=centralized plans over'),
    (dict(rounds=20, lr_schedule='cosine'), 'lr_schedule=cosine plans over'),
    (
      dict(rounds=20, deadline_end='full', deadline='tight'),
      'deadline_end=full plans over',
    ),
  ],
)
def test_rounds_that_cannot_be_given(fake, tmp_path, keys, why):
  begun = config(**(keys | dict(rounds=10)))
  runner.run(begun, tmp_path)
  before = contents(tmp_path)
  with pytest.raises(InputError, match=why):
    runner.run(config(**keys), tmp_path, resume=True)
  assert contents(tmp_path) == before


@pytest.mark.parametrize(
  ('method', 'keys', 'plans'),
  [
    ('relief', {}, False),
    ('relief', {'deadline_end': 'full'}, True),
    ('centralized', {}, True),
    pytest.param('harmony', {}, True, marks=pytest.mark.slow),
  ],
)
def test_whether_a_round_depends_on_their_number(method, keys, plans):
  own = presets.method(method, 'smoke')
  own.devices = 1
  own.update_from_flattened_dict(keys)
  assert simulate.Simulation(own).plans() == plans


@pytest.mark.slow
def test_between_two_calls_a_run_comes_back_into_step(tmp_path):
  def own(rounds):
    found = presets.method('relief', 'smoke')
    found.devices, found.rounds = 1, rounds
    found.rounds_per_call = found.eval_every = 3
    return found

  runner.run(own(7), tmp_path / 'whole')
  runner.run(own(2), tmp_path / 'grown')
  runner.run(own(7), tmp_path / 'grown', resume=True)
  whole, grown = (
    {row['round']: row for row in records.read_metrics(path / 'metrics.jsonl')}
    for path in (tmp_path / 'whole', tmp_path / 'grown')
  )
  assert list(whole) == [0, 3, 6, 7] and list(grown) == [0, 2, 3, 6, 7]
  for number, row in whole.items():
    for key in ('f1', 'sim_seconds', 'joules', 'up_bytes', 'f1_by_tier'):
      assert row[key] == grown[number][key], (number, key)


# Keys.


def other_value(key, value):
  """Another value of a key that changes no result."""
  found = {'layout': 'all', 'data.download': True, 'rounds': 20}
  found |= {'rounds_per_call': 1, 'eval_every': 10, 'target_f1': 0.5}
  return found[key] if key in found else value + 1


# Of modules: config_flags_test.py.
@pytest.mark.parametrize('key', sorted({*identity.FREE} - {'modules'}))
def test_what_changes_no_result_may_change(fake, tmp_path, key):
  runner.run(config(layout='one'), tmp_path)
  records.write_json(
    tmp_path / 'summary.json',
    records.read_json(tmp_path / 'summary.json') | {'status': 'interrupted'},
  )
  after = config(layout='one')
  old = config_lib.get(after, key)
  new = other_value(key, old)
  after.update_from_flattened_dict({key: new})
  notes = fake_simulate.Notes()
  runner.run(after, tmp_path, resume=True, reporter=notes)
  assert f'config.{key}={new!r} from here on, {old!r} before' in notes.lines
  stored = flatten(records.read_json(tmp_path / 'config.json'))
  assert stored[key] == new


@pytest.mark.slow
def test_any_other_key_makes_another_run():
  stored = records.clean(config())
  free = set()
  for key, value in flatten(stored).items():
    changed = flatten(stored) | {key: f'not {value}'}
    if not identity.difference(config(), changed):
      free.add(key)
  unused = {
    key
    for key in flatten(stored)
    if key.partition('.')[0] in algorithms.ALGORITHMS
    and not key.startswith('relief.')
  }
  assert free == set(identity.FREE) | unused
  assert 'pmm.bits' in free and 'relief.rule' not in free


def test_a_finished_run_says_so(fake, tmp_path):
  runner.run(config(), tmp_path)
  notes = fake_simulate.Notes()
  runner.run(config(target_f1=0.3), tmp_path, resume=True, reporter=notes)
  (line,) = notes.lines
  assert 'is complete after round 10: nothing is left to do' in line
  assert 'config.target_f1 would change nothing' in line


# Files.


def device(folder, speed):
  figures = dict(
    speed_gflops=speed,
    active_w=2,
    sending_w=1,
    receiving_w=1,
    idle_w=0.5,
    uplink_mbps=10,
    downlink_mbps=10,
  )
  (folder / 'mine.json').write_text(json.dumps(figures))


def with_files(folder, **keys):
  """A config that names a file of each kind."""
  folder.mkdir(exist_ok=True)
  (folder / 'own.npz').write_bytes(b'data')
  (folder / 'trace.csv').write_text('1,0\n')
  (folder / 'base.safetensors').write_bytes(b'weights')
  (folder / 'fleet.csv').write_text(
    'name,share,sensors,device\na,100,all,mine.json\n'
  )
  device(folder, 5)
  found = config(
    dataset='npz',
    data_path=str(folder / 'own.npz'),
    fleet=str(folder / 'fleet.csv'),
    online__presence__kind='trace',
    online__presence__path=str(folder / 'trace.csv'),
    backbone='transformer',
    model__weights=str(folder / 'base.safetensors'),
  )
  found.update_from_flattened_dict(keys)
  return found


@pytest.mark.parametrize(
  'name',
  ['own.npz', 'trace.csv', 'fleet.csv', 'mine.json', 'base.safetensors'],
)
def test_a_file_with_other_contents_makes_another_run(fake, tmp_path, name):
  own = with_files(tmp_path / 'files')
  runner.run(own, tmp_path / 'run')
  job = job_spec.Job('a', 0, str(tmp_path / 'run'), records.clean(own))
  assert manifest.status_of(job)['status'] == 'complete'
  if name == 'mine.json':
    device(tmp_path / 'files', 50)
  else:
    with open(tmp_path / 'files' / name, 'a') as file:
      file.write('\n')
  for again in (
    lambda: runner.run(own, tmp_path / 'run', resume=True),
    lambda: manifest.status_of(job),
  ):
    with pytest.raises(InputError, match=f'{name}, with other contents'):
      again()


def test_a_file_that_was_moved_is_the_same(fake, tmp_path):
  runner.run(with_files(tmp_path / 'here'), tmp_path / 'run')
  moved = with_files(tmp_path / 'there', rounds=20)
  runner.run(moved, tmp_path / 'run', resume=True)
  stored = records.read_json(tmp_path / 'run' / 'config.json')
  assert stored['fleet'] == str(tmp_path / 'there' / 'fleet.csv')


def test_another_file_of_weights_is_named_beside_the_stored_one(fake, tmp_path):
  own = with_files(tmp_path / 'files')
  runner.run(own, tmp_path / 'run')
  other = tmp_path / 'files' / 'other.safetensors'
  other.write_bytes(b'other weights')
  before = contents(tmp_path / 'run')
  own.model.weights = str(other)
  with pytest.raises(
    InputError,
    match=r'other\.safetensors, with other contents, where '
    r'config\.model\.weights=.*base\.safetensors is stored',
  ):
    runner.run(own, tmp_path / 'run', resume=True)
  own.model.weights = ''
  with pytest.raises(InputError, match="model.weights='' where '.*base"):
    runner.run(own, tmp_path / 'run', resume=True)
  assert contents(tmp_path / 'run') == before


def test_the_data_of_a_finished_run_may_be_gone(fake, tmp_path):
  own = with_files(tmp_path / 'files')
  runner.run(own, tmp_path / 'run')
  (tmp_path / 'files' / 'own.npz').unlink()
  job = job_spec.Job('a', 0, str(tmp_path / 'run'), records.clean(own))
  assert manifest.status_of(job)['status'] == 'complete'


def test_a_data_folder_counts_file_by_file(tmp_path):
  own, folder = config(dataset='mhealth'), tmp_path / 'mhealth'
  folder.mkdir()
  for person in (1, 2):
    (folder / f'mHealth_subject{person}.log').write_text(f'{person}')
  known = identity.of(own, tmp_path)
  assert len(known['files']) == 2 and not identity.other(own, tmp_path, known)
  (folder / 'mHealth_subject3.log').write_text('3')
  assert 'subject3.log, which was not' in identity.other(own, tmp_path, known)
  (folder / 'mHealth_subject3.log').unlink()
  (folder / 'mHealth_subject1.log').unlink()
  found = identity.other(own, tmp_path, known)
  assert 'subject1.log, which is not there any more' in found


def test_a_run_from_before_files_were_kept_goes_on(fake, tmp_path):
  own = with_files(tmp_path / 'files')
  runner.run(own, tmp_path / 'run')
  (tmp_path / 'run' / identity.FILE).unlink()
  notes = fake_simulate.Notes()
  own.rounds = 20
  runner.run(own, tmp_path / 'run', resume=True, reporter=notes)
  assert any('not recorded before' in line for line in notes.lines)
  kept = records.read_json(tmp_path / 'run' / identity.FILE)
  assert kept == identity.of(own, None)


def test_another_choice_of_precision_is_refused(fake, tmp_path, monkeypatch):
  runner.run(config(), tmp_path)
  monkeypatch.setenv('NVIDIA_TF32_OVERRIDE', '0')
  with pytest.raises(InputError, match='NVIDIA_TF32_OVERRIDE=0 where None'):
    runner.run(config(rounds=20), tmp_path, resume=True)


def test_worlds_are_shared_on_the_same_files_only(tmp_path, monkeypatch):
  built = []
  monkeypatch.setattr(
    runner.world, 'build', lambda *_: built.append(1) or object()
  )
  own, worlds = with_files(tmp_path), runner.Worlds()
  own.devices = 1
  for _ in range(2):
    worlds.find(own, None)
  assert len(built) == 1
  (tmp_path / 'own.npz').write_bytes(b'other')
  worlds.find(own, None)
  assert len(built) == 2


def test_a_sweep_grows_longer(fake, tmp_path):
  """What cannot is told, and stays out of the table."""
  members = {}
  for method in ('relief', 'centralized'):
    own = config(method=method)
    members[method] = str(tmp_path / method)
    runner.run(own, members[method])
  jobs = [
    job_spec.Job(m, 0, path, records.clean(config(method=m, rounds=20)))
    for m, path in members.items()
  ]
  assert {manifest.status_of(job)['status'] for job in jobs} == {'interrupted'}
  ended = {}
  for job in jobs:
    runner.run_together(
      [runner.Member(job.config, job.workdir)],
      runner.Worlds(),
      lambda _, result, job=job: ended.update({job.label: result}),
    )
  assert ended['relief'] == 'complete'
  assert 'plans over all rounds' in str(ended['centralized'])
  rounds = {
    m: records.read_json(tmp_path / m / 'summary.json')['rounds']
    for m in members
  }
  assert rounds == {'relief': 20, 'centralized': 10}


def test_a_part_of_a_sweep_looks_at_the_other_parts(fake, tmp_path):
  own = with_files(tmp_path / 'files')
  runner.run(own, tmp_path / 'a')
  (tmp_path / 'files' / 'own.npz').write_bytes(b'other')
  jobs = [
    job_spec.Job(name, 0, str(tmp_path / name), records.clean(own))
    for name in 'ab'
  ]
  both = campaign.Campaign(jobs, own, 'a')
  with pytest.raises(InputError, match=r'own\.npz, with other contents'):
    execution.run(both, tmp_path, 1, part=(2, 2))
