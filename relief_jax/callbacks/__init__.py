"""Callbacks: own metrics, early stopping, trackers of experiments."""

from relief_jax.callbacks.early_stopping import EarlyStopping as EarlyStopping
from relief_jax.callbacks.metrics import Metrics as Metrics
from relief_jax.callbacks.trackers import MLflow as MLflow
from relief_jax.callbacks.trackers import WandB as WandB
from relief_jax.storage.callback import Callback as Callback
