"""Text that a model is to go on from, as ids."""

from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError
from pythia_fast.tokens.sources import END_OF_TEXT, plain


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, at least one.

    No special tokens are added, as Pythia's tokenizer adds none; those that the text spells
    ("<|endoftext|>") are themselves. ArgumentError for what is no text, or gives no tokens.
    """
    if not isinstance(prompt, str):
        raise ArgumentError(f"a prompt is a text, not {type(prompt).__name__}")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"the prompt is no valid text: {error}") from error
    ids: list[int] = plain(tokenizer).encode(prompt, add_special_tokens=False).ids
    if not ids:
        raise ArgumentError(
            f"the prompt gives no tokens: write at least one character, or {END_OF_TEXT!r} to "
            "begin a new text"
        )
    return ids


def end_of_text(tokenizer: Tokenizer, vocab_rows: int) -> int | None:
    """The id that ends a text, if the tokenizer has one and the model an embedding for it."""
    found: int | None = tokenizer.token_to_id(END_OF_TEXT)
    return found if found is not None and found < vocab_rows else None
