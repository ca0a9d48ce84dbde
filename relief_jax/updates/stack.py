"""Orders the treatments of updates in a run."""

from relief_jax.settings import Setting
from relief_jax.updates import clip, faults, link, noise, transform


def stack(setting: Setting, links: link.Links) -> transform.Transform:
  """Builds the chain of a run's updates, in the only order that is used.

  Args:
    setting: of the round.
    links: of it.
  """
  guard, parts = setting.guard, []
  if guard.faults.kind:
    parts.append(faults.inject_faults(guard.faults))
  if guard.drop:
    parts.append(clip.mark_nonfinite())
  if guard.clip:
    parts.append(clip.clip_update())
  if guard.noise == 'device':
    parts.append(noise.add_noise())
  if not links.up.lossless:
    code = link.coded(links.up)
    parts.append(link.error_feedback(code) if links.feedback else code)
  return transform.chain(*parts)
