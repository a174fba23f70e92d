"""A stand-in for a hosted, metered Redis: a real one behind a proxy that behaves like the service.

Real TLS with an authority of its own, a count of requests with a limit, and the faults such a
service has, switched while it runs (`HostedRedis`, or `python -m lab.hosted`). For the tests and
the lab; the product knows nothing of it. Standard library only, like the rest of the lab.

What it assumes of Upstash is written beside each assumption, with its source. None of it was
compared with the service itself.
"""

from lab.hosted.certificates import Certificates, make_certificates
from lab.hosted.service import HostedRedis

__all__ = ["Certificates", "HostedRedis", "make_certificates"]
