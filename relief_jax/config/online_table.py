"""Keys of worlds that are not clean and static: faulty sensors, online worlds.

Rows as in `table.py`; all off by default.
"""

from relief_jax.keys import MANY, name, real, text, whole

# How much sensors differ between devices (clients/sensor_faults.py);
# 0: not at all.
SENSOR_FAULTS = {
  'gain': real(0.0, 0, 10, 'deviation of the log of the gain'),
  'bias': real(0.0, 0, 10, 'deviation of the bias', 'deviations'),
  'noise': real(0.0, 0, 10, 'largest white noise', 'deviations'),
  'jitter': real(0.0, 0, 10, 'largest deviation of the time', 'samples'),
  'clip': real(0.0, 0, 100, 'sensors saturate there', 'deviations'),
  'gap': real(0.0, 0, 1, 'largest share of a window that is lost'),
  'lost': real(0.0, 0, 1, 'largest share of windows that are lost'),
  'share': real(
    0.0, 0, 1, 'of the sensors that are faulty; 0: all of them, unequally'
  ),
  'period': real(
    0.0, 0, MANY, 'over which faults come and go; 0: they stay', 'rounds'
  ),
}

# What changes from round to round (online/).
ONLINE = {
  # Windows arrive in a buffer of the newest ones (streams.py).
  'stream': {
    'buffer': whole(
      0, 0, MANY, 'windows that a device keeps; 0: all, from the start'
    ),
    'arrive': whole(20, 1, MANY, 'new windows a round'),
    'spread': real(0.0, 0, 5, 'deviation of the log of that over devices'),
    'drift': real(0.0, 0, 1, 'of classes: 0 evenly mixed, 1 one by one'),
    'delay': whole(0, 0, MANY, 'from a window to its label', 'rounds'),
  },
  # Sensors that deliver nothing for a round (missing.py).
  'missing': {
    'kind': name('off', 'missing', 'whose sensors fail together'),
    'rate': real(0.0, 0, 1, 'probability that a sensor fails'),
    'spread': real(
      0.0, 0, 0.99, 'beta-distributed between clients; 0: the same'
    ),
    'length': real(
      5.0, 1, MANY, 'kind=bursts: mean length of an outage', 'rounds'
    ),
    'outage': text('', "planned: 'acc:20-40', no acc in rounds 20 to 39"),
    'share': real(1.0, 0, 1, 'of the owners that an outage strikes'),
  },
  # Devices that are away (presence.py).
  'presence': {
    'kind': name('off', 'presence', 'when devices are away'),
    'rate': real(1.0, 0, 1, 'probability of being there'),
    'spread': real(
      0.0, 0, 0.99, 'beta-distributed between clients; 0: the same'
    ),
    'period': real(24.0, 1, MANY, 'kind=diurnal: of a day', 'rounds'),
    'length': real(
      5.0, 1, MANY, 'kind=stays: mean length of an absence', 'rounds'
    ),
    'path': text(
      '',
      'kind=trace: CSV of 0 and 1, a line a round; windows: JSON of records '
      '(online/windows_file.py)',
    ),
    'round_seconds': whole(
      3600, 1, 86400, 'kind=windows: from a round to the next', 'seconds'
    ),
  },
  # Processors and links of the day (radio.py).
  'pace': {
    'slowdown': real(0.0, 0, 5, "deviation of the log of a device's speed"),
    'fading': real(0.0, 0, 5, "deviation of the log of a link's bandwidth"),
    'loss': real(0.0, 0, 0.99, 'probability that a packet is sent again'),
    'path': text(
      '', 'CSV of bit rates over time, by device (online/bandwidth_file.py)'
    ),
    'round_seconds': whole(
      3600, 1, 86400, 'path: from a round to the next', 'seconds'
    ),
    'wait': real(
      0.0, 0, MANY, "server's patience; 0: no end", 'median planned times'
    ),
    'late': name('lost', ('lost', 'partial'), 'what comes later'),
  },
}
