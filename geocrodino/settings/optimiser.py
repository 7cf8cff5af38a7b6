"""Settings of the optimiser."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class OptimiserSettings(BaseModel):
    """AdamW with one cycle of the learning rate.

    The learning rate rises along a cosine from 1/25 of the highest value, then falls to nearly 0. During the same cycle
    the decay of the gradient's first moment goes from 0.95 to 0.85 and back.

    References:
        Loshchilov & Hutter (2019). Decoupled weight decay regularization. https://arxiv.org/abs/1711.05101
        Smith & Topin (2018). Super-convergence. https://arxiv.org/abs/1708.07120
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    gradient_norm: float = Field(1.0, gt=0, description="largest norm of the gradient, separately for each network")
