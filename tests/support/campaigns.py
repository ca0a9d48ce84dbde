"""Campaigns of the fake simulation, all in this process."""

from experiments.configs import relief
from relief_jax.campaign import campaign, execution, points, pool
from relief_jax.errors import InputError
from relief_jax.runs import simulation
from relief_jax.storage import records, runner
from tests.support import fake_simulate


def run_inline(monkeypatch):
  """Every job runs in this process, on the fake simulation; a list of them."""
  monkeypatch.setattr(simulation, 'Simulation', fake_simulate.Simulation)
  fake_simulate.CALLS.clear()
  ran = []

  def run(self, on_event):
    for job in (job for some in pool.by_structure(self.jobs) for job in some):
      if self.stopped:
        break
      on_event(job, {'event': 'take', 'fresh': False, 'waited': 0.0})
      ran.append((job.label, job.seed))
      on_event(job, {'event': 'start', 'title': '', 'rounds': 1, 'round': 0})
      try:
        status = runner.run(
          records.config_from_dict(job.config),
          job.workdir,
          job.data_dir,
          resume=True,
        )
        on_event(job, {'event': 'end', 'status': status})
      except InputError as error:
        end = {'event': 'end', 'status': 'failed', 'reason': str(error)}
        on_event(job, end)

  monkeypatch.setattr(pool.Pool, 'run', run)
  return ran


def compare(own, folder):
  """Runs a comparison; its exit code."""
  return execution.run(campaign.of_comparison(own, folder), folder, 1)


def config():
  """Of the sweeps: ten rounds, tested twice."""
  found = relief.get_config('smoke')
  found.rounds, found.eval_every, found.rounds_per_call = 10, 5, 5
  return found


def jobs(folder, **texts):
  """The runs of a sweep over keys, spelled with __ for a dot."""
  names = {k.replace('__', '.'): v for k, v in texts.items()}
  found = points.expand([], points.swept(config(), names))
  return campaign.of_sweep(config(), found, folder).jobs


def run(folder, part=(1, 1), **texts):
  """Runs a part of such a sweep; its exit code."""
  made = campaign.Campaign(jobs(folder, **texts), config(), 'client_lr=0.03')
  return execution.run(made, folder, 1, part)
