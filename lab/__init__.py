"""The lab: Debian hosts with real systemd and sshd on this machine, for the demo and the tests.

Standard library only, so that it runs before anything is installed.
"""
