"""Models: one file each, `Spec -> Task`."""

from relief_jax.models.cnn import cnn
from relief_jax.models.lora import lora

MODELS = {'cnn': cnn, 'lora': lora}
