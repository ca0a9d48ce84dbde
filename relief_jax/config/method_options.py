"""Holds the options of each method, rows of the table in `table.py`."""

from typing import Any

from relief_jax.config.keys import LARGE, MANY, name, real, switch, whole

_DENOMINATOR = 'a group is averaged over those who trained it, or over '
_MASKED = name(
  'zero', ('zero', 'inf', 'off'), 'logits of classes that a device lacks'
)

METHODS: dict[str, Any] = {
  # RELIEF (relief.md section 3) and options beyond the paper (section 8).
  'relief': {
    'rule': name('greedy', 'relief rules', 'how groups are selected'),
    'norm': name(
      'per_param',
      ('per_param', 'raw', 'relative', 'cosine'),
      'of the divergence',
    ),
    'max_stale': whole(
      0, 0, MANY, 'a group is then trained whatever it costs; 0: never'
    ),
    'shrinkage': switch(False, 'of cohort means towards the global mean'),
    'denominator': name(
      'contributors',
      ('contributors', 'cohort'),
      _DENOMINATOR + 'all who own its sensor',
    ),
    'confidence': switch(
      False, 'cohort means weighted by it (parts/sensor_confidence.py)'
    ),
    'beta': real(2.0, 0, LARGE, 'of the confidence, as in qqr_style'),
    'start': whole(5, 0, MANY, 'of the confidence, as in qqr_style', 'rounds'),
  },
  # Options of the other methods, each explained in its own file.
  'centralized': {
    'sensors': name(
      'fleet', ('fleet', 'complete'), 'on in a step: of a device drawn, or all'
    ),
  },
  'fedpmt': {
    'depth': name('budget', ('budget', 'cycle'), 'how deep a device trains'),
    'side': name(
      'output',
      ('output', 'input'),
      'trained from: output, or input (prefix training)',
    ),
  },
  'depthfl': {
    'exits': name(
      'all', ('all', 'last'), 'trained by a device; last: InclusiveFL'
    ),
    'distill': switch(True, 'exits teach each other'),
    'fade': real(
      0.3, 0, 1, 'share of the rounds over which that fades in; 0: at once'
    ),
  },
  'feddrop': {
    'rate': name('fit', ('fit', 'sqrt'), 'how a budget becomes a dropout rate'),
    'exact': switch(
      False, 'a fixed number of units per layer: Federated Dropout'
    ),
    'denominator': name(
      'contributors', ('contributors', 'all'), _DENOMINATOR + 'all'
    ),
    'scale': switch(True, 'activations by 1 / (1 - rate)'),
  },
  'fedel': {
    'beta': real(
      0.6, 0, 1, "of a device's own importance; the rest is everybody's"
    ),
  },
  'fedmfs_style': {
    'shapley': real(1 / 3, 0, LARGE, 'weight of it in the score'),
    'size': real(1 / 3, 0, LARGE, 'weight of it in the score'),
    'recency': real(1 / 3, 0, LARGE, 'weight of it in the score'),
    'top': whole(0, 0, 8, 'modalities trained at most; 0: what fits'),
  },
  'harmony': {
    'alone': real(
      2 / 3, 0, 1, 'share of the rounds in which each modality trains alone'
    ),
    'encoder_lr': real(1e-4, 0, 10, 'of the encoders, afterwards'),
    'members': whole(
      5, 1, MANY, 'devices per cluster of a combination of sensors'
    ),
  },
  'heterofl': {
    'masked': _MASKED,
    'scale': switch(True, 'activations by 1 / share'),
  },
  'fedrolex': {
    'masked': _MASKED,
    'scale': switch(True, 'activations by 1 / share'),
  },
  'fiarse': {
    'threshold': name(
      'model',
      ('model', 'layer'),
      'the largest weights of the model, or of every layer',
    ),
    'flops': name('kept', ('kept', 'dense'), 'that are charged'),
  },
  'flism': {
    'contrast': switch(True, 'of two views of a batch'),
    'temperature': real(0.1, 1e-3, 1000, 'of the contrast'),
    'noise': real(0.7, 0, 1000, 'deviation, in the second view'),
    'entropy': switch(True, 'devices count by 1 / entropy'),
    'floor': real(0.1, 1e-6, 1000, 'entropies below it count as it', 'nats'),
    'kd': real(1.0, 0, 1000, "of the teacher's term; 0: no teacher"),
  },
  'pmm': {
    'substitute': switch(True, 'a prototype for what is missing; False: PM'),
    'owners': switch(
      False, 'encoders are averaged over those whose sensor delivers'
    ),
    'means': switch(False, 'prototypes are means of device means (eq. 16)'),
    'bits': name(32, 'prototype bits', 'of what is sent of a prototype'),
    'refresh': whole(
      1, 1, MANY, 'from one building of prototypes to the next', 'rounds'
    ),
  },
  'qqr_style': {
    'beta': real(2.0, 0, LARGE, 'confidence falls so fast with dispersion'),
    'start': whole(5, 0, MANY, 'before sensors are told apart', 'rounds'),
    'confidence': switch(True, 'weighs updates'),
    'weighted': switch(True, 'prototypes are weighted by it'),
    'align': real(
      0.05, 0, LARGE, 'of the distance to prototypes in the loss; 0: off'
    ),
    'mix': switch(
      False, 'doubtful features towards the prototype; leaks the label'
    ),
    'substitute': switch(
      False, 'prototypes for what is missing; leaks the label'
    ),
  },
  'tfedavg': {
    'mode': name('twn', 'ternary modes', 'its threshold'),
    'exempt': name(
      'ends',
      ('ends', 'none', 'all'),
      'full precision: first and last layer; none, all',
    ),
    'lost': real(
      0.2, 0, 1, 'relative error at most for a ternary broadcast; 0: none'
    ),
  },
}
