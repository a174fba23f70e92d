"""Celery's two extension points: how messages are taken and how results are committed."""
