"""Works for a pool of processes: see `relief_jax.campaign.worker`."""

from relief_jax.campaign import worker

if __name__ == '__main__':
  worker.main()
