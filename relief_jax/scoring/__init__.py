"""What models are trained to predict, and how well they do: kinds, metrics."""
