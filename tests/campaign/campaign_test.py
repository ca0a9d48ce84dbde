"""Sweeps: which points, what is run again, what shares a program."""

import errno
import os

import pytest

from relief_jax.campaign import campaign, execution, pool
from relief_jax.errors import InputError, StorageError
from relief_jax.report import printed
from relief_jax.storage import job_spec, locks, records
from tests.support.campaigns import config, jobs, run


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


def test_the_manifest_tells_how_each_stands(inline, tmp_path, capsys):
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


def test_shards_make_the_whole(inline, tmp_path):
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


def test_a_campaign_of_many_labels_shows_the_best():
  f1 = {f'lr={i}/{m}': float(i) for i in range(30) for m in 'ab'}
  assert printed.foremost(f1, 'a', kept=2) == ['lr=29/a', 'lr=29/b']
  assert printed.foremost(f1, 'a', most=60) == list(f1)


def test_the_same_sweep_is_refused_while_it_runs(inline, tmp_path):
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
def test_a_folder_that_cannot_be_made_is_one_line(inline, tmp_path, place):
  (tmp_path / 'file').touch()
  with pytest.raises(StorageError, match='file'):
    run(tmp_path / place, seed='0:2')
  assert not inline


def test_tables_on_a_full_disk_are_one_line(inline, tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  for writer in ((execution.printed, 'save'), (execution.curves, 'save')):
    with monkeypatch.context() as patch:
      patch.setattr(*writer, full)
      with pytest.raises(StorageError, match='No space left'):
        run(tmp_path, seed='0:2')
  assert run(tmp_path, seed='0:2') == 0 and len(inline) == 2


def test_a_file_that_cannot_be_read_is_said_once(inline, tmp_path):
  """Before anything runs, not by every run."""
  (tmp_path / 'own.npz').write_bytes(b'PK' + b'half a file')
  own = config()
  own.dataset, own.data_path = 'npz', str(tmp_path / 'own.npz')
  found = campaign.of_sweep(own, [{'seed': s} for s in (0, 1)], tmp_path / 'a')
  with pytest.raises(InputError, match=r'own\.npz'):
    execution.run(found, tmp_path / 'a', 1)
  assert not inline and not (tmp_path / 'a').exists()


def test_a_reason_that_many_runs_share_is_said_once(tmp_path, capsys, inline):
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
  inline,
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
