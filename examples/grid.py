"""Ask a server for one picture of sixteen sevens, and for what it depends on. Writes sevens.png.

python examples/grid.py [http://127.0.0.1:8080]
"""

import sys
from pathlib import Path

import requests

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
reply = requests.post(
    f"{server}/predictions/diffusion",
    json={"label": 7, "num_samples": 16, "seed": 1, "scale": 2},  # every field is optional
    timeout=60,
)
if reply.status_code != 200:
    sys.exit(reply.json()["error"])  # names the field and what is allowed
Path("sevens.png").write_bytes(reply.content)
print(f"sevens.png: seed {reply.headers['X-Seed']}, {reply.headers['X-NFE']} network evaluations per image")
