"""A browser-automation swarm on bare VMs."""

__version__ = "0.1.0"
