"""Names of data sets on the Hub, and the pair of files that is meant."""

import json

import pytest

from pythia_fast.errors import ArgumentError, HubError, MissingTokensError, TokenFileError
from pythia_fast.hub.files import HubFile
from pythia_fast.tokens.remote.listing import Address, Listing, token_files
from pythia_fast.tokens.remote.pile import REPOSITORIES

COMMIT = "0123456789abcdef" * 2 + "01234567"
DEDUPED = REPOSITORIES["pile-deduped"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:pile-deduped", Address(DEDUPED)),
        ("hub:pile-deduped@abc", Address(DEDUPED, "abc")),
        ("hub:pile-deduped/sub/document", Address(DEDUPED, None, "sub/document")),
        ("hub:pile-deduped@main/sub/document", Address(DEDUPED, "main", "sub/document")),
        ("hub:me/my.data_1", Address("me/my.data_1")),
        ("hub:me/data@v1.0", Address("me/data", "v1.0")),
        ("hub:me/data/train.idx", Address("me/data", None, "train.idx")),
        ("hub:me/data/a/b/", Address("me/data", None, "a/b")),
        ("hub:me/data@refs/pr/7/a/b", Address("me/data", "refs/pr/7", "a/b")),
        (f"hub:me/data@{COMMIT}", Address("me/data", COMMIT)),
    ],
)
def test_addresses(source: str, expected: Address) -> None:
    assert Address.parse(source) == expected
    assert Address.parse(str(expected)) == expected


@pytest.mark.parametrize("source", ["hub:", "hub:c4", "hub:/x", "hub:me/data@", "hub:me data/x"])
def test_what_is_no_address(source: str) -> None:
    with pytest.raises(ArgumentError, match=r"hub:owner/name"):
        Address.parse(source)


@pytest.mark.parametrize("source", ["hub:a/b@", "hub:a/b@/x", "hub:pile-deduped@"])
def test_an_at_without_a_revision(source: str) -> None:
    with pytest.raises(ArgumentError, match=r"after its @ there is no revision"):
        Address.parse(source)


def listing(*files: tuple[str, int]) -> Listing:
    return Listing("me/data", COMMIT, token_files((path, size, None) for path, size in files))


def shards(count: int, *, of: int | None = None, size: int = 10) -> list[tuple[str, int]]:
    last = count - 1 if of is None else of
    return [(f"document-{n:05}-of-{last:05}.bin", size) for n in range(count)]


def paths(found: tuple[HubFile, tuple[HubFile, ...]]) -> list[str]:
    return [found[0].path, *(file.path for file in found[1])]


@pytest.mark.parametrize("inside", [None, "document", "document.idx", "document.bin"])
def test_shards_in_their_order(inside: str | None) -> None:
    names = [name for name, _ in shards(12)]
    found = listing(("document.idx", 5), *reversed(shards(12))).pair(inside)
    assert paths(found) == ["document.idx", *names]


@pytest.mark.parametrize("inside", ["a/b", "a/b/train", "a/b/train.bin"])
def test_a_pair_in_a_folder(inside: str) -> None:
    files = [("a/b/train.idx", 5), ("a/b/train.bin", 7), ("a/c/test.idx", 5), ("top.idx", 9)]
    assert paths(listing(*files).pair(inside)) == ["a/b/train.idx", "a/b/train.bin"]


def test_a_last_shard_may_be_shorter_and_other_files_do_not_matter() -> None:
    files = [("document.idx", 5), *shards(3), ("other-00000-of-00000.bin", 4), ("x/y.bin", 1)]
    files[3] = (files[3][0], 2)
    assert len(listing(*files).pair(None)[1]) == 3
    one = [("document.idx", 5), *shards(1)]
    assert len(listing(*one).pair(None)[1]) == 1


@pytest.mark.parametrize(
    ("files", "inside", "reason"),
    [
        ([], None, "its .idx files are: none"),
        ([("sub/train.idx", 5)], None, "no token data at 'the top'.*sub/train.idx"),
        ([("a.idx", 5), ("b.idx", 5)], None, "several .idx files.*a.idx, b.idx.*data/a"),
        ([("a.idx", 5)], "b", "no token data at 'b'"),
        ([("document.idx", 5)], None, "neither document.bin nor shards"),
        ([("document.idx", 5), *shards(3)[1:]], None, "some are missing: document-00000-of-00002"),
        ([("document.idx", 5), *shards(3, of=9)], None, r"missing: .*-00007-.* and 2 more"),
    ],
)
def test_what_is_missing_is_named(files, inside: str | None, reason: str) -> None:
    with pytest.raises(MissingTokensError, match=reason):
        listing(*files).pair(inside)


@pytest.mark.parametrize(
    ("sizes", "wrong", "at"), [((10, 9, 10), 1, 9), ((10, 10, 11), 2, 11), ((10, 12, 3), 1, 12)]
)
def test_sizes_that_cannot_be_right(sizes: tuple[int, ...], wrong: int, at: int) -> None:
    files = [(name, size) for (name, _), size in zip(shards(3), sizes, strict=True)]
    with pytest.raises(TokenFileError, match="the shard has") as caught:
        listing(("document.idx", 5), *files).pair(None)
    assert caught.value.path.name == files[wrong][0]
    assert caught.value.offset == at


def test_two_sets_of_shards() -> None:
    files = [("document.idx", 5), *shards(3), *shards(2)]
    with pytest.raises(TokenFileError, match="two sets; also document-00000-of-00001"):
        listing(*files).pair(None)


@pytest.mark.parametrize(
    "path",
    ["../x.idx", "/etc/x.bin", "a//b.bin", "a/./b.idx", "a\\b.bin", "a/../../b.bin", "\0.bin"],
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    with pytest.raises(HubError, match="with the path"):
        token_files([(path, 3, None)])


@pytest.mark.parametrize("size", [-1, None, "3", True, 2**63, 1.5])
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(HubError, match="bytes"):
        token_files([("a.bin", size, None)])


def test_only_token_files_are_kept() -> None:
    with pytest.raises(HubError, match="sha256 5"):
        token_files([("a.bin", 3, 5)])
    assert token_files([("README.md", "x", 5), ("a.bin", 3, "f")]) == (HubFile("a.bin", 3, "f"),)


def test_a_listing_is_kept_as_json() -> None:
    kept = listing(("document.idx", 5), *shards(2))
    assert Listing.from_json(kept.to_json()) == kept
    hostile = json.loads(kept.to_json())
    hostile["files"][0]["path"] = "../../x.idx"
    for text in ("", "{}", "[]", '{"repo": 1, "commit": 2, "files": 3}', json.dumps(hostile)):
        with pytest.raises(ValueError):
            Listing.from_json(text)
