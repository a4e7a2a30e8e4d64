"""A source with a known share of captions in the wrong place, to measure who notices."""

from dataclasses import replace
from typing import final

from isthmus.core.errors import DataError
from isthmus.core.randomness import order_of
from isthmus.data.samples import Sample, Source


@final
class ExchangedCaptions(Source):
    """The samples of a source, a share of whose captions are those of other pictures.

    Exactly `round(share * captions)` captions are drawn, and each of them takes the place of one from another picture:
    none is lost, none is doubled. Which ones follows from the seed alone.

    Args:
        source: The samples; their records are read once.
        share: How many captions are exchanged, in [0, 1].
        seed: Which ones.

    Raises:
        DataError: So many captions of one picture are drawn that there are too few others to exchange them with.
    """

    def __init__(self, source: Source, *, share: float, seed: int) -> None:
        self.source = source
        self.format = source.format
        captions = [source.sample(index).captions for index in range(len(source))]
        places = [(index, at) for index, found in enumerate(captions) for at in range(len(found))]
        drawn = order_of(len(places), seed, "exchanged captions").tolist()[: round(share * len(places))]
        # Pictures in a random order, captions of one picture side by side: a turn by the longest such group leads away.
        order = {
            index: at for at, index in enumerate(order_of(len(source), seed, "exchanged pictures").tolist())
        }
        chosen = sorted((places[one] for one in drawn), key=lambda place: (order[place[0]], place[1]))
        sizes: dict[int, int] = {}
        for index, _ in chosen:
            sizes[index] = sizes.get(index, 0) + 1
        turn = max(sizes.values(), default=0)
        if 2 * turn > len(chosen):
            raise DataError(
                f"{len(chosen)} captions are to be exchanged, {turn} of them of one picture; expected at least twice "
                "as many as of any picture, so exchange more or take a larger source"
            )
        self._taken: dict[tuple[int, int], str] = {}
        for place, (index, at) in zip(chosen, chosen[turn:] + chosen[:turn], strict=True):
            self._taken[place] = captions[index][at]

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> Sample:
        """The sample with its captions, some of which may be another picture's."""
        sample = self.source.sample(index)
        captions = (self._taken.get((index, at), own) for at, own in enumerate(sample.captions))
        return replace(sample, captions=tuple(captions))

    def is_exchanged(self, index: int, caption: int) -> bool:
        """Whether a caption, by its place in the sample, is another picture's."""
        return (index, caption) in self._taken
