import json

import pytest

from pythia_fast.tokens import shards


def test_cut_and_joined_again(run, tokens, tmp_path):
    size = tokens.with_suffix(".bin").stat().st_size
    cut = run("shard", tokens, "--out", tmp_path / "cut", "--shard-bytes", 1000)
    paths = cut.stdout.splitlines()
    assert paths[0] == str(tmp_path / "cut" / "train-00000-of-00003.bin")
    assert paths[-1] == str(tmp_path / "cut" / "train.idx")
    assert f"{size + tokens.with_suffix('.idx').stat().st_size:,} bytes" in cut.stderr
    joined = run("unshard", tmp_path / "cut", "--out", tmp_path / "whole")
    assert joined.stdout.splitlines() == [f"{tmp_path}/whole.bin", f"{tmp_path}/whole.idx"]
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"whole{suffix}").read_bytes() == tokens.with_suffix(suffix).read_bytes()


def test_json(run, tokens, tmp_path):
    cut = run("shard", tokens, "--out", tmp_path / "cut", "--json", "--quiet")
    assert json.loads(cut.stdout) == {
        "bins": [str(tmp_path / "cut" / "train-00000-of-00000.bin")],
        "index": str(tmp_path / "cut" / "train.idx"),
        "total_bytes": sum(tokens.with_suffix(each).stat().st_size for each in (".bin", ".idx")),
        "resumed_bytes": 0,
        "shared_bytes": 0,
    }


def test_what_is_wrong_ends_with_3(run, tokens, tmp_path):
    run("shard", tokens, "--out", tmp_path / "cut", "--shard-bytes", 1000)
    assert "there already" in run("shard", tokens, "--out", tmp_path / "cut", exit_code=3).stderr
    (tmp_path / "cut" / "train-00001-of-00003.bin").unlink()
    result = run("unshard", tmp_path / "cut", "--out", tmp_path / "whole", exit_code=3)
    assert "with NNNNN 00001" in result.stderr
    assert run("shard", tokens, exit_code=2).stdout == ""


def test_an_interrupt_says_how_to_go_on(run, tokens, tmp_path, monkeypatch):
    arguments = ("shard", tokens, "--out", tmp_path / "cut", "--shard-bytes", 1000, "--json")
    real = shards.assemble

    def assemble(*positional, progress, **options):
        def stop(done, total):
            if done > 1500:
                raise KeyboardInterrupt

        return real(*positional, progress=stop, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "assemble", assemble)
        result = run(*arguments, exit_code=130)
    assert "the same command goes on from there" in result.stderr
    assert result.stdout == ""
    assert json.loads(run(*arguments).stdout)["resumed_bytes"] == 2000


def test_what_is_left_can_be_discarded(run, tokens, tmp_path):
    out = tmp_path / "cut"
    out.mkdir()
    (out / ".train.shards.partial.json").write_text("{}")
    arguments = ("shard", tokens, "--out", out)
    assert "another attempt" in run(*arguments, exit_code=3).stderr
    assert run(*arguments, "--no-resume").exit_code == 0


@pytest.mark.parametrize("command", ["shard", "unshard"])
def test_no_data(run, tmp_path, command):
    result = run(command, tmp_path / "nothing", "--out", tmp_path / "out", exit_code=3)
    assert len(result.stderr.splitlines()) == 1


def test_unshard_wants_another_folder(run, tokens, tmp_path):
    run("shard", tokens, "--out", tmp_path / "cut", "--shard-bytes", 1000)
    for out in ((), ("--out", "")):
        run("unshard", tmp_path / "cut", *out, exit_code=2)
    told = run("unshard", tmp_path / "cut", "--out", f"{tmp_path}/cut/", exit_code=3).stderr
    assert "another folder" in told
    told = run("unshard", "hub:pile-deduped", "--out", tmp_path / "out", exit_code=3).stderr
    assert "hub:pile-deduped is on the Hub" in told
