"""What whoever starts the app decides: where it listens, what it allows, where its files go."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

LOCAL = "127.0.0.1"


class AppSettings(BaseModel):
    """Settings of one server.

    Attributes:
        host, port: Where it listens.
        root_path: The path a proxy serves it under, such as /zoo.
        auth: User names and passwords; empty lets everybody in who reaches the port.
        outputs: The only folder that is served.
        keep_hours: Images older than this are removed.
        models: The checkpoints to offer; empty for all.
        device, dtype: Of every pipeline.
        waiting: Requests that may wait for the device; what comes beyond is refused.
        max_images: Of one request.
        max_work: Images x steps of one request.
        max_evaluation: Images x steps of an evaluation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    host: str = LOCAL
    port: int = Field(7860, ge=0, le=65535)
    root_path: str = ""
    auth: list[tuple[str, str]] = []
    outputs: Path = Path("outputs") / "app"
    keep_hours: float = Field(24, gt=0)
    models: list[str] = []
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    waiting: int = Field(8, ge=0)
    max_images: int = Field(64, ge=1)
    max_work: int = Field(20_000, ge=1)
    max_evaluation: int = Field(20_000_000, ge=1)

    @field_validator("outputs")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().resolve()

    @field_validator("root_path")
    @classmethod
    def _from_the_root(cls, path: str) -> str:
        if path and not path.startswith(("/", "http://", "https://")):
            raise ValueError("starts with / (or is a whole http address)")
        return path.rstrip("/")
