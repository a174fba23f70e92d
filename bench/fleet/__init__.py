"""The scaler's daemon over SSH to a thousand simulated hosts: `make bench-fleet`.

The daemon is its unit's, and so is all that it hears: SSH with a key for each host, the protocol of
`swarm-unitctl`, answers like Flower's. The hosts are other processes on this machine, so that what
they take is not the daemon's; of a host only sshd, systemd and the instances are simulated.
"""
