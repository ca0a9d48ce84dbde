"""Worlds that change from round to round: streams, failing sensors, links.

Every process is a pure function of (seed, round, client id): no state is
carried, any round can be looked at alone, and a cohort costs what it has and
not what the fleet has. `conditions.take` puts them together: the fleet of a
round is a `types.Fleet` in which `owned` holds what the sensors deliver,
`samples` the labelled windows in the buffer (0 for who is away), `speed` and
the links what they are worth today, so that every method, every cost and every
budget works in the online world without any code for it.

A process that is off is None and not in the program at all.
"""
