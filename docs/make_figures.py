"""Draw the pictures of the documents: `python docs/make_figures.py` writes docs/images/mechanisms.png."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

IMAGES = Path(__file__).parent / "images"
INK, PALE = "#222222", "#5F6368"
TRAINED = ("#0072B2", "#DCECF8")  # edge, face: what gradients train
AVERAGE = ("#B57600", "#FDEBC8")  # what follows the query encoder
STORED = ("#00805C", "#DDF1E9")  # the dictionary
PLAIN = ("#8A8F94", "#F2F3F4")
GRADIENT = "#CC3311"
LEFT, RIGHT, MIDDLE = 95, 345, 220  # columns of a panel: query, keys, loss
INPUT, ENCODER, VECTOR, MATCH, LOSS = 26, 84, 146, 204, 256  # its rows, from below
Point = tuple[float, float]


def box(ax: Axes, at: Point, size: Point, text: str, colours: tuple[str, str], fontsize: float = 11) -> None:
    (x, y), (width, height) = at, size
    edge, face = colours
    corner = (x - width / 2, y - height / 2)
    shape = FancyBboxPatch(
        corner, width, height, boxstyle="round,pad=0,rounding_size=6", fc=face, ec=edge, lw=1.4, zorder=3
    )
    ax.add_patch(shape)
    ax.text(x, y, text, ha="center", va="center_baseline", fontsize=fontsize, color=INK, zorder=4, linespacing=1.25)


def arrow(ax: Axes, *through: Point, colour: str = INK, dashed: bool = False) -> None:
    """A line through two points or more, with a head at its end."""
    points = list(through)
    style = {"color": colour, "lw": 1.6, "ls": (0, (3.5, 2)) if dashed else "-"}
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), solid_capstyle="projecting", dash_capstyle="butt", zorder=2, **style)
    head = {"arrowstyle": "-|>,head_width=0.28,head_length=0.55", "shrinkA": 0, "shrinkB": 0} | style
    ax.annotate("", points[-1], points[-2], arrowprops=head, zorder=2)


def note(ax: Axes, at: Point, text: str, *, colour: str = PALE, ha: str = "center", fontsize: float = 9.5) -> None:
    ax.text(*at, text, ha=ha, va="center", fontsize=fontsize, color=colour, linespacing=1.3, zorder=4)


def views(ax: Axes, x: float, name: str) -> None:
    """A view of the image, as a sheet before another."""
    for shift in (5, 0):
        corner = (x - 21 + shift, INPUT - 15 + shift)
        ax.add_patch(Rectangle(corner, 42, 30, fc=PLAIN[1], ec=PLAIN[0], lw=1.2, zorder=3))
    ax.text(x, INPUT, name, ha="center", va="center_baseline", fontsize=12, color=INK, zorder=4)


def keys(ax: Axes, name: str, cells: int, *, room: float) -> None:
    """The dictionary as a row of keys, with `room` for its name in the middle."""
    width, height = 12, 26
    left, low = RIGHT - cells * width / 2, VECTOR - height / 2
    ax.add_patch(Rectangle((left, low), cells * width, height, fc=STORED[1], ec=STORED[0], lw=1.4, zorder=3))
    for i in range(1, cells):
        if abs(left + i * width - RIGHT) > room / 2:
            ax.plot([left + i * width] * 2, [low, low + height], color=STORED[0], lw=1.2, zorder=4)
    ax.text(RIGHT, VECTOR, name, ha="center", va="center_baseline", fontsize=11, color=INK, zorder=4)


def panel(ax: Axes, title: str, subtitle: str) -> None:
    """What the mechanisms have in common: the query's side, the comparison and the loss."""
    ax.set(xlim=(0, 450), ylim=(0, 334), aspect="equal")
    ax.axis("off")
    frame = FancyBboxPatch(
        (3, 1), 444, 330, boxstyle="round,pad=0,rounding_size=8", fc="white", ec="#D0D3D6", lw=1, zorder=0
    )
    ax.add_patch(frame)
    ax.text(16, 312, title, fontsize=13.5, fontweight="bold", color=INK, va="center")
    ax.text(16, 291, subtitle, fontsize=10.5, color=PALE, va="center")
    views(ax, LEFT, "$x_q$")
    arrow(ax, (LEFT, INPUT + 20), (LEFT, ENCODER - 18))
    box(ax, (LEFT, ENCODER), (112, 36), "encoder $f_q$", TRAINED)
    box(ax, (MIDDLE, MATCH), (68, 26), r"$q \cdot k\,/\,\tau$", PLAIN, 12)
    arrow(ax, (RIGHT, VECTOR + 13), (RIGHT, MATCH), (MIDDLE + 34, MATCH))
    arrow(ax, (MIDDLE, MATCH + 13), (MIDDLE, LOSS - 14))
    box(ax, (MIDDLE, LOSS), (126, 28), "contrastive loss", PLAIN)
    arrow(ax, (MIDDLE - 63, LOSS), (LEFT - 40, LOSS), (LEFT - 40, ENCODER + 18), colour=GRADIENT, dashed=True)


def query(ax: Axes, height: float, below: float) -> None:
    """q at `height`, made by what ends at `below`."""
    arrow(ax, (LEFT, below), (LEFT, height - 13))
    box(ax, (LEFT, height), (36, 26), "$q$", TRAINED, 12)
    arrow(ax, (LEFT, height + 13), (LEFT, MATCH), (MIDDLE - 34, MATCH))


def key_encoder(ax: Axes, text: str, colours: tuple[str, str], *, key_enters: float = RIGHT) -> None:
    """f_k; its keys go into the dictionary at `key_enters`."""
    views(ax, RIGHT, "$x_k$")
    arrow(ax, (RIGHT, INPUT + 20), (RIGHT, ENCODER - 18))
    box(ax, (RIGHT, ENCODER), (124, 36), text, colours)
    elbow = () if key_enters == RIGHT else ((RIGHT, ENCODER + 32), (key_enters, ENCODER + 32))
    arrow(ax, (RIGHT, ENCODER + 18), *elbow, (key_enters, VECTOR - 13))


def momentum_update(ax: Axes) -> None:
    """Eqn. (2)."""
    arrow(ax, (LEFT + 56, ENCODER), (RIGHT - 62, ENCODER), colour=AVERAGE[0])
    note(ax, ((LEFT + RIGHT) / 2 - 3, ENCODER + 11), "momentum update", colour=AVERAGE[0])
    note(
        ax,
        ((LEFT + RIGHT) / 2 - 3, ENCODER - 13),
        r"$\theta_k \leftarrow m\,\theta_k + (1-m)\,\theta_q$",
        colour=AVERAGE[0],
        fontsize=9,
    )


def end_to_end(ax: Axes) -> None:
    panel(ax, "(a) end-to-end", "keys of this mini-batch: consistent, but only as many as fit in memory")
    query(ax, VECTOR, ENCODER + 18)
    key_encoder(ax, "encoder $f_k = f_q$", TRAINED)
    keys(ax, "keys $k$", 8, room=50)
    arrow(ax, (MIDDLE + 63, LOSS), (RIGHT + 57, LOSS), (RIGHT + 57, ENCODER + 18), colour=GRADIENT, dashed=True)


def memory_bank(ax: Axes) -> None:
    panel(ax, "(b) memory bank", "keys of every image: many, but each from another state of the encoder")
    query(ax, VECTOR, ENCODER + 18)
    keys(ax, "sampled keys $k$", 13, room=98)
    box(ax, (RIGHT, 60), (156, 72), "memory bank:\none key for each image", STORED)
    arrow(ax, (RIGHT, 96), (RIGHT, VECTOR - 13))
    note(ax, (RIGHT + 8, 113), "draw", ha="left")
    arrow(ax, (LEFT + 18, VECTOR), (MIDDLE - 14, VECTOR), (MIDDLE - 14, 60), (RIGHT - 78, 60), colour=STORED[0])
    note(ax, (MIDDLE - 8, 122), "write\nback", colour=STORED[0], ha="left")


def moco(ax: Axes) -> None:
    panel(ax, "(c) MoCo v1, v2", "keys of past mini-batches: many, and from an encoder that moves slowly")
    query(ax, VECTOR, ENCODER + 18)
    keys(ax, "queue of $K$ keys", 15, room=102)
    key_encoder(ax, "momentum\nencoder $f_k$", AVERAGE, key_enters=RIGHT + 84)
    note(ax, (RIGHT + 74, VECTOR + 22), "newest", colour=STORED[0])
    note(ax, (RIGHT - 74, VECTOR + 22), "oldest", colour=STORED[0])
    arrow(ax, (RIGHT - 90, VECTOR), (RIGHT - 118, VECTOR), colour=STORED[0])
    momentum_update(ax)


def moco_v3(ax: Axes) -> None:
    panel(ax, "(d) MoCo v3", "keys of this mini-batch, which is large; each view is query and key in turn")
    arrow(ax, (LEFT, ENCODER + 18), (LEFT, 117))
    box(ax, (LEFT, 128), (72, 22), "predictor", TRAINED)
    query(ax, 169, 139)
    key_encoder(ax, "momentum\nencoder $f_k$", AVERAGE)
    keys(ax, "keys $k$", 8, room=50)
    momentum_update(ax)


def legend(ax: Axes) -> None:
    ax.set(xlim=(0, 900), ylim=(0, 30))
    ax.axis("off")
    for x, text, colour, dashed in (
        (14, "forward", INK, False), (130, "gradient", GRADIENT, True), (252, "momentum update", AVERAGE[0], False),
        (424, "keys in and out", STORED[0], False),
    ):  # fmt: skip
        arrow(ax, (x, 15), (x + 34, 15), colour=colour, dashed=dashed)
        note(ax, (x + 41, 15), text, ha="left", colour=INK, fontsize=10.5)
    for x, text, (edge, face) in (
        (572, "trained", TRAINED),
        (664, "moving average", AVERAGE),
        (803, "dictionary", STORED),
    ):
        ax.add_patch(Rectangle((x, 8), 20, 14, fc=face, ec=edge, lw=1.4))
        note(ax, (x + 26, 15), text, ha="left", colour=INK, fontsize=10.5)


def mechanisms() -> Figure:
    """Fig. 2 of MoCo v1, redrawn, and MoCo v3: who makes the keys, where they are kept, what gradients reach."""
    figure = Figure(figsize=(12.5, 9.8), dpi=144, facecolor="white")
    for i, draw in enumerate((end_to_end, memory_bank, moco, moco_v3)):
        draw(figure.add_axes((0.5 * (i % 2), 0.045 + 0.4775 * (1 - i // 2), 0.5, 0.4775)))
    legend(figure.add_axes((0, 0.005, 1, 0.04)))
    return figure


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    mechanisms().savefig(IMAGES / "mechanisms.png")
