"""A ResNet-8 in Flax as a model of your own, on your own images.

    np.savez('images.npz', x=images, y=labels, subject=person,
             modality=['image'] * 3)  # x [n, 32, 32, 3]
    relief run --config=relief --workdir=runs/resnet --config.dataset=npz \\
        --config.data_path=images.npz --config.data.split=folds \\
        --config.data.folds=5 --config.fleet=three_tiers --config.clients=100 \\
        --config.backbone=examples/resnet.py:resnet8

The same with `relief sweep relief` for `relief run --config=relief`, and with
`--sweep.hparams.client_lr=.02,.05 --workers=2`: two rates, a process each.
"""

from functools import partial

from flax import nnx

from relief_jax import models

Conv = partial(nnx.Conv, conv_general_dilated=models.convolution)


class Block(nnx.Module):
  def __init__(self, before, after, stride, rngs):
    conv = partial(Conv, use_bias=False, rngs=rngs)
    norm = partial(nnx.GroupNorm, after, num_groups=8, rngs=rngs)
    self.first, self.norm = conv(before, after, (3, 3), stride), norm()
    self.second, self.last = conv(after, after, (3, 3)), norm()
    self.skip = conv(before, after, (1, 1), stride)

  def __call__(self, x):
    y = self.second(nnx.relu(self.norm(self.first(x))))
    return nnx.relu(self.skip(x) + self.last(y))


def resnet8(spec, widths=(16, 16, 32, 64)):
  stem = partial(Conv, 3, widths[0], (3, 3))
  blocks = [
    partial(Block, a, b, 1 if i == 0 else 2)
    for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
  ]
  head = partial(nnx.Linear, widths[-1], spec.classes)
  chain = [stem, *blocks, lambda x: x.mean((1, 2)), head]
  return models.from_flax(chain, spec)
