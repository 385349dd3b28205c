"""Ask a server by KServe's own client and print the answers as JSON; run where kserve is installed."""

import asyncio
import json
import sys
from typing import Any

from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def calls(address: str, token: str | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    first, second = (InferenceRESTClient(RESTConfig(protocol=version)) for version in ("v1", "v2"))
    instances = [{"seed": 1, "num_samples": 1}, {"seed": 2, "num_samples": 1}, {"seed": -1}]
    predicted = await first.infer(address, {"instances": instances}, "diffusion", headers=headers)
    seven = {"images": {"b64": sys.stdin.read()}}
    explained = await first.explain(address, "energy", {"instances": [seven]}, headers=headers)
    seed = InferInput("seed", [2], "INT64", data=[1, 2])
    one = InferInput("num_samples", [1], "INT64", data=[1])
    batch = InferRequest("diffusion", [seed, one], "7")
    tensors = await second.infer(address, batch, "diffusion", headers=headers)
    wrong = InferInput("seed", [2], "INT64", data=[1, -2])
    try:
        await second.infer(address, InferRequest("diffusion", [wrong], "8"), "diffusion", headers=headers)
        refused = ""
    except Exception as error:
        refused = str(error)
    await first.close()
    await second.close()
    return {
        "predicted": predicted["predictions"],
        "explained": explained["explanations"],
        "tensors": {output.name: output.data for output in tensors.outputs},
        "id": tensors.id,
        "model": tensors.model_name,
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(calls(sys.argv[1], (sys.argv[2:] or [None])[0]))))
