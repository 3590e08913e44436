"""A logit lens over the checkpoints of a model: which layer knows the next token, and since when.

    python examples/logit_lens.py 70m --text "The capital of France is Paris." -o lens.pdf

The final LayerNorm and the unembedding are put after every layer. The upper panel shows how well
each layer predicts the text, over training; the lower one what each layer would say at the last of
the checkpoints. Needs `pip install 'pythia-fast[analysis]'`.
"""

import argparse
import re
from functools import cache

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

import pythia_fast
from pythia_fast.plots import Line, draw, legend, new_figure, save_figure

TEXT = "The quick brown fox jumps over the lazy dog."
MOST_TOKENS = 12  # that the lower panel has room for
PANEL_PT = 400  # wide, with some air
TOKEN_PT = 7
BROKEN = "\ufffd"  # what a tokenizer makes of a part of a character
PIECE = re.compile(r"\\U.{8}|\\u.{4}|\\x..|\\.|<..>|.")  # of a token as shown, not to be cut


def lens(model: str, steps: str, text: str) -> pa.Table:
    """One row for each step, layer and token of the text but the first.

    `model`, `step`, `layer`, `token_id`, `token` (as shown), `nll` (nats of the token by this
    layer), `probability` (the same as a share of 1), `guess_id` and `guess` (the layer's
    likeliest). Two tokens may be shown alike: compare their ids.
    """
    rows = []
    for step, resident in pythia_fast.stream(model, steps):
        tokenizer = resident.tokenizer
        ids = tokenizer.encode(text).ids
        if len(ids) < 2:
            raise SystemExit("the text needs two tokens at least")
        for layer, scores in resident.lens_scores([ids]).items():
            for token, nll, guess in zip(
                ids[1:], scores.nll[0].tolist(), scores.argmax[0].tolist(), strict=True
            ):
                rows.append(
                    {"model": resident.spec.name, "step": step, "layer": layer}
                    | {"token_id": token, "token": shown(tokenizer, token)}
                    | {"nll": nll, "probability": float(np.exp(-nll))}
                    | {"guess_id": guess, "guess": shown(tokenizer, guess)}
                )
    return pa.Table.from_pylist(rows)


def shown(tokenizer: Tokenizer, token: int) -> str:
    """A token as one line: a dot for a space, and escaped what fonts may lack.

    Bytes that are no whole character are <e4>, and an id that the tokenizer lacks is [50300].
    """
    name = tokenizer.id_to_token(token)
    if name is None:
        return f"[{token}]"
    text = tokenizer.decode([token], skip_special_tokens=False)
    if BROKEN in text and byte_of_letter().keys() >= set(name):
        text = bytes(byte_of_letter()[each] for each in name).decode(errors="surrogateescape")
    return "".join(
        f"<{ord(each) - 0xDC00:02x}>"
        if 0xDC80 <= ord(each) <= 0xDCFF
        else each.encode("unicode_escape").decode("ascii").replace(" ", "·")
        for each in text
    )


@cache
def byte_of_letter() -> dict[str, int]:
    """What the letters of byte-level tokens stand for.

    Those of Latin-1 are their own byte, the others the bytes that are left, in order.
    """
    letters = sorted(ByteLevel.alphabet())
    own = [ord(each) for each in letters if ord(each) < 256]
    return dict(zip(letters, [*own, *sorted({*range(256)} - {*own})], strict=True))


def fitted(text: str, room_pt: float) -> tuple[str, float]:
    """As much of a token as fits in bold, and its size: small if one letter alone is too wide."""
    pieces = PIECE.findall(text)
    for count in range(len(pieces), 0, -1):
        some = "".join(pieces[:count]) + "…" * (count < len(pieces))
        path = TextPath((0, 0), some, TOKEN_PT, prop=FontProperties(weight="bold"))
        width_pt = path.get_extents().width
        if width_pt <= room_pt:
            break
    return some, min(TOKEN_PT, TOKEN_PT * room_pt / width_pt)


def figure(table: pa.Table) -> Figure:
    """Both panels of a table as `lens` gives it."""
    made = new_figure(rows=2, height_in=7.5)
    above, below = made.axes
    means = table.group_by(["step", "layer"]).aggregate([("nll", "mean")]).to_pylist()
    layers = sorted({row["layer"] for row in means})
    lines = []
    for layer in layers:
        points = {row["step"]: row["nll_mean"] for row in means if row["layer"] == layer}
        steps = sorted(points)
        label = "embedding" if layer == 0 else "the model" if layer == layers[-1] else f"{layer}"
        lines.append(Line(label, steps, [points[step] for step in steps]))
    draw(above, lines, "loss by layer (nats per token)", shades=True)
    legend(above, title="after layer")
    above.title.set_text(table["model"][0].as_py())
    grid(below, table)
    return made


def grid(axes: Axes, table: pa.Table) -> None:
    """Each layer's likeliest token at the last step, the darker the likelier the right one."""
    last = max(table["step"].to_pylist())
    rows = [row for row in table.to_pylist() if row["step"] == last]
    layers = sorted({row["layer"] for row in rows})
    by_layer = [[row for row in rows if row["layer"] == layer][:MOST_TOKENS] for layer in layers]
    chances = np.array([[row["probability"] for row in some] for some in by_layer])
    room_pt = PANEL_PT / len(by_layer[0])
    axes.imshow(chances, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    for y, some in enumerate(by_layer):
        for x, row in enumerate(some):
            guess, size_pt = fitted(row["guess"], room_pt)
            axes.text(
                *(x, y, guess),
                ha="center",
                va="center",
                fontsize=size_pt,
                color="white" if row["probability"] > 0.6 else "black",
                weight="bold" if row["guess_id"] == row["token_id"] else "normal",
                parse_math=False,
            )
    axes.grid(visible=False)
    tokens = [fitted(row["token"], room_pt) for row in by_layer[0]]
    axes.set_xticks(range(len(tokens)), [token for token, _ in tokens], parse_math=False)
    for label, (_, size_pt) in zip(axes.get_xticklabels(), tokens, strict=True):
        label.set_fontsize(size_pt)
    axes.set_yticks(range(len(layers)), ["embedding", *map(str, layers[1:])])
    axes.set_xlabel(
        "next token: dark where the layer is sure of it, bold where it is its first guess"
    )
    axes.set_ylabel(f"after layer, at step {last:,}")


def main() -> None:
    """Read the command line, and write the figure and, if asked for, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model of the suite, or a folder of checkpoints")
    parser.add_argument("--steps", default="log", help="as for pythia-fast sweep [log]")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("-o", "--out", default="lens.pdf", help=".pdf, .svg or .png [lens.pdf]")
    given = parser.parse_args()
    table = lens(given.model, given.steps, given.text)
    save_figure(figure(table), given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
