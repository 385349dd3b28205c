"""Draw many pictures into a folder, several requests at a time; `genserve generate` does more. Writes bulk/.

python examples/bulk.py [http://127.0.0.1:8080] [100]
"""

import base64
import sys
from pathlib import Path

from genserve.drawing.client import answers

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
n = int(sys.argv[2]) if len(sys.argv) > 2 else 100
requests = (
    {"seed": 5, "first_index": k, "num_samples": min(16, n - k), "format": "json"} for k in range(0, n, 16)
)
folder = Path("bulk")
folder.mkdir(exist_ok=True)
for answer in answers(f"{server}/predictions/diffusion", requests, in_flight=8):  # waits out a busy server
    for image in answer["images"]:
        (folder / f"{image['index'] + 1:05}.png").write_bytes(base64.b64decode(image["png"]))
print(f"{n} pictures in {folder}/")
