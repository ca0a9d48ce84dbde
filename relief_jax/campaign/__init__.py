"""Many runs: comparisons and sweeps, their points and worker processes."""
