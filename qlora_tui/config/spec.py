"""The base of every part of a RunConfig: frozen, unknown keys refused, the docstring under a field is its help."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen part of the configuration. Unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )
