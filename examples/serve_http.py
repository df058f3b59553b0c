"""Serve a policy that export.py wrote over HTTP: pip install 'offline-cql[serve]'

    python examples/serve_http.py RUN/policy.onnx --port 8000
    curl localhost:8000/act -H 'content-type: application/json' -d '{"observation": [0.1, 0, 0.5]}'

POST /act takes {"observation": …}, as examples/serve_policy.py reads one, or {"observations": […]},
and answers {"action": …} or {"answers": […]}; an invalid observation is status 422, with a reason.
GET /policy describes the policy, GET /docs the interface.
"""

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any

from serve_policy import ServedPolicy, open_policy, summarize

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException
    from pydantic import BaseModel, ConfigDict, Field, model_validator
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed; run: pip install 'offline-cql[serve]'")

MOST_OBSERVATIONS = 10_000  # of one request

Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Value = Number | Flag | Annotated[str, Field(strict=True)] | None
Observation = list[Number] | dict[str, Value]


class Request(BaseModel):
    """One observation, or several."""

    model_config = ConfigDict(extra="forbid")
    observation: Observation | None = None
    observations: Annotated[list[Observation], Field(max_length=MOST_OBSERVATIONS)] | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> "Request":
        if (self.observation is None) == (self.observations is None):
            raise ValueError("send either observation or observations")
        return self


def make_app(policy: ServedPolicy) -> FastAPI:
    """Return the application that answers with a policy."""
    app = FastAPI(title="A policy", description=summarize(policy.description))

    @app.post("/act")
    async def act(request: Request) -> dict[str, Any]:
        if request.observations is not None:
            return {"answers": policy.answer_batch(request.observations)}
        try:
            return policy.act(request.observation)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error

    @app.get("/policy")
    async def describe() -> dict[str, Any]:
        return policy.description

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("policy", type=Path, help="policy.onnx, with policy.json beside it")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for other machines")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seed", type=int, help="seed of a sampled policy")
    arguments = parser.parse_args()
    policy = open_policy(arguments.policy, arguments.seed)
    uvicorn.run(make_app(policy), host=arguments.host, port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
