"""A first look, in half a minute: three ways to train one small world.

relief try

Twelve unequal devices of five people, tested on a sixth one. FedAvg runs the
whole model on every device and waits for the slowest; RELIEF trains what each
device has sensors and time for; local_only never sends anything, so that it
costs least and learns from one person alone. Look at `figures/f1_time.png`:
what differs is how soon a fleet gets how far, not the rounds that it takes.
"""

from relief_jax import config as config_lib
from relief_jax.campaign import comparison

METHODS = {
  'fedavg': {'method': 'fedavg'},
  'relief': {'method': 'relief', 'deadline': 'tight'},
  'local_only': {'method': 'local_only'},
}


def get_config():
  """Builds the config of the comparison."""
  c = config_lib.default()
  c.dataset, c.clients, c.devices = 'synthetic', 12, 1
  c.rounds, c.rounds_per_call, c.eval_every = 40, 4, 4
  c.local_steps, c.batch, c.target_f1 = 3, 16, 0.5
  c.synthetic.subjects, c.synthetic.classes = 6, 6
  c.synthetic.windows_per_class = 12
  c.data.width = c.data.stride = 50
  c.data.test_subjects = (6,)
  # Small: what takes long here is compilation.
  c.model.filters, c.model.hidden = (12,), 32
  return comparison.build(c, METHODS, seeds=(0, 1, 2))
