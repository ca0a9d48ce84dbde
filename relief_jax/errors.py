"""One error for bad input: what was found, what was expected, the cure."""


class InputError(ValueError):
  """Raised at the door, before any long work starts.

  >>> raise InputError('3 windows', 'at least 8', 'lower --config.clients')
  Traceback (most recent call last):
    ...
  relief_jax.errors.InputError: Found 3 windows; expected at least 8. \
Usual cure: lower --config.clients.
  """

  def __init__(self, found: str, expected: str, cure: str):
    super().__init__(f'Found {found}; expected {expected}. Usual cure: {cure}.')


def unknown(kind: str, name: str, known) -> InputError:
  """The error for a name that a registry does not hold."""
  return InputError(
    f'unknown {kind} {name!r}',
    f'one of {", ".join(sorted(known))}',
    'check the spelling',
  )
