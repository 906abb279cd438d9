"""Tags: what is written can be read, nothing else changes, and everything can be taken back."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TALB, TCON, TIT2, TYER

from musicclass.errors import ConfigError, LibraryError
from musicclass.library import delta, tags
from musicclass.library.run import Options
from musicclass.library.tags import Change, Mode, TagError, Tagging
from musicclass.library.workers import Failure
from tests.conftest import make_music
from tests.test_audio import encode

CODECS = {"mp3": "libmp3lame", "m4a": "aac", "opus": "libopus", "wma": "wmav2", "wv": "wavpack"}
ENDINGS = (*CODECS, "flac", "ogg", "wav", "aiff")


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    folder, music = tmp_path_factory.mktemp("songs"), make_music(6, 48_000)
    for ending, codec in CODECS.items():
        encode(folder / f"song.{ending}", music, 48_000, codec)
    for ending in ("flac", "ogg", "wav", "aiff"):
        soundfile.write(folder / f"song.{ending}", music, 48_000)
    return folder


@pytest.fixture
def song(songs, tmp_path):
    """A copy of the song in one format."""

    def copy(ending: str, name: str = "song") -> str:
        return str(shutil.copy(songs / f"song.{ending}", tmp_path / f"{name}.{ending}"))

    return copy


def write(change: Change, journal: Path, **more) -> None:
    with journal.open("a", encoding="utf-8") as notes:
        tags.write(change, notes, **more)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_there_and_back(song, tmp_path, ending):
    path, journal = song(ending), tmp_path / "journal"
    before, audio, modified = Path(path).read_bytes(), tags.audio_hash(path), os.stat(path).st_mtime_ns
    write(Change(path, (), ("Hip-Hop", "Jazz")), journal)
    assert tags.read_genres(path) == ("Hip-Hop", "Jazz"), "as separate values"
    assert tags.audio_hash(path) == audio
    write(Change(path, ("Hip-Hop", "Jazz"), ("Ré🎵",)), journal, keep_time=True)
    assert tags.read_genres(path) == ("Ré🎵",)
    assert list(tags.undo(journal)) == [(path, ""), (path, "")]
    assert Path(path).read_bytes() == before and os.stat(path).st_mtime_ns == modified
    assert [why for _, why in tags.undo(journal)] == ["was changed since; left as it is", "is as it was"]
    assert sorted(os.listdir(tmp_path)) == ["journal", f"song.{ending}"], "nothing is left behind"


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_tags_stay(song, tmp_path, ending):
    path = song(ending)
    easy = mutagen.File(path, easy=True)
    if easy.tags is None:
        easy.add_tags()
    key = {"wma": "Title", "wv": "Title"}.get(ending, "title")
    easy[key] = TIT2(3, ["A title"]) if ending in ("wav", "aiff") else "A title"
    easy.save()
    before = {str(k): str(v) for k, v in (mutagen.File(path).tags or {}).items()}
    write(Change(path, (), ("Jazz",)), tmp_path / "journal")
    after = {str(k): str(v) for k, v in mutagen.File(path).tags.items()}
    assert len(after) == len(before) + 1 and before.items() <= after.items()


def test_id3v23_stays_id3v23(song, tmp_path):
    path = song("mp3")
    old = ID3()
    for frame in (TIT2(1, ["title"]), TALB(1, ["album"]), TYER(0, ["1999"]), TCON(0, ["(8)"])):
        old.add(frame)
    old.save(path, v2_version=3, v1=2)
    assert tags.read_genres(path) == ("Jazz",), "numbers are names"
    write(Change(path, ("Jazz",), ("Jazz", "Blues")), tmp_path / "journal")
    new = ID3(path, translate=False)
    assert new.version == (2, 3, 0) and new["TYER"].text == ["1999"] and new["TALB"].text == ["album"]
    assert tags.read_genres(path) == ("Jazz", "Blues")


def test_genres_in_an_mp3s_ape_tag_count(song):
    path = song("mp3")
    ape = APEv2()
    ape["Genre"] = "Zydeco"
    ape.save(path)
    assert tags.read_genres(path) == ("Zydeco",)


def test_plan():
    had = ("Jazz", "Soul")
    assert tags.plan("x", had, ["blues"], Mode.only_missing) is None
    assert tags.plan("x", (), ["blues"], Mode.only_missing) == Change("x", (), ("blues",))
    assert tags.plan("x", had, ["jazz", "blues"], Mode.append) == Change("x", had, (*had, "blues"))
    assert tags.plan("x", had, ["jazz"], Mode.append) is None
    assert tags.plan("x", had, ["blues"], Mode.replace) == Change("x", had, ("blues",))
    assert tags.plan("x", had, list(had), Mode.replace) is None


def test_undo_leaves_what_others_have_changed(song, tmp_path):
    path, other, journal = song("mp3"), song("flac"), tmp_path / "journal"
    for name in (path, other):
        write(Change(name, (), ("Jazz",)), journal)
    mutated = mutagen.File(path)
    mutated.tags.add(TIT2(3, ["since"]))
    mutated.save()
    mine = Path(path).read_bytes()
    told = dict(tags.undo(journal))
    assert "changed since" in told[path] and told[other] == ""
    assert Path(path).read_bytes() == mine
    Path(other).unlink()
    assert "restored" in dict(tags.undo(journal))[other]


def test_a_journal_cut_off_or_none(song, tmp_path):
    path, journal = song("flac"), tmp_path / "journal"
    before = Path(path).read_bytes()
    write(Change(path, (), ("Jazz",)), journal)
    with journal.open("a") as file:
        file.write('{"path": "/music/x.mp3", "ol')
    assert list(tags.undo(journal)) == [(path, "")] and Path(path).read_bytes() == before
    journal.write_text('{"path": 1}\n{}')
    with pytest.raises(LibraryError, match="line 1"):
        list(tags.undo(journal))
    journal.write_text('{"path": "/music/x.mp3", "ol')
    with tags.open_journal(journal) as notes:
        tags.write(Change(path, (), ("Jazz",)), notes)
    told = list(tags.undo(journal))
    assert told[0] == (path, "") and "line 1" in told[1][1] and Path(path).read_bytes() == before
    with pytest.raises(LibraryError, match="can't be read"):
        list(tags.undo(tmp_path / "none"))


def test_files_that_must_not_be_written(song, tmp_path, monkeypatch):
    path = song("mp3")
    before = Path(path).read_bytes()
    monkeypatch.setattr(tags, "audio_hash", lambda name: name)  # as if writing had changed the audio
    with pytest.raises(TagError, match="would change its audio"):
        write(Change(path, (), ("Jazz",)), tmp_path / "journal")
    monkeypatch.undo()
    monkeypatch.setattr(tags.os, "access", lambda *_: False)
    with pytest.raises(TagError, match="may not be written"):
        write(Change(path, (), ("Jazz",)), tmp_path / "journal")
    monkeypatch.undo()
    assert Path(path).read_bytes() == before
    with pytest.raises(TagError, match="changed meanwhile"):
        write(Change(path, ("Blues",), ("Jazz",)), tmp_path / "journal")
    for name, content in (("a.mp3", b""), ("b.flac", b"fLaC" + b"\0" * 99), ("c.au", b".snd" + b"\0" * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TagError, match=name):
            tags.read_genres(str(tmp_path / name))
    encode(tmp_path / "d.aac", make_music(3, 44_100), 44_100, "aac")
    with pytest.raises(TagError, match="no tags of a kind"):
        tags.read_genres(str(tmp_path / "d.aac"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "e.mp3")
        with pytest.raises(TagError, match="not a regular file"):
            tags.read_genres(str(tmp_path / "e.mp3"))


def test_a_crash_while_the_copy_is_made_harms_nothing(song, tmp_path):
    path, journal = song("flac"), tmp_path / "journal"
    before = Path(path).read_bytes()
    with pytest.raises(TagError, match=f"{path}.*crashed"):
        write(Change(path, (), ("Jazz",)), journal, prepare=lambda order: Failure("crashed", "its decoder crashed"))
    with tags.preparing(60, 1e9) as prepare:
        write(Change(path, (), ("Jazz",)), journal, prepare=prepare)
        with pytest.raises(TagError, match="meanwhile"):
            write(Change(path, (), ("Blues",)), journal, prepare=prepare)
    assert tags.read_genres(path) == ("Jazz",)
    assert list(tags.undo(journal)) == [(path, "")] and Path(path).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["journal", "song.flac"]


def test_genres_in_the_info_of_a_wav_count(tmp_path):
    path = tmp_path / "info.wav"
    with av.open(str(path), "w") as container:
        container.metadata["genre"] = "Zydeco"
        stream = container.add_stream("pcm_s16le", rate=22_050, layout="mono")
        frame = av.AudioFrame.from_ndarray((make_music(2) * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 22_050
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert tags.read_genres(str(path)) == ("Zydeco",)


def test_links_and_rights_stay(song, tmp_path):
    path = song("mp3")
    os.chmod(path, 0o640)
    link = tmp_path / "link.mp3"
    link.symlink_to(path)
    write(Change(str(link), (), ("Jazz",)), tmp_path / "journal")
    assert link.is_symlink() and tags.read_genres(path) == ("Jazz",)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_map(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text('hiphop = "Hip-Hop"\n')
    assert tags.load_map(path, ["hiphop", "jazz"]) == {"hiphop": "Hip-Hop"}
    assert tags.load_map(None, []) == {}
    for text, message in (('hipop = "x"', "hipop"), ("hiphop = 1", "needs a name"), ("hiphop", "TOML")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            tags.load_map(path, ["hiphop", "jazz"])


def test_proposals(song, tmp_path, classifier):
    paths = {ending: song(ending) for ending in ("mp3", "flac", "ogg")}
    write(Change(paths["ogg"], (), ("Zydeco",)), tmp_path / "journal")
    told = classifier.predict(paths["flac"])
    ranked, options = list(told.probabilities), Options(workers=2)
    found = dict(tags.propose([str(tmp_path)], Tagging(min_confidence=0, top=2), options))
    assert found[paths["flac"]] == Change(paths["flac"], (), tuple(ranked[:2]))
    assert found[paths["ogg"]].why.endswith("has Zydeco") and isinstance(found[paths["mp3"]], Change)
    found = dict(tags.propose([str(tmp_path)], Tagging(min_confidence=1), options))
    assert "unknown" in found[paths["flac"]].why and "unknown" in found[paths["mp3"]].why, "unknown is never written"
    named = Tagging(Mode.append, min_confidence=0, names={ranked[0]: "Mine"})
    found = dict(tags.propose([paths["flac"], paths["ogg"]], named, options))
    assert found[paths["flac"]].after == ("Mine",) and found[paths["ogg"]].after[0] == "Zydeco"


def test_command_line(song, tmp_path):
    path, music = song("mp3"), tmp_path / "music"
    music.mkdir()
    moved = shutil.move(path, music)
    before = Path(moved).read_bytes()

    def tag(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "musicclass", "tag", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    table = tmp_path / "genres.jsonl"
    hearing = [sys.executable, "-m", "musicclass", "library", str(music), "-o", str(table), "--timeline"]
    subprocess.run(hearing, check=True)
    done = tag(music, "--min-confidence", 0, "--library", table)
    assert done.returncode == 0 and "none -> " in done.stdout and "--write does it" in done.stderr
    assert "1 of 1 files are done already" in done.stderr
    assert "1 of 1 files are done already" in subprocess.run(hearing, capture_output=True, text=True).stderr
    assert Path(moved).read_bytes() == before
    done = tag(music, "--min-confidence", 0, "--write")
    assert done.returncode == 0 and len(tags.read_genres(moved)) == 1
    (journal,) = tmp_path.glob("musicclass-tags-*.journal")
    assert f"--undo {journal.name}" in done.stderr
    assert tag("--undo", journal).returncode == 0 and Path(moved).read_bytes() == before
    journal.unlink()
    done = tag(music, "--min-confidence", 1, "--write")
    assert done.returncode == 0 and "no file changed, 1 left" in done.stderr and "undo" not in done.stderr
    assert not list(tmp_path.glob("musicclass-tags-*")), "nothing was changed, so there is nothing to take back"
    (tmp_path / "empty").mkdir()
    assert "is that the right place?" in tag(tmp_path / "empty").stderr
    (music / "broken.mp3").write_bytes(b"no music")
    done = tag(music, "--min-confidence", 0)
    assert done.returncode == 1 and "1 can't" in done.stderr
    for arguments, message in (
        (["--undo", journal, music], "alone"),
        ([], "no folder"),
        ([music, "--append", "--replace"], "choose one"),
        ([tmp_path / "none"], "no such file"),
        ([music, "--library", tmp_path / "none.csv"], "not a table"),
    ):
        done = tag(*arguments)
        assert done.returncode == 2 and message in done.stderr and "would change" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_what_cannot_be_printed_is_written_all_the_same(song, tmp_path):
    before, path = Path(song("mp3")).read_bytes(), tmp_path / "song.mp3"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "musicclass", "tag", str(path), "--min-confidence", "0", "--write"]
        command += ["--journal", "notes"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "No space left" in done.stderr and "failed" not in done.stderr.split("undo")[1]
    assert len(tags.read_genres(str(path))) == 1
    assert dict(tags.undo(tmp_path / "notes")) == {str(path): ""} and path.read_bytes() == before


def test_delta_of_any_two_files():
    rng = random.Random(0)
    for _ in range(200):
        old = rng.randbytes(rng.randrange(5000))
        new = bytearray(old)
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(new) + 1)
            new[at : at + rng.randrange(40)] = rng.randbytes(rng.randrange(60))
        parts = json.loads(json.dumps(delta.pack(delta.steps(old, bytes(new)))))
        assert b"".join(delta.apply(delta.unpack(parts), bytes(new))) == old


def test_delta_is_small():
    audio, cover = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(500_000)
    old = b"ID3" + b"genre" + cover + b"\0" * 1000 + audio + b"TAG" + b"\0" * 125
    new = b"ID3" + cover + b"another genre, longer" + audio + b"TAG" + b"\1" * 125
    parts = delta.pack(delta.steps(old, new))
    assert len(json.dumps(parts)) < 2_000
    assert b"".join(delta.apply(delta.unpack(parts), new)) == old
    assert list(delta.steps(b"", b"abc")) == [] and list(delta.steps(b"abc", b"")) == [b"abc"]
