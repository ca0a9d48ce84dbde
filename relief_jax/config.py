"""The configuration of a run: every key and its default.

A config is a locked `ml_collections.ConfigDict`. What changes a shape or a
branch of the program is a plain key (static); what changes a value only lives
under `hparams` and is traced: sweeping it recompiles nothing.
"""

import ml_collections


def default() -> ml_collections.ConfigDict:
  """Every key with its default.

  >>> config = default()
  >>> config.rounds = 10
  >>> config.hparams.client_lr
  0.05
  """
  c = ml_collections.ConfigDict()
  # What is run.
  c.method = 'relief'
  c.dataset = 'auto'  # dsads where its files are found, else synthetic
  c.data_path = ''  # the file of dataset=npz, your own data
  c.backbone = 'cnn'  # cnn: all parameters; lora: frozen base
  c.seed = 0
  # The world.
  c.clients = 48
  c.clients_per_round = 0  # 0: everybody
  c.fleet = 'four_tiers'  # a name, or the path of your own .csv or .json
  c.fleet_coupling = 1.0  # of speed and sensors: 1 nested, 0 independent
  c.partition = 'contiguous'  # contiguous, subject, dirichlet
  c.alpha = 0.5  # concentration of `dirichlet`
  c.quantity_skew = 0.0  # deviation of the log of a device's windows; 0: even
  c.min_windows = 1  # of every device
  c.reuse = 0  # > 0: devices share windows, so many each on average (skew.py)
  # How much sensors differ between devices (shift.py); 0: not at all.
  c.shift = dict(
    gain=0.0,
    bias=0.0,
    noise=0.0,
    jitter=0.0,
    clip=0.0,
    gap=0.0,
    gone=0.0,
    share=0.0,  # of the sensors that are faulty; 0: all of them, unequally
    period=0.0,  # rounds over which faults come and go; 0: they stay
  )
  # What changes from round to round (online/); all off.
  c.online = dict(
    # Windows arrive in a buffer of the newest ones (streams.py).
    stream=dict(
      buffer=0,  # windows that a device keeps; 0: all, from the start
      arrive=20,  # new ones a round
      spread=0.0,  # deviation of the log of that, between devices
      drift=0.0,  # of the class mix: 0 even, 1 class after class
      delay=0,  # rounds from a window to its label
    ),
    # Sensors that deliver nothing for a round (missing.py).
    missing=dict(
      kind='off',  # off, each, one, fleet, bursts
      rate=0.0,  # probability
      spread=0.0,  # beta-distributed between clients; 0: the same
      length=5.0,  # kind=bursts: mean rounds of an outage
      outage='',  # planned: 'acc:20-40', no acc in rounds 20 to 39
      struck=1.0,  # share of the owners that it strikes
    ),
    # Devices that are away (presence.py).
    presence=dict(
      kind='off',  # off, each, diurnal, stays, trace
      rate=1.0,  # probability of being there
      spread=0.0,  # as above
      period=24.0,  # kind=diurnal: rounds in a day
      length=5.0,  # kind=stays: mean rounds away
      path='',  # kind=trace: CSV of 0 and 1, a line a round
    ),
    # Processors and links of the day (radio.py).
    pace=dict(
      slowdown=0.0,  # deviation of the log of a device's speed
      fading=0.0,  # deviation of the log of a link's bandwidth
      loss=0.0,  # probability that a packet is sent again
      wait=0.0,  # server's patience, in median planned times; 0: no end
      late='lost',  # what comes later: lost, partial
    ),
  )
  c.data = dict(
    modalities='sensor',  # by sensor (acc, gyro, ...) or by body place
    # 'acc;gyro=arm_gyro_*': which channels, in which order of modalities
    # (datasets/channels.py); '' for the data set's own.
    channels='',
    optional=False,  # pamap2: the six optional activities too
    download=False,  # fetch a data set that is not there
    rate=0.0,  # Hz, resampled to; 0: as recorded
    max_gap=0.5,  # s; NaN for longer cut a run, shorter are interpolated
    width=125,  # samples in a window
    stride=125,  # samples between window starts
    split='subjects',  # subjects, folds, time, official: splits.py
    test_subjects=(7, 8),  # split=subjects
    folds=0,  # split=folds: parts that the persons are dealt to; 0: one each
    fold=0,  # split=folds: the part to test on
    test_share=0.25,  # split=time: the end of every run
    own_share=0.2,  # of every training run, kept for a device's own test
    validation_subjects=(),  # on no device, to choose values by
    public_subjects=1,  # set aside to pretrain a frozen base (lora only)
    rare='',  # the modality that `f1_rare_*` are about; '': fewest owners
  )
  c.synthetic = dict(
    subjects=12,
    modalities=3,
    channels=3,
    classes=8,
    windows_per_class=24,  # per subject
    noise=1.0,
    style=0.5,  # per-subject shift of every signal
  )
  # Training.
  c.rounds = 60
  c.rounds_per_call = 5
  c.eval_every = 5
  c.checkpoint_every = 0  # rounds; 0: at the end and when interrupted
  c.local_steps = 5
  c.local_epochs = 0  # > 0 replaces local_steps
  c.batch = 32
  c.weight = 'uniform'  # of a client in the mean: uniform, samples
  c.server_optimizer = 'sgd'  # sgd, momentum, adam, yogi
  c.keep_client_state = False  # momentum stays on the device between rounds
  # What links code models with (links.py, compressors/).
  codec = dict(
    name='none',  # none, int8, int4, int2, ternary, sign, top_k, random_k
    share=0.05,  # top_k, random_k: of the numbers that are sent
    mode='twn',  # ternary: twn, released
    scaled=True,  # random_k: by 1 / share, unbiased; False allows a memory
    memory='auto',  # auto, on, off: of what did not arrive (links.py)
  )
  c.uplink_codec = codec  # of updates; memory: error feedback on the device
  c.downlink_codec = dict(codec)  # memory: the model's change is sent
  # Clients that diverge or lie (guard.py, robust.py).
  c.nonfinite = 'stop'  # updates that are not: stop the run, drop them
  c.mean = 'mean'  # of a cohort's updates: mean, median, trimmed
  c.trim = 0.2  # trimmed: share of the values cut off on either side
  c.faults = dict(
    share=0.0,  # of the clients that lie, drawn from the seed
    kind='nan',  # what they send: nan, flip (negated), noise
    scale=1.0,  # flip, noise: norm of it, in norms of the true update
  )
  # Cost.
  c.deadline = 'tight'  # tight, full, none or a number (relief.md section 5)
  c.deadline_end = ''  # '' or as `deadline`: rise linearly over the run
  c.over_budget = 'refuse'  # device below its own forward pass: refuse, sit_out
  c.idle_power = False  # charge devices for waiting
  # Absent modalities: the method's own default where ''.
  c.fill = ''  # input, skip
  c.fill_value = 'mean'  # mean (0 after z-scoring), zero (physical zero)
  # RELIEF (relief.md section 3) and options beyond the paper (section 8).
  c.relief = dict(
    rule='greedy',
    norm='per_param',  # per_param, raw, relative, cosine
    max_stale=0,  # 0: no guard
    shrinkage=False,
    denominator='contributors',  # contributors, cohort
    confidence=False,  # cohort means weighted by it (quality.py)
    beta=2.0,  # of the confidence, as in qqr_style
    start=5,
  )
  # Options of the other methods, each explained in its own file.
  c.centralized = dict(
    sensors='fleet',  # on in a step: of a device drawn; complete: all
  )
  c.fedpmt = dict(
    depth='budget',  # budget, cycle
    side='output',  # trained from: output, or input (prefix training)
  )
  c.depthfl = dict(
    exits='all',  # trained by a device: all, last (InclusiveFL)
    distill=True,  # exits teach each other
    fade=0.3,  # share of the rounds over which that fades in; 0: at once
  )
  c.feddrop = dict(
    rate='fit',  # fit, sqrt
    exact=False,  # a fixed number of units per layer: Federated Dropout
    denominator='contributors',  # contributors, all
    scale=True,  # activations by 1 / (1 - rate)
  )
  c.fedel = dict(beta=0.6)  # of a device's own importance; the rest is all's
  c.fedmfs_style = dict(
    shapley=1 / 3,  # weights of the score
    size=1 / 3,
    recency=1 / 3,
    top=0,  # modalities trained at most; 0: what fits
  )
  c.harmony = dict(
    alone=2 / 3,  # share of the rounds in which each modality trains alone
    encoder_lr=1e-4,  # of the encoders, afterwards
    members=5,  # devices per cluster of a combination of sensors
  )
  c.heterofl = dict(
    masked='zero',  # logits of classes a device lacks: zero, inf, off
    scale=True,  # activations by 1 / share
  )
  c.fedrolex = dict(masked='zero', scale=True)  # as heterofl
  c.fiarse = dict(
    threshold='model',  # the largest weights of the model, or of every layer
    flops='kept',  # charged: kept, dense
  )
  c.flism = dict(
    contrast=True,  # of two views of a batch
    temperature=0.1,  # of the contrast
    noise=0.7,  # deviation, in the second view
    entropy=True,  # devices count by 1 / entropy
    floor=0.1,  # nats, entropies below it count as it
    kd=1.0,  # of the teacher's term; 0: no teacher
  )
  c.pmm = dict(
    substitute=True,  # a prototype for what is missing; False: PM
    owners=False,  # encoders are averaged over those whose sensor delivers
    means=False,  # prototypes are means of device means (eq. 16)
    bits=32,  # of what is sent of a prototype: 2, 4, 8, 32
    refresh=1,  # rounds from one building of prototypes to the next
  )
  c.qqr_style = dict(
    beta=2.0,  # confidence falls so fast with dispersion
    start=5,  # rounds before sensors are told apart
    confidence=True,  # weighs updates
    weighted=True,  # prototypes are weighted by it
    align=0.05,  # of the distance to prototypes in the loss; 0: off
    mix=False,  # doubtful features towards the prototype; leaks the label
    substitute=False,  # prototypes for what is missing; leaks the label
  )
  c.tfedavg = dict(
    mode='twn',  # twn, released
    exempt='ends',  # full precision: first and last layer; none, all
    lost=0.2,  # relative error at most for a ternary broadcast; 0: none
  )
  c.modality_dropout = 0.0
  c.fusion_norm = False
  # Model.
  c.model = dict(
    filters=(32, 64),
    kernel=5,
    stride=2,
    hidden=128,
    fusion='concat',  # concat, attention (cnn without fusion_norm)
    heads=4,  # of the attention; they share `hidden` out
    rank=8,
    lora_alpha=16.0,
    groups='split',  # split, joint, layer (always with early exits)
    base='pretrained',  # lora: pretrained, random
    base_steps=300,
    adapters=False,  # lora: adapters inside the encoders too
    cache_features=True,  # lora without adapters
  )
  # How the simulator runs; cannot change results.
  # auto, tune (tuner.py), one, block:<clients>, all; @<devices> after a name
  c.layout = 'auto'
  # Programs for clients of like sensors, at most (buckets.py); only in layouts
  # other than `one` and where everybody takes part. 1: one for all.
  c.buckets = 1
  c.devices = 0  # 0: all accelerators, or one virtual device per core
  # Values (traced).
  c.hparams = dict(
    client_lr=0.05,
    client_momentum=0.9,
    server_lr=1.0,
    ema=0.5,
    prox=0.01,
    clip_norm=0.0,  # L2 norm of a client's update at most; 0: any
    lr_decay=1.0,  # of the local rate, a factor every round
    lr_floor=0.0,  # that it falls to
  )
  # First rounds in which updates are compared in pairs (cosines.py); 0: none.
  c.cosines = 0
  c.target_f1 = 0.8  # for rounds, seconds and joules to target
  c.lock()
  return c


def get(config: ml_collections.ConfigDict, key: str):
  """The value under a dotted key."""
  for part in key.split('.'):
    config = config[part]
  return config
