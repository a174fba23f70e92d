"""What the sections of a payload have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Selector = Annotated[str, Field(min_length=1, max_length=2000)]
"""Any selector of Playwright: CSS, `text=...`, `xpath=...`, `role=...`."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Seconds = Annotated[float, Field(gt=0, le=300)]


class Part(BaseModel):
    """A piece of a payload: immutable, and strict about types and fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class SecretReference(Part):
    """Stands for a text that only workers know, so that it never lies in Redis."""

    secret: SecretName
    """Name of a secret of type `text`."""


SecretText = Annotated[str, Field(max_length=100_000)] | SecretReference


class Doing(Part):
    """One thing to do on the page."""

    name: Name | None = None
    """Key of its value in `data`, and its name in the result's `steps`; the kind when not given."""
    optional: bool = False
    """Its failure does not end the job: the status is then `partial`."""
    timeout_s: Seconds | None = None
    """Seconds it may take; `limits.step_timeout_s` when not given."""
