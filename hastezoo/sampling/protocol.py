"""The Protocol: every setting that decides which images come out of a checkpoint, and so which FID."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# What the package's own solvers are, known without loading torch. A solver that a user registered is looked up.
STOCHASTIC = {"euler": False, "heun": False, "dopri5": False, "euler-maruyama": True, "stochastic-heun": True}
DiffusionForm = Literal["linear", "sigma", "sbdm", "constant"]
LastStep = Literal["mean", "euler", "tweedie", "none"]


class Protocol(BaseModel):
    """How images are drawn.

    Attributes:
        solver: A registered solver.
        steps: Integration steps (dopri5 ignores them).
        cfg: Scale of classifier-free guidance; 1 is none.
        interval: (low, high) of guidance in our time, where 0 is data.
        channels: Guide only so many channels; None for all.
        diffusion: Form of g^2 for the SDE solvers; diffusion_norm is its factor.
        last_step: How an SDE ends; last_step_size is its length in time.
        start: First time; 1, or below 1 for `sbdm`.
        rtol, atol: Tolerances of dopri5.
        labels: How labels are drawn where none are asked for: uniformly at random, or balanced over classes.
        rounding: Pixels to bytes: "truncate" is floor(255 (x + 1) / 2) (REPA, HASTE), "nearest" is
            floor(127.5 x + 128) (original SiT).
        count: Images of an evaluation under this protocol, where it states one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    solver: str = "euler-maruyama"
    steps: int = Field(250, ge=1)
    cfg: float = Field(1.0, ge=0)
    interval: tuple[float, float] = (0.0, 1.0)
    channels: int | None = Field(None, ge=1)
    diffusion: DiffusionForm = "linear"
    diffusion_norm: float = Field(1.0, ge=0)
    last_step: LastStep = "mean"
    last_step_size: float = Field(0.04, gt=0, lt=1)
    start: float = Field(1.0, gt=0, le=1)
    rtol: float = Field(1e-6, gt=0)
    atol: float = Field(1e-6, gt=0)
    labels: Literal["random", "balanced"] = "random"
    rounding: Literal["truncate", "nearest"] = "truncate"
    count: int | None = Field(None, ge=1)

    @property
    def stochastic(self) -> bool:
        """Whether the solver follows the SDE."""
        if self.solver in STOCHASTIC:
            return STOCHASTIC[self.solver]
        from hastezoo.sampling.solvers import find_solver

        return find_solver(self.solver).stochastic

    @field_validator("solver")
    @classmethod
    def _is_registered(cls, name: str) -> str:
        if name not in STOCHASTIC:
            from hastezoo.sampling.solvers import find_solver

            find_solver(name)
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval ({low:g}, {high:g}) is not 0 <= low <= high <= 1")
        if self.stochastic and self.diffusion == "sbdm" and self.start == 1:
            raise ValueError("diffusion sbdm is infinite at t = 1; set start below 1, such as 0.999")
        if self.stochastic and self.last_step != "none" and self.last_step_size >= self.start:
            raise ValueError(f"last_step_size {self.last_step_size:g} is not below start {self.start:g}")
        return self
