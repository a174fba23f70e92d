"""Analysis of markup without Celery and without a browser."""
