"""A resident model: weights, the architecture's constants, and the questions asked of them.

B batch, T time, D width, V vocabulary rows.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

import torch
from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.cpu import Arithmetic, default_arithmetic
from pythia_fast.kernels.gpu import takes_model
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model import lens, native, neox, scoring
from pythia_fast.model.apart import apart
from pythia_fast.model.decode import FEW_SEQUENCES, Decoder, NativeDecoder, TorchDecoder
from pythia_fast.model.exact import Referee
from pythia_fast.model.generate import NEW_TOKENS, generate
from pythia_fast.model.ids import Ids, PlacedIds, checked_ids, target_count
from pythia_fast.model.near_tie import TieMargins, decide
from pythia_fast.model.protocol import Kernels
from pythia_fast.model.shown import model_html
from pythia_fast.model.text import Tokenizers, TokenizerSource, complete
from pythia_fast.model.to_transformers import to_transformers
from pythia_fast.model.weights import Weights
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.sources import CheckpointSeries
from pythia_fast.suite.architecture import Architecture
from pythia_fast.suite.model_spec import ModelSpec

if TYPE_CHECKING:
    import transformers

    from pythia_fast.model.gpu import Gpu


class Model:
    """One checkpoint in memory. `weights` may be overwritten in place or replaced by another arena.

    `model(ids)` gives all logits, `nll` and `score` what they say of the next tokens, `generate`
    and `complete` go on from a prompt, and `hidden_states` and `logit_lens` look inside.

    ids are integers [B, T], 1 ≤ T ≤ max_positions: a tensor, an array or a list of equal rows.
    On a CPU the native kernels compute, in one `arithmetic` of `pythia_fast.kernels.cpu`, by
    default "bfloat16" for weights of that dtype where the processor multiplies it, else "float32".
    On a GPU the Triton kernels do in float16 and bfloat16, for heads of 32, 64, 80, 128 and 256;
    `deterministic` keeps them from cuBLAS, so that a sequence's bits are its own. For anything else
    torch does.

    Where the last token is only a label (`nll`, `score`, `lens_scores`, `exact`), T may be
    max_positions + 1, as Pythia's training rows are. Every method raises ArgumentError for anything
    else and TokenRangeError for an id that is not in the embedding. No method records gradients;
    `neox.logits` with `weights.trainable()` does.
    """

    def __init__(
        self,
        weights: Weights,
        spec: ModelSpec,
        *,
        step: int | None = None,
        checkpoint: Checkpoint | None = None,
        arithmetic: Arithmetic | None = None,
        series: CheckpointSeries | None = None,
        deterministic: bool = False,
    ) -> None:
        self.spec = spec
        self.step = step
        self.checkpoint = checkpoint
        self._weights = weights
        self._tokenizers = Tokenizers(series)
        self.shape = neox.Shape.of(weights.architecture, weights.device)
        self._ties = TieMargins()
        self._placed = PlacedIds()
        self._arithmetic = arithmetic
        self.deterministic = deterministic
        self.native = self._make_native()
        self.gpu = self._make_gpu()
        self._referee = self._make_referee()

    def __repr__(self) -> str:
        kind = str(self.dtype)
        if self.native is not None and kind != f"torch.{self.native.arithmetic}":
            kind += f" by {self.native.arithmetic}"
        if self.device.type == "cuda":
            kind += " by torch" if self.gpu is None else " by Triton"
        return f"Model({self.spec.name!r}, step={self.step}, {kind}, {self.device})"

    def _repr_html_(self) -> str:
        return model_html(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a resident Model is neither pickled nor copied: load the checkpoint where it is "
            "needed (pythia_fast.load), or take `state_dict()` or `to_transformers()`"
        )

    @property
    def weights(self) -> Weights:
        """The arena in use. Setting another needs the same architecture, else ArgumentError."""
        return self._weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        if weights.architecture != self.architecture:
            raise ArgumentError(f"the arena is for {weights.architecture}, not {self.architecture}")
        before, self._weights = self._weights, weights
        if weights.device != before.device:
            self.shape = neox.Shape.of(weights.architecture, weights.device)
            self._referee = self._make_referee()
        if (weights.device, weights.dtype) != (before.device, before.dtype):
            self.native = self._make_native()
            self.gpu = self._make_gpu()

    @property
    def kernels(self) -> Kernels | None:
        """What computes: the kernels for this device, or None where torch does."""
        return self.native if self.gpu is None else self.gpu

    @property
    def architecture(self) -> Architecture:
        """The model's numbers."""
        return self._weights.architecture

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations; scores and reductions are float32."""
        return self._weights.dtype

    @property
    def device(self) -> torch.device:
        """Where weights lie and work is done."""
        return self._weights.device

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's own tokenizer, from the tokenizer.json of its revision or folder.

        It is looked for at the first use. Set it to another, or to the path of a tokenizer.json,
        and it stays for every step. MissingTokensError if there is none; what the Hub may raise.
        """
        return self._tokenizers.of(self.step)

    @tokenizer.setter
    def tokenizer(self, tokenizer: TokenizerSource) -> None:
        self._tokenizers.give(tokenizer)

    @apart
    def __call__(self, ids_BT: Ids) -> torch.Tensor:
        """Logits of each next token, [B, T, V] in the model's dtype.

        All are in memory, B · T · V values: 200 MB in float16 for one sequence of 2048 tokens of
        Pythia's vocabulary. `nll` and `score` never make them.
        """
        return scoring.logits(self, self.check_ids(ids_BT))

    @apart
    def nll(self, ids_BT: Ids) -> torch.Tensor:
        """Nats of each of ids[:, 1:] given the tokens before it, [B, T - 1] float32."""
        return scoring.nll(self, self.check_ids(ids_BT, labels=1))

    @apart
    def score(self, ids_BT: Ids, start: int = 0) -> TokenScores:
        """What the model says of the targets ids[:, start + 1:], [B, T - 1 - start] each."""
        return scoring.score(self, self.check_ids(ids_BT, labels=1), start)

    @apart
    def score_at(
        self,
        ids_BT: Ids,
        row_N: torch.Tensor,
        place_N: torch.Tensor,
        target_N: torch.Tensor,
        end_BT: torch.Tensor | None = None,
    ) -> TokenScores:
        """What the model says of each target behind a place in a row, [N] each, N ≥ 1.

        The three are int64. The vocabulary is multiplied for these places only, and the targets
        need not be the sequences' own next tokens.

        With `end_BT`, int64 [B, T], a row is a tree of tokens, depth first, and so holds several
        sequences whose common beginning is computed once: token s is seen by the tokens from s to
        end[s] - 1, its subtree. Its position is the number of tokens that it sees before itself,
        so a row may be longer than max_positions. [context | answer | answer] of 5, 2 and 3 tokens
        has the ends [10, 10, 10, 10, 10, 7, 7, 10, 10, 10]. ArgumentError for an end that is not
        beyond its token, a first one that is not T, or a sequence longer than max_positions.
        """
        ids_BT = self.check_ids(ids_BT, trees=end_BT is not None)
        return scoring.score_at(self, ids_BT, row_N, place_N, target_N, end_BT)

    def exact(self, ids_BT: Ids, start: int = 0) -> TokenScores:
        """`score` in float32 whatever the resident dtype; a sequence's bits are its own.

        The weights are those of `checkpoint`, or the resident ones if these are float32 or no
        checkpoint is known. `pythia_fast.model.exact` says what memory it takes.
        """
        ids_BT = self.check_ids(ids_BT, labels=1)
        target_count(ids_BT, start)
        return self._referee.scores(ids_BT, start, self._weights, self.checkpoint)

    @apart
    def decide(self, ids_BT: Ids, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """The arg max of `exact` and its margin, [B, T - 1 - start] each, at less cost.

        From half types, where the processor has AMX, split-bf16 decides the sequences in which it
        sees no near tie of its own, which are most; their margins are by split-bf16 too.
        """
        ids_BT = self.check_ids(ids_BT, labels=1)
        target_count(ids_BT, start)
        of_checkpoint = start, self._weights, self.checkpoint
        return decide(self._referee, self._ties, ids_BT, *of_checkpoint)

    @property
    def near_tie(self) -> float:
        """The margin, in logits, at or under which an arg max may be the arithmetic's doing.

        A measured rule, not a proof: see `pythia_fast.model.near_tie`.
        """
        arithmetic = None if self.native is None else self.native.arithmetic
        return self._ties.margin(self._weights, self.dtype, arithmetic)

    @apart
    def hidden_states(
        self, ids_BT: Ids, layers: Iterable[int] | None = None
    ) -> dict[int, torch.Tensor]:
        """The residual stream, {layer: [B, T, D]}, numbered as transformers does.

        0 is the embedding's output, i the output of block i - 1, and the last, L, has gone through
        the final LayerNorm. Negative numbers count from the end. `layers` None is all of them. They
        have the model's dtype, to which the native kernels' float32 stream is rounded.
        """
        return lens.hidden_states(self, self.check_ids(ids_BT), layers)

    @apart
    def logit_lens(
        self, ids_BT: Ids, layers: Iterable[int] | None = None
    ) -> dict[int, torch.Tensor]:
        """Logits of each next token as every layer would have them, {layer: [B, T, V]}.

        The final LayerNorm and the unembedding of the residual stream at the `layers`, which are
        numbered as by `hidden_states`; those of the last are the model's own. All are in memory,
        B · T · V values a layer: for more than a few texts take `lens_scores`.
        """
        return lens.logit_lens(self, self.check_ids(ids_BT), layers)

    @apart
    def lens_scores(
        self, ids_BT: Ids, layers: Iterable[int] | None = None, start: int = 0
    ) -> dict[int, TokenScores]:
        """What every layer would say of the targets, as `score` does, {layer: [B, T - 1 - start]}.

        Layers are those of `logit_lens`, whose logits are never stored.
        """
        return lens.lens_scores(self, self.check_ids(ids_BT, labels=1), layers, start)

    @apart
    def generate(
        self,
        ids_BT: Ids,
        max_new_tokens: int = NEW_TOKENS,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int | None = None,
        stop_token: int | None = None,
    ) -> torch.Tensor:
        """Prompt and continuation, [B, T + new]: see `pythia_fast.model.generate.generate`."""
        return generate(
            self,
            self.check_ids(ids_BT),
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            stop_token=stop_token,
        )

    @apart
    def complete(
        self,
        prompt: str,
        max_new_tokens: int = NEW_TOKENS,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> str:
        """The prompt and what the model writes after it, to an end of text at most.

        As `generate` of the prompt's ids; no special tokens are added to them, those that it
        spells ("<|endoftext|>") are themselves. ArgumentError for an empty prompt, TokenRangeError
        for one with a token that the model has no embedding for, and the errors of `tokenizer`.
        """
        return complete(
            self, prompt, max_new_tokens, temperature=temperature, top_k=top_k, seed=seed
        ).text

    @apart
    def decoder(self, sequences: int, positions: int, *, reproducible: bool = True) -> Decoder:
        """For so many sequences of up to `positions` tokens, all of one length, none fed yet.

        Natively a sequence's results are the same in any company. Unless they must be,
        `reproducible`, torch multiplies the few tokens of a few sequences where it is faster.
        """
        if self.native is not None:
            few = sequences <= FEW_SEQUENCES and self.dtype == torch.float32
            if reproducible or not few or self.native.arithmetic == "bfloat16":
                return NativeDecoder(self.native, self._weights, sequences, positions)
        if self.gpu is not None:
            from pythia_fast.model.decode_gpu import GpuDecoder  # here: see `_make_gpu`

            return GpuDecoder(self.gpu, self._weights, sequences, positions)
        weights = self._weights.views
        return TorchDecoder(self.architecture, self.shape, weights, sequences, positions)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """A copy of every weight under its Hugging Face name."""
        return self._weights.state_dict()

    def to_transformers(
        self, *, dtype: str | torch.dtype | None = None
    ) -> "transformers.GPTNeoXForCausalLM":
        """The checkpoint as transformers' own model, on the same device (extra: `transformers`).

        It has a copy of the weights, in the resident dtype unless another is given, and so outlives
        the step. ArgumentError for another dtype than float32, bfloat16 and float16.
        """
        return to_transformers(self, dtype)

    def check_ids(self, ids: Ids, *, labels: int = 0, trees: bool = False) -> torch.Tensor:
        """The ids as int64 [B, T] on the model's device, or one of the errors named above.

        The last `labels` of a sequence are never an input, so it may be longer by as many. Rows
        that are `trees` hold several sequences, and may have any length.
        """
        in_range = self._placed.are(ids)
        return checked_ids(
            ids, self.architecture, self.device, labels=labels, trees=trees, in_range=in_range
        )

    def place_ids(self, ids: Ids) -> torch.Tensor:
        """The ids as int64 [B, T] on the model's device, T being anything.

        They are looked at before they go there, and not again by methods that are given the very
        tensor, unchanged: for that they would have to wait for the GPU. TokenRangeError or
        ArgumentError.
        """
        return self._placed.place(ids, self.architecture.vocab_rows, self.device)

    def _make_native(self) -> native.Native | None:
        if self.device.type != "cpu" or not native.takes(self.architecture):
            return None
        chosen = self._arithmetic or default_arithmetic(self.dtype)
        return native.Native(self.architecture, self.shape, chosen)

    def _make_gpu(self) -> "Gpu | None":
        if not takes_model(self.device, self.dtype, self.architecture.head_dim):
            return None
        from pythia_fast.model.gpu import Gpu  # here: triton is slow to import

        return Gpu(
            *(self.architecture, self.shape, self.dtype, self.device),
            deterministic=self.deterministic,
        )

    def _make_referee(self) -> Referee:
        return Referee(self.architecture, self.shape, self.device)
