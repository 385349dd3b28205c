"""Ask an energy how familiar a noisy picture is, and for the picture without its noise. Writes restored.png.

python examples/restore.py [http://127.0.0.1:8080] [docs/images/noisy.png]
"""

import sys
from pathlib import Path

import requests

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
noisy = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/images/noisy.png").read_bytes()
energy = f"{server}/predictions/energy"
score = requests.post(energy, files={"images": noisy}, timeout=60)
score.raise_for_status()
for picture in score.json()["images"]:
    print(f"energy {picture['energy']:.1f}: more than {picture['rank']:.0%} of the training images")
restored = requests.post(energy, files={"images": noisy}, data={"task": "restore", "sigma": 0.5}, timeout=60)
restored.raise_for_status()
Path("restored.png").write_bytes(restored.content)
print(f"restored.png: energy {restored.headers['X-Energy']}")
