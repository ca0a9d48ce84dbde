"""The keys of models, `config.model`."""

from typing import Any

from relief_jax.keys import (
  LARGE,
  MANY,
  name,
  names,
  real,
  switch,
  text,
  whole,
  wholes,
)

MODEL: dict[str, Any] = {
  'filters': wholes((32, 64), 1, 'of the layers of an encoder', 1, 10**5),
  'kernel': whole(5, 1, 10**4, 'of the convolutions', 'samples'),
  'stride': whole(2, 1, 10**4, 'of the convolutions', 'samples'),
  'hidden': whole(128, 1, 10**6, 'units behind the fusion'),
  'fusion': name(
    'concat',
    ('concat', 'mean', 'attention', 'dual_health_style', 'experts'),
    'of modalities (docs/fusion.md); all but concat: cnn; fusion_norm: concat '
    'and experts',
  ),
  'heads': whole(4, 1, 10**4, 'of the attention; they share `hidden` out'),
  # Of fusion=dual_health_style.
  'dual': {
    'past': whole(
      3, 0, 100, 'before a window, of its moving average; 0: none', 'windows'
    ),
    'newest': real(
      0.5, 0, 1, 'weight of the newest in that average', above=True
    ),
    'temperature': real(1.0, 0, LARGE, 'of the weights', above=True),
    'align': real(0.05, 0, LARGE, 'weight of the distance to prototypes'),
  },
  # Of fusion=experts, or of the transformer; groups are one per expert and the
  # gate.
  'experts': {
    'number': whole(8, 1, 1000, 'E, experts of the mixture'),
    'top': whole(2, 1, 1000, 'k, experts that a sample is routed to'),
    'width': whole(
      0, 0, 10**6, 'units inside of an expert; 0: twice what it reads'
    ),
    'balance': real(0.01, 0, LARGE, 'weight of the balance loss'),
    'blocks': whole(
      0, 0, 1000, 'last ones of the transformer whose MLP is a mixture'
    ),
  },
  'rank': whole(8, 1, 10**4, 'of adapters'),
  'lora_alpha': real(16.0, 0, LARGE, 'adapters count alpha / rank'),
  'groups': name(
    'split',
    ('split', 'joint', 'layer'),
    'of parameters trained together; early exits: always layer',
  ),
  'base': name('pretrained', ('pretrained', 'random'), 'the frozen base'),
  'base_steps': whole(1000, 0, MANY, 'of its pretraining'),
  'base_dropout': real(
    0.5, 0, 1, 'of whole modalities, while the base is trained', below=True
  ),
  'base_head': switch(
    False, 'pretrained: its head is the first head; else a fresh one'
  ),
  'adapters': switch(False, 'lora: adapters inside the encoders too'),
  'cache_features': switch(True, 'lora without adapters'),
  # The transformer; its groups are `layer` (attention and MLP apart) or one
  # per block.
  'transformer': {
    'preset': name(
      'sensor', 'transformers', 'its sizes (models/transformer.py)'
    ),
    'd': whole(0, 0, 10**4, "width; 0: the preset's"),
    'blocks': whole(0, 0, 1000, "0: the preset's"),
    'heads': whole(0, 0, 1000, "that share the width out; 0: the preset's"),
    'patch': whole(
      0,
      0,
      10**4,
      "of a token; 0: as many tokens as the preset's, of images 4 pixels",
      'samples',
    ),
  },
  'lora': names(
    (),
    'linear layers of the transformer with adapters, on a frozen base: all, '
    "q, k, v, o, up, down, embed, or patterns such as 'blocks/[01]/q'; "
    'none: all parameters train',
  ),
  'weights': text(
    '',
    'a .safetensors file that the transformer starts from, or with adapters '
    'its frozen base',
  ),
}
