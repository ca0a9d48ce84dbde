"""One device: its windows, sensors and local training."""
