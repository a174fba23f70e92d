"""Browser work without Celery: what a job says, and the engine that does it."""
