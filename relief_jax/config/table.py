"""The configuration of a run: the table of its keys.

A config is a locked `ml_collections.ConfigDict`. What changes a shape or a
branch of the program is a plain key (static); what changes a value only lives
under `hparams` and is traced: sweeping it recompiles nothing.

A row names the key's type by its function (`keys.py`), then its default, least
and most value or its choices, and its meaning. `validation.py` holds every
value against its row. The options of a method are rows in its own file
(`rounds/facts.py`). A module of your own adds a key by a row of its own:

>>> from relief_jax.config import default
>>> ROWS['coin'] = {'heads': real(0.5, 0, 1, 'probability of training')}
>>> default().coin.heads
0.5
>>> del ROWS['coin']
"""

from typing import Any

from relief_jax.config.model_table import MODEL
from relief_jax.config.online_table import ONLINE, SENSOR_FAULTS
from relief_jax.keys import (
  LARGE,
  LARGEST_SEED,
  MANY,
  labels,
  name,
  names,
  real,
  switch,
  text,
  whole,
)
from relief_jax.optimizers import SCHEDULES
from relief_jax.selection.rows import ROWS as SELECTION

_CODEC = {
  'name': name('none', 'codecs', 'how numbers are coded'),
  'share': real(
    0.05, 0, 1, 'top_k, random_k: of the numbers that are sent', above=True
  ),
  'mode': name('twn', 'ternary modes', 'ternary: its threshold'),
  'scaled': switch(
    True, 'random_k: by 1 / share, unbiased; False allows error feedback'
  ),
  'error_feedback': name(
    'auto',
    ('auto', 'on', 'off'),
    'of what did not arrive (updates/link.py): error feedback on the device; '
    "downlink: the model's change is sent",
  ),
}

# Keys by their old names; the longer ones first.
RENAMED = {
  'shift.gone': 'sensor_faults.lost',
  'shift': 'sensor_faults',
  'online.missing.struck': 'online.missing.share',
  'cosines': 'update_similarity',
  'uplink_codec.memory': 'uplink_codec.error_feedback',
  'downlink_codec.memory': 'downlink_codec.error_feedback',
}

ROWS: dict[str, Any] = {
  # What is run.
  'method': name('relief', 'methods', 'the federated system'),
  'dataset': name(
    'auto', 'data sets', 'auto: dsads where its files are found, else synthetic'
  ),
  'data_path': text(
    '', 'your own data: the file of dataset=npz or csv, the folder of texts'
  ),
  'backbone': name(
    'cnn',
    'models',
    'cnn: all parameters; lora: frozen base; transformer: of tokens; '
    'image_cnn; char_mlp: text',
  ),
  'seed': whole(0, 0, LARGEST_SEED, 'of everything that is drawn'),
  'modules': names(
    (),
    'Python to import first: names, or paths of .py files; they run as code '
    'and may add methods, models, data sets, fleets, devices, codecs and keys',
  ),
  # The world.
  'clients': whole(48, 1, MANY, 'devices of the fleet'),
  'clients_per_round': whole(0, 0, MANY, 'drawn each round; 0: everybody'),
  'selection': SELECTION,
  'fleet': name('four_tiers', 'fleets', 'who has which device and sensors'),
  'fleet_coupling': real(
    1.0, 0, 1, 'of speed and sensors: 1 nested, 0 independent'
  ),
  'fleet_spread': real(
    0.0, 0, 5, "deviation of the log of a device's speed; 0: as its tier's"
  ),
  'partition': name(
    'contiguous', 'partitions', 'how windows are dealt to devices'
  ),
  'alpha': real(0.5, 1e-3, LARGE, 'concentration of partition=dirichlet'),
  'quantity_skew': real(
    0.0, 0, 5, "deviation of the log of a device's windows; 0: even"
  ),
  'min_windows': whole(1, 1, MANY, 'of every device'),
  'reuse': whole(
    0,
    0,
    MANY,
    '> 0: devices share windows, so many each on average (world/quantity.py)',
  ),
  'sensor_faults': SENSOR_FAULTS,
  'online': ONLINE,
  'data': {
    'modalities': name(
      'sensor',
      ('sensor', 'place'),
      'by sensor (acc, gyro, ...) or by body place',
    ),
    'channels': text(
      '',
      "'acc;gyro=arm_gyro_*': which channels, in which order of modalities "
      "(datasets/channels.py); empty: the data set's own",
    ),
    'optional': switch(False, 'pamap2: the six optional activities too'),
    'label': text('label', 'csv: the column that is predicted'),
    'client': text('', "csv: the column of whose row it is; '': all are one's"),
    'download': switch(False, 'fetch a data set that is not there'),
    'rate': real(0.0, 0, LARGE, 'resampled to; 0: as recorded', 'Hz'),
    'max_gap': real(
      0.5, 0, LARGE, 'NaN for longer cut a run, shorter are interpolated', 's'
    ),
    'width': whole(125, 1, MANY, 'of a window, or of a text', 'samples'),
    'stride': whole(125, 1, MANY, 'between window starts', 'samples'),
    'split': name('subjects', 'splits', 'what is held out (world/splits.py)'),
    'test_subjects': labels((7, 8), -(2**31), 'split=subjects: held out'),
    'folds': whole(
      0, 0, MANY, 'split=folds: parts that persons are dealt to; 0: one each'
    ),
    'fold': whole(0, 0, MANY, 'split=folds: the part to test on'),
    'test_share': real(
      0.25, 0, 1, 'split=time: the end of every run', above=True, below=True
    ),
    'own_share': real(
      0.2, 0, 1, "of every training run, for a device's own test", below=True
    ),
    'validation_subjects': labels(
      (), -(2**31), 'on no device, to choose values by'
    ),
    'public_subjects': whole(
      1, 0, MANY, 'set aside to pretrain a frozen base (lora only)'
    ),
    'rare': text(
      '', 'the modality that `f1_rare_*` are about; empty: fewest owners'
    ),
  },
  'synthetic': {
    'subjects': whole(12, 1, 10**5, 'persons'),
    'modalities': whole(3, 1, 100, 'sensors'),
    'channels': whole(3, 1, 1000, 'of each sensor'),
    'classes': whole(8, 2, 1000, 'activities'),
    'windows_per_class': whole(24, 1, 10**5, 'of each person'),
    'noise': real(1.0, 0, 1000, 'deviation of the noise'),
    'style': real(0.5, 0, 10, 'per-subject shift of every signal'),
  },
  # Training.
  'rounds': whole(60, 1, MANY, 'of the run'),
  'rounds_per_call': whole(5, 1, MANY, 'rounds in one call of the program'),
  'eval_every': whole(5, 1, MANY, 'between evaluations', 'rounds'),
  'checkpoint_every': whole(
    0, 0, MANY, '0: at the end and when interrupted', 'rounds'
  ),
  'local_steps': whole(5, 0, MANY, 'of a device in a round'),
  'local_epochs': whole(0, 0, 10**4, '> 0 replaces local_steps'),
  'batch': whole(32, 1, MANY, 'windows in a local step'),
  'weight': name('uniform', ('uniform', 'samples'), 'of a client in the mean'),
  'client_optimizer': name(
    'momentum',
    'local optimisers',
    'of the local steps; momentum: SGD with hparams.client_momentum',
  ),
  'client_optimizer_args': text(
    '', "others than its rate, as optax names them: 'b1=0.9;weight_decay=0.01'"
  ),
  'lr_schedule': name(
    'exponential',
    SCHEDULES,
    'of the local rate over the rounds: by hparams.lr_decay every round, or '
    'every hparams.lr_every (step); to hparams.lr_floor at the end (linear, '
    'cosine)',
  ),
  'server_optimizer': name(
    'sgd',
    ('sgd', 'momentum', 'adam', 'yogi'),
    'what makes a step of the mean update',
  ),
  'keep_client_state': switch(
    False, "the local optimiser's state stays on the device between rounds"
  ),
  # What links code updates and models with (updates/link.py, compressors/).
  'uplink_codec': _CODEC,
  'downlink_codec': _CODEC,
  # The model may be lost on its way to devices (updates/rateless.py).
  'broadcast': {
    'kind': name(
      'off',
      ('off', 'unicast', 'rateless'),
      'off: it arrives; unicast: sent to one device after another; rateless: '
      'once for all',
    ),
    'budget': real(
      0.0, 0, LARGE, 'symbols a device listens to; 0: no end', 'whole models'
    ),
    'budget_spread': real(0.0, 0, 5, "deviation of the log of a device's"),
    'erasure': real(0.0, 0, 0.99, 'share of the symbols that are lost'),
    'erasure_spread': real(
      0.0, 0, 0.99, 'beta-distributed between clients; 0: the same'
    ),
    'protect': name(
      'order',
      ('none', 'order', 'symbols'),
      'of divergent blocks: sent first; symbols: with more repair, too',
    ),
    'repair': real(
      0.0, 0, 1000, 'symbols sent beyond those needed, over these; 0: any'
    ),
    'symbol': whole(256, 1, 10**6, 'of the code', 'bytes'),
    'effort': whole(0, 0, MANY, 'iterations of a decoder, above 10; 0: any'),
  },
  # Clients that diverge or lie (updates/faults.py, aggregation/robust.py).
  'nonfinite': name(
    'stop', ('stop', 'drop'), 'updates that are: stop the run, or drop them'
  ),
  'mean': name('mean', ('mean', 'median', 'trimmed'), "of a cohort's updates"),
  'trim': real(
    0.2, 0, 0.49, 'mean=trimmed: share of the values cut off on either side'
  ),
  'faults': {
    'share': real(0.0, 0, 1, 'of the clients that lie, drawn from the seed'),
    'kind': name(
      'nan', ('nan', 'flip', 'noise'), 'what they send; flip: negated'
    ),
    'scale': real(
      1.0, 0, LARGE, 'flip, noise: norm of it, in norms of the true update'
    ),
  },
  # Private updates (updates/noise.py, runs/privacy.py); with
  # hparams.clip_norm and hparams.noise_multiplier.
  'privacy': {
    'noise': name(
      'off', ('off', 'device', 'server'), 'who adds Gaussian noise'
    ),
    'delta': real(
      1e-5, 0, 1, 'delta of the epsilon in records', above=True, below=True
    ),
  },
  # Cost.
  'deadline': name('tight', 'deadlines', 'of a round, see docs/budgets.md'),
  'deadline_end': name(
    '', 'deadlines at the end', 'a linear way there over the run; empty: none'
  ),
  'over_budget': name(
    'refuse',
    ('refuse', 'sit_out'),
    'what becomes of a device below its own forward pass',
  ),
  'idle_power': switch(False, 'charge devices for waiting'),
  # Absent modalities.
  'fill': name(
    '',
    ('', 'input', 'skip'),
    "absent modalities: filled in or skipped; empty: the method's own",
  ),
  'fill_value': name(
    'mean', ('mean', 'zero'), 'mean (0 after z-scoring), or the physical zero'
  ),
  'modality_dropout': real(
    0.0, 0, 1, 'probability that a step drops a modality on board', below=True
  ),
  'fusion_norm': switch(False, 'a norm of the features before the fusion'),
  'model': MODEL,
  # How the simulator runs; cannot change results.
  'layout': name(
    'auto',
    'layouts',
    'of clients on accelerators; tune: by trial (runs/tuner.py)',
  ),
  'buckets': whole(
    1,
    1,
    10**4,
    'programs for clients of like sensors, at most (engine/buckets.py); only '
    'in layouts other than `one` and where everybody takes part; 1: one for '
    'all',
  ),
  'devices': whole(
    0, 0, 1024, '0: all accelerators, or one virtual device per core'
  ),
  # Values (traced).
  'hparams': {
    'client_lr': real(0.05, 0, 1000, 'local learning rate'),
    'client_momentum': real(
      0.9, 0, 1, 'client_optimizer=momentum: of the local steps', below=True
    ),
    'server_lr': real(1.0, 0, 1000, "of the server's optimiser"),
    'ema': real(0.5, 0, 1, 'weight of the newest value in running divergences'),
    'prox': real(0.01, 0, LARGE, 'fedprox: of its penalty'),
    'clip_norm': real(
      0.0, 0, 1e9, "L2 norm of a client's update at most; 0: any"
    ),
    'noise_multiplier': real(
      0.0, 0, LARGE, 'privacy.noise: its standard deviation, in clip_norms'
    ),
    'lr_decay': real(
      1.0, 0, 1, 'lr_schedule=exponential, step: a factor of the local rate'
    ),
    'lr_floor': real(0.0, 0, 1000, 'that the local rate falls to'),
    'lr_every': real(
      0.0, 0, MANY, 'lr_schedule=step: between two falls', 'rounds'
    ),
    'lr_warmup': real(
      0.0, 0, MANY, 'in which the local rate rises first', 'rounds'
    ),
  },
  'update_similarity': whole(
    0,
    0,
    MANY,
    'first rounds in which updates are compared in pairs '
    '(rounds/similarity.py); 0: none',
  ),
  'target_f1': real(0.8, 0, 1, 'for rounds, seconds and joules to target'),
  'target': real(
    0.0, 0, LARGE, 'likewise, a perplexity or RMSE; 0: none is reached'
  ),
}
