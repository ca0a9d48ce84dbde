"""Bytes and values that break parsers.

Where is drawn from a `random.Random`; what guides it may stand behind it.
"""

import random

TOKENS = (
  '-1 0 1e999999999 1e-999999999 nan inf -inf 0x1f 1_0 None true null NaN '
  '1/0 0/1 3/2 ../../etc/passwd /dev/zero all acc acc+acc + ; , : " \' \\ '
  '{ } [ ] {} [] [[[[[ %s ${x} \x00 \ufeff \u202e é \ud7ff '
  '9999999999999999999999 1e308 1e400 -0.0 .5 5. 1,5 block:0 @0 @-1 @9999'
).split(' ')
TOKENS += ['9' * 5000, '[' * 100_000, '{"a":' * 3000, 'x' * 200_000, '\n', '']


def mutated(rng: random.Random, data: bytes) -> bytes:
  """Changed in one to four places."""
  data = bytearray(data)
  for _ in range(rng.randint(1, 4)):
    at = rng.randrange(len(data) + 1)
    to = min(len(data), at + rng.choice((1, 2, 8, 100, len(data))))
    kind = rng.randrange(6)
    if kind == 0 and at < len(data):
      data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
      del data[at:to]
    elif kind == 2:
      data[at:at] = data[at:to]
    elif kind == 3:
      data[at:at] = rng.randbytes(rng.randint(1, 9))
    elif kind == 4:
      token = rng.choice(TOKENS).encode('utf-8', 'surrogatepass')
      data[at : rng.choice((at, to))] = token
    else:
      del data[at:]
  return bytes(data)


def value(rng: random.Random, depth: int = 0):
  """A value that JSON knows, mostly an odd one."""
  kind = rng.randrange(10 if depth < 2 else 8)
  if kind < 3:
    return rng.choice((0, -1, 1, 2, 3, 7, 10**6, 2**31, 2**63, -(2**70)))
  if kind < 5:
    odd = (0.0, -0.5, 0.5, 1e-300, 1e300, float('nan'), float('inf'))
    return rng.choice(odd)
  if kind == 5:
    return rng.choice((True, False, None, ''))
  if kind < 8:
    return rng.choice(TOKENS[:-5])
  if kind == 8:
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
  return {str(value(rng, 2)): value(rng, depth + 1) for _ in range(2)}
