"""`make chaos`: tasks of every kind on the lab while everything under them breaks.

A program of its own, as `lab` and `bench` are, and not a test: it takes a seed, tells its story
while it runs, and its last line is one JSON object. What decides (schedule, work, witness, waits)
is pure; what breaks things (faults, proxy, deployed_lab) knows nothing of what is right.
"""
