"""The payload of a browser task: pydantic models that refuse what they do not know."""

from swarm.browse.payload.job import BrowserJob, parse_browser_job

__all__ = ["BrowserJob", "parse_browser_job"]
