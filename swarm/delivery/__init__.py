"""Delivery that loses nothing: a kombu transport and a result backend for Celery on Redis."""
