"""BERT's tensor names, which BLIP's and BLIP-2's checkpoints keep inside their own, as rules with the places here."""

from isthmus.interop.patterns import Rules


def attention_rules(theirs: str, ours: str, *, inner: str = "self") -> Rules:
    """The rules for attention and the norm behind it, whose projections lie below `inner`."""
    return (
        (rf"{theirs}\.{inner}\.(query|key|value)\.(.+)", rf"{ours}.\2.\3"),
        (rf"{theirs}\.output\.dense\.(.+)", rf"{ours}.out.\2"),
        (rf"{theirs}\.output\.LayerNorm\.(.+)", rf"{ours}.norm.\2"),
    )


def feed_forward_rules(layer: str, ours: str, *, suffix: str = "") -> Rules:
    """The rules for a layer's feed-forward and the norm behind it, whose modules' names end with `suffix`."""
    return (
        (rf"{layer}\.intermediate{suffix}\.dense\.(.+)", rf"{ours}.expand.\2"),
        (rf"{layer}\.output{suffix}\.dense\.(.+)", rf"{ours}.contract.\2"),
        (rf"{layer}\.output{suffix}\.LayerNorm\.(.+)", rf"{ours}.norm.\2"),
    )


def table_rules(embeddings: str, ours: str) -> Rules:
    """The rules for the tables of words and positions; `ours` ends before the table's name."""
    return (
        (rf"{embeddings}\.word_embeddings\.(.+)", rf"{ours}words.\1"),
        (rf"{embeddings}\.position_embeddings\.(.+)", rf"{ours}positions.\1"),
    )


def word_rules(prefix: str, ours: str, *, norm: str) -> Rules:
    """The rules for the embeddings with their norm, which has a place of its own."""
    embeddings = rf"{prefix}\.embeddings"
    return (
        *table_rules(embeddings, ours),
        (rf"{embeddings}\.LayerNorm\.(.+)", rf"{norm}.\1"),
        (rf"{embeddings}\.position_ids", ""),
    )


def head_rules(prefix: str, ours: str) -> Rules:
    """The rules for the output head; `ours` ends before its name."""
    return (
        (rf"{prefix}\.predictions\.transform\.dense\.(.+)", rf"{ours}head.0.\1"),
        (rf"{prefix}\.predictions\.transform\.LayerNorm\.(.+)", rf"{ours}head.2.\1"),
        (rf"{prefix}\.predictions\.bias", rf"{ours}head_bias"),
        (rf"{prefix}\.predictions\.decoder\..+", ""),  # tied to the words, and the bias a second time
    )


UNUSED: Rules = (
    (r"bert\.embeddings\.token_type_embeddings\..+", ""),
    (r"(?:cls\.seq_relationship|bert\.pooler)\..+", ""),
)
"""What a published BERT holds and neither MED nor a Q-Former has."""
