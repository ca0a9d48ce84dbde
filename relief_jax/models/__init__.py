"""Builds models: one file each, `Spec -> Task`."""

from relief_jax.models import cnn, lora

MODELS = {'cnn': cnn.cnn, 'lora': lora.lora}
