"""Settings of the optimiser."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class OptimiserSettings(BaseModel):
    """AdamW with one cycle of the learning rate.

    ``encoder_rate`` and ``layer_decay`` lower the rate of encoders that start from weights (``encoder_weights`` or
    ``start_from``). All other layers learn at the full rate.

    The learning rate rises along a cosine from 1/25 of the highest value, then falls to nearly 0. During the same cycle
    the decay of the gradient's first moment goes from 0.95 to 0.85 and back.

    References:
        Howard & Ruder (2018). Universal language model fine-tuning for text classification (a lower rate for earlier
        layers). https://arxiv.org/abs/1801.06146
        Loshchilov & Hutter (2019). Decoupled weight decay regularization. https://arxiv.org/abs/1711.05101
        Smith & Topin (2018). Super-convergence. https://arxiv.org/abs/1708.07120
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(2e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    encoder_rate: float = Field(
        0.3, gt=0, le=1, description="share of the learning rate for encoders that start from weights"
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor on the learning rate of each earlier stage of such an encoder, once more for each stage",
    )
    gradient_norm: float = Field(1.0, gt=0, description="largest norm of the gradient, separately for each network")
