"""Shows the examples of a docstring as code on the API page (for Griffe)."""

import griffe


def fenced(text: str) -> str:
  """Puts paragraphs that begin with >>> into fences.

  >>> print(fenced('Adds.'))
  Adds.
  """
  parts = text.split('\n\n')
  return '\n\n'.join(
    f'```pycon\n{part}\n```' if part.lstrip().startswith('>>>') else part
    for part in parts
  )


class Doctests(griffe.Extension):
  """Rewrites the docstrings that Griffe reads."""

  def on_object(self, *, obj, **kwargs) -> None:
    """Is called for every function, class and module.

    Args:
      obj: that was read.
      **kwargs: of no use here.
    """
    if obj.docstring:
      obj.docstring.value = fenced(obj.docstring.value)
