"""Decoding with a cache of keys and values: greedy, sampled, and greedy under supervision.

B sequences of equal length, T prompt tokens, V vocabulary rows.
"""

import math
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, SupportsFloat

import torch

from pythia_fast.errors import ArgumentError, NonFiniteError
from pythia_fast.model.decode import Decoder

if TYPE_CHECKING:
    from pythia_fast.model.model import Model

Decide = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(context [B, T so far], token [B], margin [B]) -> token [B]: the last word on each step."""

NEW_TOKENS = 20
"""How many to write if nobody says, as transformers has it."""

CACHE_BYTES = 512 << 20
"""Keys and values that a batch may hold; or a quarter of the weights' memory, if that is more."""


def sequences_at_once(model: "Model", positions: int) -> int:
    """How many sequences to decode together: as many as keys and values may take memory.

    The more the better: every step reads all weights. On a GPU a quarter of what is free.
    """
    a = model.architecture
    if model.native is None:
        if model.gpu is not None:
            sequence_bytes = 2 * a.layers * a.width * positions * model.dtype.itemsize
            return max(1, model.gpu.passes.free_bytes() // 4 // sequence_bytes)
        layer_bytes = 2 * a.width * positions * model.dtype.itemsize
    else:
        layer_bytes = model.native.kernels.key_value_bytes(a.heads, a.head_dim, positions)
    sequence_bytes = a.layers * layer_bytes
    return max(1, max(CACHE_BYTES, model.weights.flat.nbytes // 4) // sequence_bytes)


def greedy_steps(
    model: "Model", ids_BT: torch.Tensor, n: int, *, decide: Decide | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Decode `n` tokens greedily; each step yields (token [B] int64, margin [B] float32).

    The margin is the best minus the second-best logit. `decide` may overrule tokens, near ties say,
    before they are yielded and fed back; the margin remains that of the resident arithmetic. The
    weights must not change before the last step. ArgumentError if prompt + n exceeds max_positions.
    """
    ids_BT = model.check_ids(ids_BT)

    def choose(context_BT: torch.Tensor, decoder: Decoder) -> _Choice:
        token_B, margin_B = decoder.best()
        if decide is not None:
            token_B = decide(context_BT, token_B, margin_B).to(token_B)
        return token_B, margin_B

    return _decode(model, ids_BT, n, choose, reproducible=True)


def generate(
    model: "Model",
    ids_BT: torch.Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | None = None,
    stop_token: int | None = None,
) -> torch.Tensor:
    """Prompt and continuation, [B, T + new] int64.

    `temperature` 0 is greedy; above it, tokens are drawn from softmax(logits / temperature), of the
    `top_k` likeliest only if given; the same `seed` draws the same tokens. A sequence that reaches
    `stop_token` is filled up with it, and when all have, decoding ends. ArgumentError if an option
    makes no sense or prompt + new exceeds max_positions, NonFiniteError if a logit is NaN or
    infinite.
    """
    ids_BT = model.check_ids(ids_BT)
    vocab_rows = model.architecture.vocab_rows
    temperature = _checked_temperature(temperature)
    if top_k is not None:
        top_k = _whole(top_k, 1, vocab_rows, f"top_k is 1 to {vocab_rows}")
    if stop_token is not None:
        last = vocab_rows - 1
        stop_token = _whole(stop_token, 0, last, f"stop_token is an id, 0 to {last}")
    if seed is not None:
        seed = _whole(seed, -(2**63), 2**63 - 1, "seed is a whole number of 64 bits")
    generator = torch.Generator(ids_BT.device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)

    def choose(context_BT: torch.Tensor, decoder: Decoder) -> _Choice:
        logits_BV = decoder.logits()
        if not bool(logits_BV.isfinite().all()):
            raise NonFiniteError(
                f"{model} gives NaN or infinite logits after {context_BT.shape[1]} tokens, so no "
                "token can be chosen: its weights are not finite, or overflow in this dtype"
            )
        if temperature == 0:
            token_B = logits_BV.argmax(-1)
        else:
            token_B = sample(logits_BV, temperature, top_k, generator)
        return token_B, logits_BV

    steps = _decode(model, ids_BT, max_new_tokens, choose, stop_token, reproducible=False)
    return torch.cat([ids_BT, *(token_B[:, None] for token_B, _ in steps)], dim=1)


def sample(
    logits_BV: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> torch.Tensor:
    """One id per row from softmax(logits / temperature), among the top k; [B] int64.

    In float64, and of distances from the best logit, so that any temperature above 0 will do.
    """
    if top_k is None:
        return _draw(logits_BV, temperature, generator)[:, 0]
    top_BK = logits_BV.topk(top_k, dim=-1)
    return top_BK.indices.gather(1, _draw(top_BK.values, temperature, generator))[:, 0]


def _draw(logits_BK: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    exact_BK = logits_BK.double()
    below_BK = exact_BK - exact_BK.amax(-1, keepdim=True)
    smallest = torch.finfo(torch.float64).tiny  # a processor may take less for 0
    chances_BK = (below_BK / max(temperature, smallest)).softmax(-1)
    return chances_BK.multinomial(1, generator=generator)


def _checked_temperature(temperature: float) -> float:
    try:
        found = float(temperature) if isinstance(temperature, SupportsFloat) else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = math.nan
    if not 0 <= found < math.inf:
        raise ArgumentError(f"temperature is 0 (greedy) or a positive number, not {temperature!r}")
    return found


def _whole(value: int, lowest: int, highest: int, what: str) -> int:
    """The value if it is whole and in the range, else ArgumentError that says `what` it is."""
    try:
        found = operator.index(value)
    except TypeError as error:
        raise ArgumentError(f"{what}, not {value!r}") from error
    if not lowest <= found <= highest:
        raise ArgumentError(f"{what}, got {value}")
    return found


_Choice = tuple[torch.Tensor, torch.Tensor]
_Choose = Callable[[torch.Tensor, Decoder], _Choice]


def _decode(
    model: "Model",
    ids_BT: torch.Tensor,
    n: int,
    choose: _Choose,
    stop_token: int | None = None,
    *,
    reproducible: bool,
) -> Iterator[_Choice]:
    """Up to n steps: the token that `choose` makes of (context, decoder) is fed back.

    A sequence that reaches `stop_token` leaves the batch, and has that token from then on; when all
    have, it ends. What else `choose` gives is of those that were still there.
    """
    T = ids_BT.shape[1]
    limit = model.architecture.max_positions
    try:
        n = operator.index(n)
    except TypeError as error:
        raise ArgumentError(f"the number of new tokens is a whole number, not {n!r}") from error
    if n < 0:
        raise ArgumentError(f"the number of new tokens is at least 0, got {n}")
    if T + n > limit:
        raise ArgumentError(
            f"a prompt of {T} tokens and {n} new ones are more than the model's {limit} positions"
        )
    if n == 0:
        return iter(())
    decoder = model.decoder(len(ids_BT), T + n - 1, reproducible=reproducible)
    return _decode_checked(decoder, ids_BT, n, choose, stop_token)


def _decode_checked(
    decoder: Decoder, ids_BT: torch.Tensor, n: int, choose: _Choose, stop_token: int | None
) -> Iterator[_Choice]:
    B, T = ids_BT.shape
    context_BT = ids_BT.new_empty(B, T + n)
    context_BT[:, :T] = ids_BT
    row_B = torch.arange(B, device=ids_BT.device)  # of the sequences that go on
    fed = 0
    for end in range(T, T + n):
        here_BT = context_BT[:, :end] if len(row_B) == B else context_BT[row_B, :end]
        decoder.feed(here_BT[:, fed:])
        token_B, beside_B = choose(here_BT, decoder)
        fed = end
        if stop_token is None:
            context_BT[:, end] = token_B
        else:
            context_BT[:, end] = stop_token
            context_BT[row_B, end] = token_B
        yield context_BT[:, end], beside_B
        if stop_token is not None:
            on_B = (token_B != stop_token).nonzero()[:, 0]
            if not len(on_B):
                return
            if len(on_B) < len(row_B):
                row_B = row_B[on_B]
                decoder.keep(on_B)
