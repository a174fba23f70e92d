"""The process behind `celery-<pool>@N`: configuration, lifecycle, status, metrics."""
