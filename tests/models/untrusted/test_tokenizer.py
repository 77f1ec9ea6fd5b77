import json

import pytest

from thresher.errors import InputError
from thresher.features.length import find_tokenizer_file
from thresher.models.encoders.minilm import find_minilm
from thresher.models.encoders.static import FOLDER
from thresher.models.untrusted.tokenizer import check_tokenizer_file, has_nested_repeat

# as GPT-2, GPT-4, Llama 3, Qwen 2, DeepSeek V3 and gpt-oss have them
KNOWN = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lm}\p{M}]*[\p{Ll}\p{Lm}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}",
]


@pytest.mark.parametrize("pattern", KNOWN)
def test_patterns_of_known_tokenizers_have_no_nested_repeat(pattern):
    assert not has_nested_repeat(pattern)


@pytest.mark.parametrize(
    ("pattern", "is_nested"),
    [
        ("(a+)+", True),
        ("(?:a|b+)*c", True),
        ("((a)+b)*", True),
        ("([a-z]{2,})*", True),
        ("([a]+)+", True),
        ("(a*){3,}", True),
        (r"(\)+)+", True),
        ("(a++b)+", False),
        ("(a+)?", False),
        ("(a+){2,3}", False),
        ("[(a+)+]+", False),
        (r"\(a+\)+", False),
        ("(ab?)+", False),
        ("a+b+", False),
        ("(?:ab)+", False),
        ("(", False),
        ("", False),
    ],
)
def test_nested_repeats_are_found(pattern, is_nested):
    assert has_nested_repeat(pattern) == is_nested


@pytest.mark.parametrize(
    "folder", [FOLDER, FOLDER.parent / "tiny-llama", find_minilm()], ids=["static", "tiny", "minilm"]
)
def test_good_tokenizers_pass(folder):
    if folder is None:
        pytest.skip("the encoders extra is not installed")
    assert check_tokenizer_file(folder / "tokenizer.json", owner="it") > 4000


def test_a_file_that_is_replaced_is_checked_again(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes((FOLDER / "tokenizer.json").read_bytes())
    assert find_tokenizer_file(str(path)) == path
    content = json.loads(path.read_bytes())
    content["padding"] = {"strategy": {"Fixed": 10**12}, "pad_to_multiple_of": None}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"the padding of tokenizer.json must be at most \d+ tokens, got 10000"):
        find_tokenizer_file(str(path))
