import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from isthmus.core.batch import Batch
from isthmus.core.errors import CheckpointError, RecipeError, Stopped
from isthmus.core.protocols import Encoded
from isthmus.core.randomness import generator_of
from isthmus.training.features import FeatureStore
from isthmus.training.signals import StopSignals

from .toy import ToyModel, ToyStream
from .trainers import SETTINGS, make_trainer, store


def test_a_cap_on_minutes_ends_the_stage_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(SETTINGS, minutes=1e-9)
    trainer, _ = make_trainer(ToyModel(), settings=settings, checkpoints=store(tmp_path))
    with caplog.at_level(logging.WARNING):
        result = trainer.run()
    assert (result.steps, result.stopped_early) == (1, True)
    assert "cap of 1e-09 minutes" in caplog.text
    resumed = make_trainer(ToyModel(), settings=settings, checkpoints=store(tmp_path))[0].run(resume=True)
    assert (resumed.steps, resumed.stopped_early, resumed.loss) == (1, True, result.loss)


def test_a_signal_ends_the_step_saves_and_reports(tmp_path: Path) -> None:
    class Interrupted(ToyStream):
        def micro_batches(self, step: int) -> list[Batch]:
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().micro_batches(step)

    with StopSignals() as stop:
        trainer, _ = make_trainer(ToyModel(), Interrupted(), checkpoints=store(tmp_path), stop=stop)
        with pytest.raises(Stopped, match="stopped by SIGTERM after step 3 of 6; it is saved") as caught:
            trainer.run()
    assert caught.value.exit_code == 143
    assert store(tmp_path).steps() == [3]


def test_a_directory_with_checkpoints_is_not_started_over(tmp_path: Path) -> None:
    make_trainer(ToyModel(), checkpoints=store(tmp_path))[0].run()
    with pytest.raises(CheckpointError, match=r"already has checkpoints \(newest: step 6\).*--resume"):
        make_trainer(ToyModel(), checkpoints=store(tmp_path))[0].run()


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match="num_steps of stage 'align' is 0"):
        replace(SETTINGS, num_steps=0)


class WithEncoder(ToyModel):
    """The toy behind a frozen encoder of pictures, which it runs unless features are given."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 2, stride=2)

    def parts(self) -> dict[str, nn.Module]:
        return super().parts() | {"encoder": self.encoder}

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder(pixels).flatten(2).mT

    def encode(self, batch: Batch) -> Encoded:
        features = batch.features if batch.pixels is None else self.patches(batch.pixels)
        return super().encode(replace(batch, features=features))


class Pictures:
    """The toy's rows with pictures, or with stored features of these pictures."""

    def __init__(self, store: FeatureStore | None) -> None:
        self._store = store

    def micro_batches(self, step: int) -> list[Batch]:
        return [self._row(batch) for batch in ToyStream(rows=(3, 2)).micro_batches(step)]

    def _row(self, batch: Batch) -> Batch:
        if self._store is not None:
            return replace(batch, features=self._store.read_batch(batch.sample_ids))
        pixels = torch.stack([torch.randn(3, 4, 4, generator=generator_of(row)) for row in batch.sample_ids])
        return replace(batch, pixels=pixels, features=None)


def test_training_on_stored_features_equals_live_ones(tmp_path: Path) -> None:
    encoder = WithEncoder().eval()
    store = FeatureStore(tmp_path, {"weights": "toy"}, dtype="float32", pictures_per_shard=8)
    rows = [batch for step in range(6) for batch in Pictures(None).micro_batches(step)]
    with torch.no_grad():
        pictures = [
            (row, encoder.patches(p[None])[0])
            for b in rows
            for row, p in zip(b.sample_ids, b.pixels, strict=True)
        ]
    store.write(pictures, num_pictures=len(pictures))
    weights = []
    for stream in (Pictures(None), Pictures(store)):
        model = WithEncoder()
        make_trainer(model, stream)[0].run()
        weights.append(model.state_dict())
    assert max((weights[0][n].double() - weights[1][n].double()).abs().max() for n in weights[0]) <= 1e-5
