"""Watch four pictures appear: one line of JSON per frame. Writes frame-00.png and so on, the pictures last.

python examples/stream.py [http://127.0.0.1:8080]
"""

import base64
import json
import sys
from pathlib import Path

import requests

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
fields = {"num_samples": 4, "seed": 1, "sampler": "ddim", "steps": 200, "frames": 8, "stream": "jsonl"}
with requests.post(f"{server}/predictions/diffusion", json=fields, stream=True, timeout=60) as reply:
    reply.raise_for_status()
    for k, line in enumerate(filter(None, reply.iter_lines())):  # leaving early frees the place at the server
        frame = json.loads(line)
        Path(f"frame-{k:02}.png").write_bytes(base64.b64decode(frame["preview"]))
        print(f"frame-{k:02}.png: noise level {frame['sigma']:.3g} after {frame['nfe']} evaluations")
