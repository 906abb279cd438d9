"""Tags: written genres can be read, nothing else changes, and undo restores every byte."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TALB, TCON, TIT2, TYER

from musicclass.cli import library as cli
from musicclass.errors import ConfigError, LibraryError
from musicclass.library import binary_delta, raw_tags, tags
from musicclass.library.corrections import Corrections
from musicclass.library.genre_tags import TagError, read_genres
from musicclass.library.run import ScanOptions
from musicclass.library.tags import TagChange, TagMode, TagOptions
from musicclass.workers import TaskFailure
from tests.conftest import make_music
from tests.test_audio import encode, write_songs

SUFFIXES = ("mp3", "m4a", "opus", "wma", "wv", "flac", "ogg", "wav", "aiff")
RESTORED, ALREADY, CHANGED = "", "already restored", "changed since by another program; not restored"


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> dict[str, Path]:
    return write_songs(tmp_path_factory.mktemp("songs"), SUFFIXES, 6)


@pytest.fixture
def song(songs, tmp_path):
    """Makes a copy of the song in one format."""
    return lambda suffix: str(shutil.copy(songs[suffix], tmp_path))


@pytest.fixture
def journal(tmp_path) -> Path:
    return tmp_path / "journal"


def change_genres(journal: Path, path: str, before: tuple[str, ...], after: tuple[str, ...], **options) -> None:
    with tags.open_journal(journal) as file:
        tags.apply_change(TagChange(path, before, after), file, **options)


def tag_values(path: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in (mutagen.File(path).tags or {}).items()}


# One file


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("with_title", [False, True])
def test_undo_restores_every_byte_in_every_format(song, tmp_path, journal, suffix, with_title):
    path = song(suffix)
    if with_title:
        file = mutagen.File(path, easy=True)
        if file.tags is None:
            file.add_tags()
        key = {"wma": "Title", "wv": "Title"}.get(suffix, "title")
        file[key] = TIT2(3, ["A title"]) if suffix in ("wav", "aiff") else "A title"
        file.save()
    before, audio, modified = Path(path).read_bytes(), tags.audio_hash(path), os.stat(path).st_mtime_ns
    others = tag_values(path)
    change_genres(journal, path, (), ("Hip-Hop", "Jazz"))
    assert read_genres(path) == ("Hip-Hop", "Jazz"), "as separate values"
    assert tags.audio_hash(path) == audio
    assert len(tag_values(path)) == len(others) + 1 and others.items() <= tag_values(path).items()
    change_genres(journal, path, ("Hip-Hop", "Jazz"), ("Ré🎵",), keep_mtime=True)
    assert read_genres(path) == ("Ré🎵",)
    assert list(tags.undo(journal)) == [(path, RESTORED), (path, RESTORED)]
    assert Path(path).read_bytes() == before and os.stat(path).st_mtime_ns == modified
    assert [reason for _, reason in tags.undo(journal)] == [ALREADY, ALREADY]
    assert sorted(os.listdir(tmp_path)) == ["journal", f"song.{suffix}"], "no temporary file is left"


def test_id3v23_links_and_permissions_stay(song, tmp_path, journal):
    path, link = song("mp3"), tmp_path / "link.mp3"
    os.chmod(path, 0o640)
    link.symlink_to(path)
    old = ID3()
    for frame in (TIT2(1, ["title"]), TALB(1, ["album"]), TYER(0, ["1999"]), TCON(0, ["(8)"])):
        old.add(frame)
    old.save(path, v2_version=3, v1=2)
    assert read_genres(path) == ("Jazz",), "the name of ID3v1 genre 8"
    change_genres(journal, str(link), ("Jazz",), ("Jazz", "Blues"))
    new = ID3(path, translate=False)
    assert new.version == (2, 3, 0) and new["TYER"].text == ["1999"] and new["TALB"].text == ["album"]
    assert read_genres(path) == ("Jazz", "Blues")
    assert link.is_symlink() and stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_genres_are_read_from_an_mp3s_ape_tag_and_a_wavs_info_chunk(song, tmp_path):
    ape = APEv2()
    ape["Genre"] = "Zydeco"
    ape.save(song("mp3"))
    wav = str(tmp_path / "info.wav")
    with av.open(wav, "w") as container:
        container.metadata["genre"] = "Zydeco"
        stream = container.add_stream("pcm_s16le", rate=22_050, layout="mono")
        frame = av.AudioFrame.from_ndarray((make_music(2) * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 22_050
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert read_genres(str(tmp_path / "song.mp3")) == read_genres(wav) == ("Zydeco",)


def test_unsafe_changes_are_refused(song, journal, monkeypatch):
    path = song("mp3")
    before = Path(path).read_bytes()
    for place, name, fake, message in (
        (tags, "audio_hash", lambda name: name, "would change its audio"),
        (tags.os, "access", lambda *_: False, "no permission to write"),
    ):
        with monkeypatch.context() as patch, pytest.raises(TagError, match=message):
            patch.setattr(place, name, fake)
            change_genres(journal, path, (), ("Jazz",))
    with pytest.raises(TagError, match="changed in the meantime"):
        change_genres(journal, path, ("Blues",), ("Jazz",))
    crash = TaskFailure("crashed", "its decoder crashed")
    with pytest.raises(TagError, match=f"{path}: its decoder crashed"):
        change_genres(journal, path, (), ("Jazz",), make_copy=lambda order: crash)
    assert Path(path).read_bytes() == before and not journal.exists(), "an empty journal is deleted"
    with tags.copy_worker(60, 1e9) as make_copy:
        change_genres(journal, path, (), ("Jazz",), make_copy=make_copy)
        with pytest.raises(TagError, match="in the meantime"):
            change_genres(journal, path, (), ("Blues",), make_copy=make_copy)
    assert list(tags.undo(journal)) == [(path, RESTORED)] and Path(path).read_bytes() == before


def test_files_without_readable_tags(tmp_path):
    for name, content in (("a.mp3", b""), ("b.flac", b"fLaC" + b"\0" * 99), ("c.au", b".snd" + b"\0" * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TagError, match=name):
            read_genres(str(tmp_path / name))
    encode(tmp_path / "d.aac", make_music(3, 44_100), 44_100, "aac")
    with pytest.raises(TagError, match="no tags that musicclass can write"):
        read_genres(str(tmp_path / "d.aac"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "e.mp3")
        with pytest.raises(TagError, match="not a regular file"):
            read_genres(str(tmp_path / "e.mp3"))


def test_links_and_copies_of_killed_runs(song, tmp_path, journal):
    path, link, hard = song("mp3"), tmp_path / "link.mp3", tmp_path / "x" / "hard.mp3"
    link.symlink_to(path)
    proposed = dict(tags.propose_changes([str(tmp_path)], TagOptions(min_confidence=0), ScanOptions(workers=1)))
    assert "the same file as" in proposed[path].reason and isinstance(proposed[str(link)], TagChange)
    old = tmp_path / f".musicclass-{2**22 + 1}-abc.mp3"
    old.touch()
    tags._remove_old_copies.cache_clear()
    change_genres(journal, path, (), ("Jazz",))
    assert not old.exists(), "no process has that number"
    hard.parent.mkdir()
    hard.hardlink_to(path)
    with pytest.raises(TagError, match="2 hard links"):
        change_genres(journal, path, ("Jazz",), ("Blues",))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_interrupt_as_ctrl_c_does(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), cli._signals_interrupt():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


# The journal


def test_undo_keeps_later_changes_of_other_programs(song, journal):
    changed, other = song("mp3"), song("flac")
    for path in (changed, other):
        change_genres(journal, path, (), ("Jazz",))
    file = mutagen.File(changed)
    file.tags.add(TIT2(3, ["since"]))
    file.save()
    content = Path(changed).read_bytes()
    assert dict(tags.undo(journal)) == {changed: CHANGED, other: RESTORED}
    assert Path(changed).read_bytes() == content
    Path(other).unlink()
    assert "can't be restored" in dict(tags.undo(journal))[other]


def test_truncated_and_invalid_journals(song, journal, tmp_path):
    path = song("flac")
    before = Path(path).read_bytes()
    change_genres(journal, path, (), ("Jazz",))
    with journal.open("a") as file:
        file.write('{"path": "/music/x.mp3", "ol')
    assert list(tags.undo(journal)) == [(path, RESTORED)] and Path(path).read_bytes() == before
    journal.write_text('{"path": "/music/x.mp3", "ol')
    change_genres(journal, path, (), ("Jazz",))
    results = list(tags.undo(journal))
    assert results[0] == (path, RESTORED) and "line 1" in results[1][1] and Path(path).read_bytes() == before
    journal.write_text('{"path": 1}\n{}')
    with pytest.raises(LibraryError, match="line 1"):
        list(tags.undo(journal))
    (tmp_path / "song.mp3").write_bytes(b"\xff\xfb")
    with pytest.raises(LibraryError, match="isn't a journal"), tags.open_journal(tmp_path / "song.mp3"):
        pass
    assert (tmp_path / "song.mp3").read_bytes() == b"\xff\xfb"
    for name, message in (("missing", "No such file"), ("song.mp3", "not a journal")):
        with pytest.raises(LibraryError, match=message):
            list(tags.undo(tmp_path / name))


def test_delta_restores_any_two_files():
    rng = random.Random(0)
    for _ in range(200):
        old = rng.randbytes(rng.randrange(5000))
        new = bytearray(old)
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(new) + 1)
            new[at : at + rng.randrange(40)] = rng.randbytes(rng.randrange(60))
        steps = json.loads(json.dumps(binary_delta.to_json(binary_delta.diff(old, bytes(new)))))
        assert b"".join(binary_delta.patch(binary_delta.from_json(steps), bytes(new))) == old
    audio, cover = rng.randbytes(3_000_000), rng.randbytes(500_000)
    old = b"ID3" + b"genre" + cover + b"\0" * 1000 + audio + b"TAG" + b"\0" * 125
    new = b"ID3" + cover + b"another genre, longer" + audio + b"TAG" + b"\1" * 125
    steps = list(binary_delta.diff(old, new))
    assert len(json.dumps(binary_delta.to_json(steps))) < 2_000, "moved parts are found"
    assert b"".join(binary_delta.patch(steps, new)) == old


# Which genres are written


@pytest.mark.parametrize(
    ("mode", "before", "predicted", "after"),
    [
        (TagMode.only_missing, ("Jazz",), ("blues",), ("Jazz",)),
        (TagMode.only_missing, (), ("blues",), ("blues",)),
        (TagMode.append, ("Jazz",), ("jazz", "blues"), ("Jazz", "blues")),
        (TagMode.append, ("Jazz",), ("jazz",), ("Jazz",)),
        (TagMode.append, ("Rap; Hiphop",), ("Hip-Hop",), ("Rap; Hiphop",)),
        (TagMode.replace, ("Jazz",), ("blues",), ("blues",)),
    ],
)
def test_combined_genres(mode, before, predicted, after):
    assert tags.combine_genres(before, predicted, mode) == after


def test_genre_names(tmp_path):
    path = tmp_path / "names.toml"
    path.write_text('hiphop = "Rap"\n')
    assert tags.load_genre_names(path, ["hiphop", "jazz"]) == {"hiphop": "Rap", "jazz": "Jazz"}
    assert tags.load_genre_names(None, ["rnb", "zouk"]) == {"rnb": "R&B"}
    for text, message in (('hipop = "x"', "hipop"), ("hiphop = 1", "needs a name"), ("hiphop", "TOML")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            tags.load_genre_names(path, ["hiphop", "jazz"])


def test_weak_genres_are_not_written(classifier):
    model, row = classifier.model, {"status": "ok", "error": "", "familiarity": 0.9, "top_genre": "rock"}
    row |= {f"prob_{genre}": 0.0 for genre in model.genres}
    for rock, metal, options, expected in (
        (0.45, 0.4, {}, None),
        (0.45, 0.4, {"min_confidence": 0.4}, ("rock",)),
        (0.6, 0.3, {"top": 2}, ("rock", "metal")),
        (0.9, 0.1, {"top": 2}, ("rock",)),
        (0.9, 0.1, {"top": 2, "min_further": 0.1}, ("rock", "metal")),
    ):
        values = row | {"confidence": rock, "prob_rock": rock, "prob_metal": metal}
        change = tags.propose_change("a.mp3", values, (), model, TagOptions(**options))
        assert getattr(change, "after", None) == expected


def test_proposed_changes(song, tmp_path, journal, classifier):
    mp3, flac, ogg = map(song, ("mp3", "flac", "ogg"))
    change_genres(journal, ogg, (), ("Zydeco",))
    ranked, options = list(classifier.predict(flac).probabilities), ScanOptions(workers=1)
    proposed = dict(tags.propose_changes([str(tmp_path)], TagOptions(min_confidence=0, top=2, min_further=0), options))
    assert proposed[flac] == TagChange(flac, (), tuple(ranked[:2])) and isinstance(proposed[mp3], TagChange)
    assert proposed[ogg].reason.endswith("has Zydeco")
    proposed = dict(tags.propose_changes([flac], TagOptions(min_confidence=1), options))
    assert "unknown" in proposed[flac].reason, "unknown is never written"
    named = TagOptions(TagMode.append, min_confidence=0, names={ranked[0]: "Mine"})
    proposed = dict(tags.propose_changes([flac, ogg], named, options))
    assert proposed[flac].after == ("Mine",) and proposed[ogg].after[0] == "Zydeco"


def test_command_line(song, tmp_path, monkeypatch, run):
    music, table = tmp_path / "music", tmp_path / "genres.jsonl"
    (tmp_path / "empty").mkdir()
    music.mkdir()
    path = Path(shutil.move(song("mp3"), music))
    before = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    library = ("library", music, "-o", table, "--segments")
    assert run(*library)[0] == 0
    code, out, err = run("tag", music, "--min-confidence", 0, "--library", table)
    assert code == 0 and "none -> " in out and "--write" in err and "1 of 1 file already done" in err
    Corrections(table).write([(str(path), "rock")], "shoegaze")
    assert "none -> shoegaze" in run("tag", music, "--library", table)[1], "a correction wins"
    assert "1 of 1 file already done" in run(*library)[2]
    assert path.read_bytes() == before
    code, _, err = run("tag", music, "--min-confidence", 0, "--write")
    (journal,) = tmp_path.glob("musicclass-tags-*.journal")
    assert code == 0 and len(read_genres(str(path))) == 1 and f"--undo {journal.name}" in err
    assert run("tag", "--undo", journal)[0] == 0 and path.read_bytes() == before
    code, _, err = run("tag", "--undo", journal)
    assert code == 0 and "0 changes undone, 1 already restored, 0 skipped; nothing is left to undo" in err
    journal.unlink()
    code, _, err = run("tag", music, "--min-confidence", 1, "--write")
    assert code == 0 and "0 files changed, 1 skipped" in err and "undo" not in err
    assert not list(tmp_path.glob("musicclass-tags-*")), "nothing changed, so there is nothing to undo"
    assert "no audio files" in run("tag", tmp_path / "empty")[2]
    (music / "broken.mp3").write_bytes(b"no music")
    code, _, err = run("tag", music, "--min-confidence", 0)
    assert code == 1 and "1 failed" in err
    for arguments, message in (
        (["--undo", journal, music], "only a journal"),
        ([], "give a folder"),
        ([music, "--append", "--replace"], "choose one"),
        ([tmp_path / "missing"], "no such file"),
        ([music, "--library", tmp_path / "missing.csv"], "not a table"),
    ):
        code, out, err = run("tag", *arguments)
        assert code == 2 and message in err and "would" not in err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_corrections_count_for_tags_and_reports(song, tmp_path, run):
    paths, table = [song("flac"), song("wav")], tmp_path / "genres.csv"
    (tmp_path / "genres.csv.corrections.csv").write_text(f"track,genre,predicted\n{paths[0]},hiphop,jazz\n")
    report = tmp_path / "r.html"
    assert run("library", *paths, "-o", table, "--report", report)[0] == 0
    text = report.read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert {row[0]: row[1] for row in data["rows"]}[paths[0]] == "hiphop" and "<span>hiphop</span>" in text
    _, out, _ = run("tag", *paths, "--library", table, "--min-confidence", 1)
    assert out.splitlines() == [f"{paths[0]}: none -> Hip-Hop"]


def test_changes_are_in_the_journal_though_printing_fails(song, tmp_path):
    path = Path(song("mp3"))
    before = path.read_bytes()
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "musicclass", "tag", str(path), "--min-confidence", "0", "--write"]
        command += ["--journal", "journal"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "No space left" in done.stderr and "--undo journal" in done.stderr
    assert len(read_genres(str(path))) == 1
    assert dict(tags.undo(tmp_path / "journal")) == {str(path): RESTORED} and path.read_bytes() == before


# Tags, read raw


def raw_frames(tag: bytes) -> list[tuple[bytes, bytes]]:
    """The name and content of each frame of an ID3v2 tag that isn't the genre."""
    body = tag[10:].replace(b"\xff\0", b"\xff") if tag[3] < 4 and tag[5] & 0x80 else tag[10:]
    frames = list(raw_tags._frames(body, 0, tag[3]))
    return [(name, body[start:end]) for name, start, end in frames if name not in (b"TCO", b"TCON")]


def make_id3(version: int, frames: list[tuple[bytes, bytes]], padding: int, flags: int = 0) -> bytes:
    parts = []
    for name, value in frames:
        name = name[:3] if version == 2 else name
        size = raw_tags._to_syncsafe(len(value)) if version == 4 else len(value).to_bytes(3 + (version > 2), "big")
        parts.append(name + size + (b"" if version == 2 else b"\x20\0" if name == b"TXXX" else b"\0\0") + value)
    body = b"".join(parts)
    if flags & 0x80:
        body = re.sub(rb"\xff(?=[\0\xe0-\xff])", b"\xff\0", body)
    body += bytes(padding)
    return b"ID3" + bytes([version, 0, flags]) + raw_tags._to_syncsafe(len(body)) + body


@pytest.mark.parametrize(("version", "flags"), [(2, 0), (3, 0), (3, 0x80), (4, 0)])
@pytest.mark.parametrize("padding", [0, 2000])
@pytest.mark.parametrize("genre", [b"\0Old", None])
def test_only_the_genre_frame_changes(song, version, flags, padding, genre, journal):
    frames = [(b"TSOP", b"\0sort"), (b"TIT2", b"\x01\xff\xfeA\0"), (b"TCON", genre), (b"TXXX", b"\0x\0y")]
    frames += [(b"PRIV", b"\xff\xff\0\xe0" * 300), (b"ZZZZ", b"unknown")]
    tag = make_id3(version, [frame for frame in frames if frame[1]], padding, flags)
    path = Path(song("mp3"))
    audio = path.read_bytes()[len(raw_tags.read_id3(str(path))) :]
    path.write_bytes(tag + audio)
    before = read_genres(str(path))
    assert before == (("Old",) if genre else ())
    if version < 4:
        change_genres(journal, str(path), before, ("Hip-Hop", "Pop"), separator="; ")
        assert read_genres(str(path)) == ("Hip-Hop; Pop",)
    for after in (("Hip-Hop", "Jazz"), ("\u0416",)):
        change_genres(journal, str(path), read_genres(str(path)), after)
        new = raw_tags.read_id3(str(path))
        assert new[3] == version and raw_frames(new) == raw_frames(tag) and read_genres(str(path)) == after
        assert path.read_bytes() == new + audio
    list(tags.undo(journal))
    assert path.read_bytes() == tag + audio


def test_id3v1_and_ape_tags_stay_what_they_are(song, journal):
    path = Path(song("mp3"))
    audio = path.read_bytes()[len(raw_tags.read_id3(str(path))) :]
    v1 = b"TAG" + "Группа крови".encode("cp1251").ljust(124, b"\0") + b"\x11"
    path.write_bytes(audio + v1)
    change_genres(journal, str(path), ("Rock",), ("Hip-Hop",))
    assert path.read_bytes() == audio + v1[:-1] + b"\x07", "no ID3v2 tag of mojibake"
    with pytest.raises(TagError, match="no number for Zydeco"):
        change_genres(journal, str(path), ("Hip-Hop",), ("Zydeco",))
    ape = APEv2()
    ape["Genre"], ape["Title"] = "Old", "A title"
    ape.save(path)
    path.write_bytes(path.read_bytes() + v1)
    change_genres(journal, str(path), read_genres(str(path)), ("Zydeco",))
    assert path.read_bytes().startswith(audio[:4]) and path.read_bytes()[-1] == 255
    assert dict(APEv2(path)) == {"Genre": "Zydeco", "Title": "A title"}


@pytest.mark.parametrize(("suffix", "name"), [("flac", "mp3"), ("mp3", "flac"), ("ogg", "mp3"), ("wav", "flac")])
def test_tags_are_found_by_content(song, tmp_path, journal, suffix, name):
    path = str(Path(song(suffix)).rename(tmp_path / f"other.{name}"))
    change_genres(journal, path, (), ("Jazz",))
    assert read_genres(path) == ("Jazz",)


def test_replaced_genres_are_replaced_in_a_wavs_info_chunk(song, journal):
    path = Path(song("wav"))
    data = path.read_bytes()
    chunk = b"LIST" + struct.pack("<I", 28) + b"INFOIGNR" + struct.pack("<I", 3) + b"Old\0INAM" + b"\x04\0\0\0Name"
    chunk = chunk[:4] + struct.pack("<I", len(chunk) - 8) + chunk[8:]
    path.write_bytes(data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:] + chunk)
    before = path.read_bytes()
    change_genres(journal, str(path), ("Old",), ("Electronic",))
    assert b"Old" not in path.read_bytes() and b"IGNR\x0b\0\0\0Electronic\0\0INAM" in path.read_bytes()
    assert struct.unpack("<I", path.read_bytes()[4:8])[0] == path.stat().st_size - 8
    assert list(tags.undo(journal)) == [(str(path), RESTORED)] and path.read_bytes() == before
